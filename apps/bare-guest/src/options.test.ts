import { describe, expect, it } from 'vitest';
import { parseScriptOptions } from './options.ts';

const refused = (...words: string[]): unknown => {
  try {
    return parseScriptOptions(words);
  } catch (error) {
    return error;
  }
};

describe('the options of a bare guest', () => {
  it('end at the script, whose arguments are its own', () => {
    const options = parseScriptOptions([
      ...['--bare', 'riscv64', '--transport', 'pci', '--disk', 'a.img', '--qemu', "-device 'x,y=a b'"],
      ...['script.ts', '--disk', 'mine'],
    ]);
    expect(options).toMatchObject({
      ...{ arch: 'riscv64', transport: 'pci', disks: ['a.img'] },
      ...{ qemu: ['-device', 'x,y=a b'], script: 'script.ts', args: ['--disk', 'mine'] },
    });
  });

  it('have defaults for all but the architecture and the script', () => {
    expect(parseScriptOptions(['--bare=x86_64', 's.ts'])).toMatchObject({ transport: 'mmio-v2', disks: [], qemu: [], args: [] });
    expect(refused('--bare', 'mips', 's.ts')).toMatchObject({ code: 'BAD_ARGUMENTS', message: expect.stringContaining('riscv64') as string });
    expect(refused('--bare', 'riscv64')).toMatchObject({ message: expect.stringContaining('a script is missing') as string });
  });

  it('refuse those of Linux guests, and values that make no sense', () => {
    expect(refused('--bare', 'riscv64', '--machine', 'q35', 's.ts')).toMatchObject({ code: 'BAD_ARGUMENTS' });
    expect(refused('--bare', 'riscv64', '--timeout', 'soon', 's.ts')).toMatchObject({ code: 'BAD_ARGUMENTS' });
  });

  it('are explained where help is asked for', () => {
    expect(parseScriptOptions(['--bare', 'riscv64', '--help'])).toBeUndefined();
  });
});
