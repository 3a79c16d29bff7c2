/**
 * Errors of the server. They have the shape of the errors of `node:fs`, so that code written for it works. Failures below the
 * protocol (the device, the queue, a server that breaks the protocol) are `VirtioError`s.
 */
import { Errno, type ErrnoName, errnoName, errnoText } from './errno.ts';

/** The error of an operation that the server, or the client on its behalf, refused, with Linux's name for the reason. */
export class FileError extends Error {
  override readonly name: string = 'FileError';
  /** Linux's name of the error: `ENOENT`, `EACCES`, … */
  readonly code: ErrnoName;
  /** Linux's number of the error, negative as in `node:fs`. */
  readonly errno: number;
  /** The operation: `open`, `rename`, … */
  readonly syscall: string;
  /** The path of the operation, if it has one. */
  declare readonly path?: string;
  /** The second path of `rename`, `link`, `symlink` and `copyFile`. */
  declare readonly dest?: string;

  /**
   * @param errno the number of the error, positive
   * @param syscall the operation
   * @param path its path
   * @param dest its other path
   */
  constructor(errno: number, syscall: string, path?: string, dest?: string) {
    const code = errnoName(errno);
    const where = path === undefined ? '' : ` '${path}'${dest === undefined ? '' : ` -> '${dest}'`}`;
    super(`${code}: ${errnoText(errno)}, ${syscall}${where}`);
    this.code = code;
    this.errno = -errno;
    this.syscall = syscall;
    if (path !== undefined) this.path = path;
    if (dest !== undefined) this.dest = dest;
  }

  /** Whether `value` is a {@link FileError}, by default of any code. */
  static is(value: unknown, code?: ErrnoName): value is FileError {
    return isFileError(value) && (code === undefined || value.code === code);
  }
}

/** A class that mentions itself is renamed by bundlers (esbuild), and its errors would be printed as `_FileError`. */
function isFileError(value: unknown): value is FileError {
  return value instanceof FileError;
}

/** The error of an operation that the client refuses on behalf of the server. */
export function refuse(code: keyof typeof Errno, syscall: string, path?: string): FileError {
  return new FileError(Errno[code], syscall, path);
}
