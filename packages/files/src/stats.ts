/** Attributes of files, directory entries and statistics of file systems, in the shape of `node:fs`. */
import type { Attributes, RawStatFs } from './client.ts';
import { DirentType, FileType, type Qid } from './numbers.ts';

const MS = 1000;
const NS_PER_MS = 1e6;
const NS = 1_000_000_000n;

/** The type of a file, by the methods of `node:fs`. */
abstract class Kind {
  /** One of `FileType`. */
  protected abstract get kind(): number;

  /** Whether it is a regular file. */
  isFile(): boolean {
    return this.kind === FileType.FILE;
  }

  /** Whether it is a directory. */
  isDirectory(): boolean {
    return this.kind === FileType.DIRECTORY;
  }

  /** Whether it is a symbolic link. */
  isSymbolicLink(): boolean {
    return this.kind === FileType.SYMLINK;
  }

  /** Whether it is a named pipe. */
  isFIFO(): boolean {
    return this.kind === FileType.FIFO;
  }

  /** Whether it is a socket. */
  isSocket(): boolean {
    return this.kind === FileType.SOCKET;
  }

  /** Whether it is a block device. */
  isBlockDevice(): boolean {
    return this.kind === FileType.BLOCK_DEVICE;
  }

  /** Whether it is a character device. */
  isCharacterDevice(): boolean {
    return this.kind === FileType.CHARACTER_DEVICE;
  }
}

/** The attributes of a file. Numbers above 2^53 are rounded. */
export class Stats extends Kind {
  /** Always 0: the protocol has no such field. */
  readonly dev = 0;
  /**
   * The inode number of the server, rounded above 2^53; {@link Stats.qid} has it exactly. QEMU 10 and later do not report the host's
   * number by default: see its option `multidevs`.
   */
  readonly ino: number;
  /** The server's identification of the file: two files are the same if their `path` is. */
  readonly qid: Qid;
  /** Type and permissions. */
  readonly mode: number;
  /** The number of hard links. */
  readonly nlink: number;
  /** The number of the owner. */
  readonly uid: number;
  /** The number of the group. */
  readonly gid: number;
  /** The device number of a device node. */
  readonly rdev: number;
  /** The size in bytes. */
  readonly size: number;
  /** The server's block size for transfers, in bytes. */
  readonly blksize: number;
  /** The allocated blocks of 512 bytes. */
  readonly blocks: number;
  /** The last access, in milliseconds since 1970. */
  readonly atimeMs: number;
  /** The last change of the contents. */
  readonly mtimeMs: number;
  /** The last change of contents or attributes. */
  readonly ctimeMs: number;
  /** The creation; 0 if the server does not report it. */
  readonly birthtimeMs: number;
  /** The last access, in nanoseconds since 1970, exactly. */
  readonly atimeNs: bigint;
  /** The last change of the contents. */
  readonly mtimeNs: bigint;
  /** The last change of contents or attributes. */
  readonly ctimeNs: bigint;
  /** The creation; 0 if the server does not report it. */
  readonly birthtimeNs: bigint;

  constructor(attributes: Attributes) {
    super();
    const { qid } = attributes;
    this.qid = qid;
    this.ino = Number(qid.path);
    this.mode = attributes.mode;
    this.nlink = attributes.nlink;
    this.uid = attributes.uid;
    this.gid = attributes.gid;
    this.rdev = attributes.rdev;
    this.size = attributes.size;
    this.blksize = attributes.blksize;
    this.blocks = attributes.blocks;
    this.atimeMs = milliseconds(attributes.atime, attributes.atimeNs);
    this.mtimeMs = milliseconds(attributes.mtime, attributes.mtimeNs);
    this.ctimeMs = milliseconds(attributes.ctime, attributes.ctimeNs);
    this.birthtimeMs = milliseconds(attributes.btime, attributes.btimeNs);
    this.atimeNs = nanoseconds(attributes.atime, attributes.atimeNs);
    this.mtimeNs = nanoseconds(attributes.mtime, attributes.mtimeNs);
    this.ctimeNs = nanoseconds(attributes.ctime, attributes.ctimeNs);
    this.birthtimeNs = nanoseconds(attributes.btime, attributes.btimeNs);
  }

  protected override get kind(): number {
    return this.mode & FileType.MASK;
  }

  /** The last access. */
  get atime(): Date {
    return new Date(this.atimeMs);
  }

  /** The last change of the contents. */
  get mtime(): Date {
    return new Date(this.mtimeMs);
  }

  /** The last change of contents or attributes. */
  get ctime(): Date {
    return new Date(this.ctimeMs);
  }

  /** The creation. */
  get birthtime(): Date {
    return new Date(this.birthtimeMs);
  }
}

/** An entry of a directory. */
export class Dirent extends Kind {
  /** The name: a string in which bytes that are not UTF-8 are lone surrogates; see `decodeUtf8Lossless`. */
  readonly name: string;
  /** The path of the directory, as it was given. */
  readonly parentPath: string;
  protected override readonly kind: number;

  /**
   * @param name the name
   * @param parentPath the path of the directory
   * @param kind one of `FileType`
   */
  constructor(name: string, parentPath: string, kind: number) {
    super();
    this.name = name;
    this.parentPath = parentPath;
    this.kind = kind;
  }
}

/** The statistics of a file system, in blocks of `bsize` bytes. */
export interface StatFs {
  /** The type of the file system, as Linux numbers them. */
  readonly type: number;
  readonly bsize: number;
  readonly blocks: number;
  /** Free blocks. */
  readonly bfree: number;
  /** Free blocks for users other than root. */
  readonly bavail: number;
  /** Inodes. */
  readonly files: number;
  /** Free inodes. */
  readonly ffree: number;
  /** The longest name, in bytes. */
  readonly namelen: number;
  /** The file system's identifier. */
  readonly fsid: bigint;
}

export const toStatFs = (raw: RawStatFs): StatFs => ({ ...raw });

/** The file type that a directory entry reports, or `undefined` if it does not. */
export function direntKind(type: number): number | undefined {
  // The types of entries are the upper bits of the mode, as in Linux.
  return type === DirentType.UNKNOWN ? undefined : (type << 12) & FileType.MASK;
}

function milliseconds(seconds: number, rest: number): number {
  return seconds * MS + rest / NS_PER_MS;
}

function nanoseconds(seconds: number, rest: number): bigint {
  return BigInt(seconds) * NS + BigInt(rest);
}
