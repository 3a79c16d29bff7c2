/** The files in which the kernel describes devices: sysfs, procfs, the device tree. Tests give another root. */
import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errorName } from './system-error.ts';

/** Errors that say that there is nothing at a path, or that it went away. */
const ABSENT = ['ENOENT', 'ENOTDIR', 'ENODEV', 'ENXIO', 'EINVAL'];

/** Reads and writes small files below a root. Paths start with `/`. */
export class SystemFiles {
  readonly #root: string;

  constructor(root = '/') {
    this.#root = root;
  }

  /** The path below the root as a path of this process. */
  path(path: string): string {
    return join(this.#root, path);
  }

  /** The contents of a file, or `undefined` if there is none. */
  bytes(path: string): Uint8Array | undefined {
    return this.#unlessAbsent(() => readFileSync(this.path(path)));
  }

  /** The text of a file without white space around it, or `undefined` if there is no file. */
  text(path: string): string | undefined {
    const bytes = this.bytes(path);
    return bytes && new TextDecoder().decode(bytes).trim();
  }

  /** The number in a file (`0x1af4`, `12`), or `undefined`. */
  number(path: string): number | undefined {
    const text = this.text(path);
    const value = Number(text);
    return text === undefined || text === '' || Number.isNaN(value) ? undefined : value;
  }

  /** The names in a folder in order; none if there is no folder. */
  list(path: string): readonly string[] {
    return this.#unlessAbsent(() => readdirSync(this.path(path)).sort()) ?? [];
  }

  /** The last part of what a symbolic link points to, or `undefined` if there is no link. */
  linkName(path: string): string | undefined {
    return this.#unlessAbsent(() => basename(readlinkSync(this.path(path))));
  }

  /** Whether there is something at the path. */
  exists(path: string): boolean {
    const name = basename(path);
    return this.list(path.slice(0, -name.length)).includes(name);
  }

  /** Opens a file; the descriptor is the caller's. */
  open(path: string, flags: string | number): number {
    return openSync(this.path(path), flags);
  }

  /**
   * Writes a file that is there, in one go, as sysfs wants it. A file that is not there is not made: where that cannot be, in the
   * folder of a device that is just being unplugged, the system would report missing rights (EACCES).
   */
  write(path: string, text: string): void {
    const fd = this.open(path, constants.O_WRONLY | constants.O_TRUNC);
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  }

  #unlessAbsent<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (ABSENT.includes(errorName(error) ?? '')) return undefined;
      throw error;
    }
  }
}
