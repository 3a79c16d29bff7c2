/** The numbers that both protocols take from Linux. */

/** The largest number of names of one walk. */
export const MAX_WALK = 16;

/** A qid: the server's identification of a file. */
export interface Qid {
  /** Bits of {@link QidType}. */
  readonly type: number;
  /** Changes when the file changes, on servers that support that. */
  readonly version: number;
  /** A number that is unique among the server's files; the same for two names of one file. */
  readonly path: bigint;
}

/** Bits of {@link Qid.type}. */
export const QidType = {
  DIRECTORY: 0x80,
  APPEND: 0x40,
  EXCLUSIVE: 0x20,
  MOUNT: 0x10,
  AUTH: 0x08,
  TEMPORARY: 0x04,
  SYMLINK: 0x02,
  LINK: 0x01,
} as const;

/** The types of directory entries, as Linux numbers them. */
export const DirentType = {
  UNKNOWN: 0,
  FIFO: 1,
  CHARACTER_DEVICE: 2,
  DIRECTORY: 4,
  BLOCK_DEVICE: 6,
  FILE: 8,
  SYMLINK: 10,
  SOCKET: 12,
} as const;

/** The bits of the `valid` field of a change of attributes. A time without its `_SET` bit becomes the server's current time. */
export const SetattrValid = {
  MODE: 0x1,
  UID: 0x2,
  GID: 0x4,
  SIZE: 0x8,
  ATIME: 0x10,
  MTIME: 0x20,
  CTIME: 0x40,
  ATIME_SET: 0x80,
  MTIME_SET: 0x100,
} as const;

/** The type of a lock. */
export const LockType = { READ: 0, WRITE: 1, UNLOCK: 2 } as const;

/** The result of asking for a lock. */
export const LockStatus = { SUCCESS: 0, BLOCKED: 1, ERROR: 2, GRACE: 3 } as const;

/** The flag of `unlinkat` that removes a directory. */
export const AT_REMOVEDIR = 0x200;

/** The flags of `open`: Linux's, with the numbers that they have on most architectures. */
export const OpenFlag = {
  RDONLY: 0,
  WRONLY: 0o1,
  RDWR: 0o2,
  ACCMODE: 0o3,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  DIRECT: 0o40000,
  LARGEFILE: 0o100000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  NOATIME: 0o1000000,
  SYNC: 0o4010000,
} as const;

/** The type of a file, in the upper bits of its mode. */
export const FileType = {
  MASK: 0o170000,
  SOCKET: 0o140000,
  SYMLINK: 0o120000,
  FILE: 0o100000,
  BLOCK_DEVICE: 0o060000,
  DIRECTORY: 0o040000,
  CHARACTER_DEVICE: 0o020000,
  FIFO: 0o010000,
} as const;
