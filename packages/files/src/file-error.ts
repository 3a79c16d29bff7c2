/**
 * Errors of the server. They have the shape of those of `node:fs`, so that code written for it sees what it expects; what goes
 * wrong below the protocol (the device, the queue, a server that lies) is a `VirtioError`.
 */
import { Errno, type ErrnoName, errnoName, errnoText } from './errno.ts';

/** An operation that the server refused, or the client in its place, with Linux's name for the reason. */
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
  /** The other path, of `rename`, `link`, `symlink` and `copyFile`. */
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
    return value instanceof FileError && (code === undefined || value.code === code);
  }
}

/** An error by the client in the server's place. */
export function refuse(code: keyof typeof Errno, syscall: string, path?: string): FileError {
  return new FileError(Errno[code], syscall, path);
}
