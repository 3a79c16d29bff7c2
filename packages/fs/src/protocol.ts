/**
 * The protocol: the device's configuration space, and the requests of FUSE 7.31. FUSE has no other standard than Linux's header; its
 * numbers have the byte order of the driver, which here is always little-endian.
 */
import { FeatureTable, type FieldTable, Layout, type Values } from '@virtio/core';

/**
 * The feature bits of file system devices, by number.
 *
 * @see VIRTIO 1.4, 5.11.3
 */
export const FsFeature = {
  /** The device has a notification queue. */
  NOTIFICATION: 0,
} as const;

/** The name of a feature of file system devices. */
export type FsFeatureName = keyof typeof FsFeature;

/** The features of file system devices, by name. */
export const FsFeatures: FeatureTable<FsFeatureName> = new FeatureTable<FsFeatureName>(
  'FsFeatures',
  FsFeature,
);

/**
 * The configuration space.
 *
 * @see VIRTIO 1.4, 5.11.4
 */
export const FsConfig = new Layout('virtio_fs_config', {
  tag: 'bytes36',
  numRequestQueues: 'u32',
  notifyBufSize: 'u32',
});

/** The index of the hiprio queue, for requests that must not wait behind others [5.11.2]. */
export const HIPRIO_QUEUE = 0;

/** The index of the first request queue, without `NOTIFICATION` [5.11.2]. */
export const REQUEST_QUEUE = 1;

/** The version of FUSE that this client implements. */
export const FUSE_VERSION = { major: 7, minor: 31 } as const;

/** The node ID of the root. */
export const ROOT_ID = 1n;

/** The opcodes of requests. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  COPY_FILE_RANGE: 47,
} as const;

/** The requests of the hiprio queue, and of no other [5.11.6.2]. */
export const HIPRIO_OPCODES: readonly number[] = [Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET];

/** The requests whose replies begin with an entry: the server counts a lookup of its node. */
export const ENTRY_OPCODES: readonly number[] = [
  Opcode.LOOKUP,
  Opcode.SYMLINK,
  Opcode.MKNOD,
  Opcode.MKDIR,
  Opcode.LINK,
  Opcode.CREATE,
];

/** The requests that open a file or a directory: their replies end with its handle. */
export const OPEN_OPCODES: readonly number[] = [Opcode.OPEN, Opcode.OPENDIR, Opcode.CREATE];

/** The flags of `INIT` that this client requests. */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  POSIX_LOCKS: 1 << 1,
  ATOMIC_O_TRUNC: 1 << 3,
  BIG_WRITES: 1 << 5,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
} as const;

/** Bits of `valid` in `SETATTR`. */
export const SetattrBit = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  FH: 1 << 6,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
} as const;

/** The flag of `GETATTR` that means that `fh` is valid. */
export const GETATTR_FH = 1;

/** The flag of `FSYNC` for contents only. */
export const FSYNC_DATA = 1;

/** The size of `fuse_in_header` in bytes, before the arguments of each request. */
export const IN_HEADER_SIZE = 40;

/** The size of `fuse_out_header` in bytes, before the result of each reply. */
export const OUT_HEADER_SIZE = 16;

export const InHeader = new Layout('fuse_in_header', {
  len: 'u32',
  opcode: 'u32',
  unique: 'u64',
  nodeid: 'u64',
  uid: 'u32',
  gid: 'u32',
  pid: 'u32',
  padding: 'u32',
});

export const OutHeader = new Layout('fuse_out_header', { len: 'u32', error: 'i32', unique: 'u64' });

const attr = {
  ino: 'u64',
  size: 'u64',
  blocks: 'u64',
  atime: 'u64',
  mtime: 'u64',
  ctime: 'u64',
  atimeNs: 'u32',
  mtimeNs: 'u32',
  ctimeNs: 'u32',
  mode: 'u32',
  nlink: 'u32',
  uid: 'u32',
  gid: 'u32',
  rdev: 'u32',
  blksize: 'u32',
  flags: 'u32',
} as const satisfies FieldTable;

const entry = {
  nodeid: 'u64',
  generation: 'u64',
  entryValid: 'u64',
  attrValid: 'u64',
  entryValidNs: 'u32',
  attrValidNs: 'u32',
  ...attr,
} as const satisfies FieldTable;

/** `fuse_attr`. */
export type AttrValues = Values<typeof attr>;

/** `fuse_entry_out`. */
export type EntryValues = Values<typeof entry>;

const open = { fh: 'u64', openFlags: 'u32', padding: 'u32' } as const satisfies FieldTable;

const lock = { start: 'u64', end: 'u64', type: 'u32', pid: 'u32' } as const satisfies FieldTable;

const nothing = {} as const satisfies FieldTable;

/** The arguments of requests; names and data follow. */
export const In = {
  none: new Layout('nothing', nothing),
  init: new Layout('fuse_init_in', { major: 'u32', minor: 'u32', maxReadahead: 'u32', flags: 'u32' }),
  forget: new Layout('fuse_forget_in', { nlookup: 'u64' }),
  interrupt: new Layout('fuse_interrupt_in', { unique: 'u64' }),
  getattr: new Layout('fuse_getattr_in', { flags: 'u32', dummy: 'u32', fh: 'u64' }),
  setattr: new Layout('fuse_setattr_in', {
    valid: 'u32',
    padding: 'u32',
    fh: 'u64',
    size: 'u64',
    lockOwner: 'u64',
    atime: 'u64',
    mtime: 'u64',
    ctime: 'u64',
    atimeNs: 'u32',
    mtimeNs: 'u32',
    ctimeNs: 'u32',
    mode: 'u32',
    unused4: 'u32',
    uid: 'u32',
    gid: 'u32',
    unused5: 'u32',
  }),
  mknod: new Layout('fuse_mknod_in', { mode: 'u32', rdev: 'u32', umask: 'u32', padding: 'u32' }),
  mkdir: new Layout('fuse_mkdir_in', { mode: 'u32', umask: 'u32' }),
  rename: new Layout('fuse_rename_in', { newDirectory: 'u64' }),
  link: new Layout('fuse_link_in', { oldNodeid: 'u64' }),
  open: new Layout('fuse_open_in', { flags: 'u32', unused: 'u32' }),
  create: new Layout('fuse_create_in', { flags: 'u32', mode: 'u32', umask: 'u32', padding: 'u32' }),
  release: new Layout('fuse_release_in', { fh: 'u64', flags: 'u32', releaseFlags: 'u32', lockOwner: 'u64' }),
  flush: new Layout('fuse_flush_in', { fh: 'u64', unused: 'u32', padding: 'u32', lockOwner: 'u64' }),
  /** Also `fuse_write_in`, with the flags of a write. */
  io: new Layout('fuse_read_in', {
    fh: 'u64',
    offset: 'u64',
    size: 'u32',
    ioFlags: 'u32',
    lockOwner: 'u64',
    flags: 'u32',
    padding: 'u32',
  }),
  fsync: new Layout('fuse_fsync_in', { fh: 'u64', flags: 'u32', padding: 'u32' }),
  setxattr: new Layout('fuse_setxattr_in', { size: 'u32', flags: 'u32' }),
  getxattr: new Layout('fuse_getxattr_in', { size: 'u32', padding: 'u32' }),
  lock: new Layout('fuse_lk_in', { fh: 'u64', owner: 'u64', ...lock, flags: 'u32', padding: 'u32' }),
  copyFileRange: new Layout('fuse_copy_file_range_in', {
    fhIn: 'u64',
    offIn: 'u64',
    nodeidOut: 'u64',
    fhOut: 'u64',
    offOut: 'u64',
    len: 'u64',
    flags: 'u64',
  }),
} as const;

/** The results of requests. */
export const Out = {
  none: new Layout('nothing', nothing),
  /** With the fields that version 7.23 added. */
  init: new Layout('fuse_init_out', {
    major: 'u32',
    minor: 'u32',
    maxReadahead: 'u32',
    flags: 'u32',
    maxBackground: 'u16',
    congestionThreshold: 'u16',
    maxWrite: 'u32',
    timeGran: 'u32',
    maxPages: 'u16',
    mapAlignment: 'u16',
  }),
  entry: new Layout('fuse_entry_out', entry),
  attr: new Layout('fuse_attr_out', { attrValid: 'u64', attrValidNs: 'u32', dummy: 'u32', ...attr }),
  open: new Layout('fuse_open_out', open),
  create: new Layout('fuse_create_out', { ...entry, ...open }),
  write: new Layout('fuse_write_out', { size: 'u32', padding: 'u32' }),
  statfs: new Layout('fuse_statfs_out', {
    blocks: 'u64',
    bfree: 'u64',
    bavail: 'u64',
    files: 'u64',
    ffree: 'u64',
    bsize: 'u32',
    namelen: 'u32',
    frsize: 'u32',
    padding: 'u32',
    spare: 'bytes24',
  }),
  lock: new Layout('fuse_lk_out', lock),
} as const;

/** An entry of a directory; the name follows, and then zeros up to a multiple of 8. */
export const DirectoryEntry = new Layout('fuse_dirent', {
  ino: 'u64',
  offset: 'u64',
  namelen: 'u32',
  type: 'u32',
});
