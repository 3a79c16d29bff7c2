import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseLdd, sonames } from './node-runtime.ts';

describe('parseLdd', () => {
  it('takes the libraries and the linker, not the kernel’s own', () => {
    const text = [
      '\tlinux-vdso.so.1 (0x00007ffe12345000)',
      '\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f0000000000)',
      '\t/lib64/ld-linux-x86-64.so.2 (0x00007f0000200000)',
    ].join('\n');
    expect(parseLdd(text)).toEqual(['/lib/x86_64-linux-gnu/libm.so.6', '/lib64/ld-linux-x86-64.so.2']);
  });

  it('names a library that is missing', () => {
    expect(() => parseLdd('\tlibatomic.so.1 => not found\n')).toThrow(/libatomic\.so\.1/);
  });
});

describe('sonames', () => {
  it('takes links before the files that they name, and no files without a version', () => {
    const directory = mkdtempSync(join(tmpdir(), 'sonames-test-'));
    try {
      for (const name of ['libicudata.so.78.3', 'libc.so.6', 'libmemusage.so', 'ld-linux.so.1']) {
        writeFileSync(join(directory, name), '');
      }
      symlinkSync('libicudata.so.78.3', join(directory, 'libicudata.so.78'));
      expect(sonames(directory)).toEqual(['ld-linux.so.1', 'libc.so.6', 'libicudata.so.78']);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
