import os from 'node:os';
import { describe, expect, it } from 'vitest';
import { Errno, errnoName, errnoText } from './errno.ts';
import { FileError } from './file-error.ts';

describe('error numbers', () => {
  it.runIf(process.platform === 'linux' && process.arch === 'x64')(
    'are those that Node.js knows for Linux',
    () => {
      const ours: Readonly<Record<string, number>> = Errno;
      const aliases: Readonly<Record<string, string>> = { EWOULDBLOCK: 'EAGAIN', ENOTSUP: 'EOPNOTSUPP' };
      for (const [name, number] of Object.entries(os.constants.errno)) {
        expect(ours[aliases[name] ?? name], name).toBe(number);
      }
    },
  );

  it('are each given once', () => {
    const numbers = Object.values(Errno);
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  it('have a name and a text, and one for those that Linux does not have', () => {
    expect(errnoName(2)).toBe('ENOENT');
    expect(errnoText(2)).toBe('no such file or directory');
    expect(errnoName(524)).toBe('UNKNOWN');
    expect(errnoText(524)).toContain('524');
  });
});

describe('FileError', () => {
  it('has the shape of the errors of node:fs', () => {
    const error = new FileError(Errno.EXDEV, 'rename', '/a', '/b');
    expect(error).toMatchObject({ code: 'EXDEV', errno: -18, syscall: 'rename', path: '/a', dest: '/b' });
    expect(error.message).toBe("EXDEV: cross-device link not permitted, rename '/a' -> '/b'");
    expect(FileError.is(error, 'EXDEV')).toBe(true);
    expect(FileError.is(error, 'ENOENT')).toBe(false);
    expect(FileError.is(new Error('EXDEV'))).toBe(false);
  });

  it('has no path where there is none', () => {
    const error = new FileError(Errno.EIO, 'read');
    expect(Object.keys(error)).not.toContain('path');
    expect(error.message).toBe('EIO: input/output error, read');
  });
});
