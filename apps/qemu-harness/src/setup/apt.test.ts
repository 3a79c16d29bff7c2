import { describe, expect, it } from 'vitest';
import { parseClosure } from './apt.ts';

describe('parseClosure', () => {
  it('takes the packages of the architecture and the modules of Node.js, no virtual ones', () => {
    const text = [
      'nodejs:riscv64',
      '  Depends: libc6:riscv64',
      '  Depends: node-acorn',
      '<node-undici:riscv64>',
      '    node-undici',
      'libc6:riscv64',
      'libc6:amd64',
      'node-acorn',
      'libc6:riscv64',
      '',
    ].join('\n');
    expect(parseClosure(text, 'riscv64')).toEqual(['nodejs:riscv64', 'libc6:riscv64', 'node-acorn']);
  });
});
