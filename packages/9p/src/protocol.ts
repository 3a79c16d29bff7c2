/**
 * The device's features and configuration, and the messages of 9P2000.L, each declared once as a table of
 * fields in the order of the wire. All integers are little-endian. The VIRTIO specification has only the number of the device (9),
 * and 9P2000.L has no standard: the tables follow diod's description, and the clients and servers of Linux and QEMU.
 */
import { FeatureTable, Layout } from '@virtio/core';
import type { Qid } from '@virtio/files';

export {
  AT_REMOVEDIR,
  DirentType,
  FileType,
  LockStatus,
  LockType,
  MAX_WALK,
  OpenFlag,
  type Qid,
  QidType,
  SetattrValid,
} from '@virtio/files';

/** The feature bits of the 9P device. */
export const P9Feature = {
  /** The configuration space has a mount tag. */
  MOUNT_TAG: 0,
} as const;

/** The names of {@link P9Feature}. */
export type P9FeatureName = keyof typeof P9Feature;

/** The features of the 9P device. */
export const P9Features: FeatureTable<P9FeatureName> = new FeatureTable<P9FeatureName>(
  'P9Features',
  P9Feature,
);

/** The fixed part of the configuration space. The tag follows: `tagLength` bytes, without a zero byte at its end. */
export const P9Config = new Layout('virtio_9p_config', { tagLength: 'u16 read-only' });

/** The index of the one queue. */
export const REQUEST_QUEUE = 0;

/** The types of fields. */
export type FieldKind =
  | 'u8'
  | 'u16'
  | 'u32'
  /** 64 bits kept whole: cookies, inode numbers, masks. */
  | 'u64'
  /** 64 bits as a number: sizes, offsets, counts. */
  | 'size'
  /** 64 bits as a signed number: seconds since 1970. */
  | 'time'
  /** Up to 65,535 bytes with their length before them, as a name; see `decodeUtf8Lossless`. */
  | 'string'
  | 'qid'
  /** Up to 16 strings, their number before them. */
  | 'names'
  /** Up to 16 qids, their number before them. */
  | 'qids';

interface KindValues {
  u8: number;
  u16: number;
  u32: number;
  u64: bigint;
  size: number;
  time: number;
  string: string;
  qid: Qid;
  names: readonly string[];
  qids: readonly Qid[];
}

/** The fields of a message and their types, in the order of the wire. */
export type Fields = Readonly<Record<string, FieldKind>>;

/** The values of a message. */
export type MessageValues<F extends Fields> = { readonly [K in keyof F]: KindValues[F[K]] };

/** A message: its name and number, and what follows the header. */
export interface Message<F extends Fields = Fields> {
  /** As in the protocol: `Twalk`. */
  readonly name: string;
  /** The third field of every message. */
  readonly type: number;
  readonly fields: F;
}

const message = <const F extends Fields>(name: string, type: number, fields: F): Message<F> => ({
  name,
  type,
  fields,
});

/** The bytes before the fields of every message: size, type and tag. */
export const HEADER_SIZE = 7;

/** The least room for a reply, in bytes: that of an error. */
export const MIN_REPLY_SIZE = 11;

/** The tag of `Tversion`. */
export const NO_TAG = 0xffff;

/** The number that stands for no fid (`NOFID`). */
export const NO_FID = 0xffff_ffff;

/** The version of the protocol for `Tversion`. */
export const VERSION = '9P2000.L';

/** Requests. */
export const T = {
  statfs: message('Tstatfs', 8, { fid: 'u32' }),
  open: message('Tlopen', 12, { fid: 'u32', flags: 'u32' }),
  create: message('Tlcreate', 14, { fid: 'u32', name: 'string', flags: 'u32', mode: 'u32', gid: 'u32' }),
  symlink: message('Tsymlink', 16, { fid: 'u32', name: 'string', target: 'string', gid: 'u32' }),
  mknod: message('Tmknod', 18, {
    fid: 'u32',
    name: 'string',
    mode: 'u32',
    major: 'u32',
    minor: 'u32',
    gid: 'u32',
  }),
  rename: message('Trename', 20, { fid: 'u32', directory: 'u32', name: 'string' }),
  readlink: message('Treadlink', 22, { fid: 'u32' }),
  getattr: message('Tgetattr', 24, { fid: 'u32', mask: 'u64' }),
  setattr: message('Tsetattr', 26, {
    fid: 'u32',
    valid: 'u32',
    mode: 'u32',
    uid: 'u32',
    gid: 'u32',
    size: 'size',
    atime: 'time',
    atimeNs: 'size',
    mtime: 'time',
    mtimeNs: 'size',
  }),
  xattrwalk: message('Txattrwalk', 30, { fid: 'u32', newFid: 'u32', name: 'string' }),
  xattrcreate: message('Txattrcreate', 32, { fid: 'u32', name: 'string', size: 'size', flags: 'u32' }),
  readdir: message('Treaddir', 40, { fid: 'u32', offset: 'u64', count: 'u32' }),
  fsync: message('Tfsync', 50, { fid: 'u32', dataOnly: 'u32' }),
  lock: message('Tlock', 52, {
    fid: 'u32',
    type: 'u8',
    flags: 'u32',
    start: 'size',
    length: 'size',
    process: 'u32',
    client: 'string',
  }),
  getlock: message('Tgetlock', 54, {
    fid: 'u32',
    type: 'u8',
    start: 'size',
    length: 'size',
    process: 'u32',
    client: 'string',
  }),
  link: message('Tlink', 70, { directory: 'u32', fid: 'u32', name: 'string' }),
  mkdir: message('Tmkdir', 72, { fid: 'u32', name: 'string', mode: 'u32', gid: 'u32' }),
  renameat: message('Trenameat', 74, {
    directory: 'u32',
    name: 'string',
    newDirectory: 'u32',
    newName: 'string',
  }),
  unlinkat: message('Tunlinkat', 76, { directory: 'u32', name: 'string', flags: 'u32' }),
  version: message('Tversion', 100, { msize: 'u32', version: 'string' }),
  attach: message('Tattach', 104, {
    fid: 'u32',
    authFid: 'u32',
    userName: 'string',
    tree: 'string',
    uid: 'u32',
  }),
  flush: message('Tflush', 108, { oldTag: 'u16' }),
  walk: message('Twalk', 110, { fid: 'u32', newFid: 'u32', names: 'names' }),
  read: message('Tread', 116, { fid: 'u32', offset: 'size', count: 'u32' }),
  /** `count` bytes follow. */
  write: message('Twrite', 118, { fid: 'u32', offset: 'size', count: 'u32' }),
  clunk: message('Tclunk', 120, { fid: 'u32' }),
  remove: message('Tremove', 122, { fid: 'u32' }),
} as const;

/** Replies. */
export const R = {
  error: message('Rlerror', 7, { errno: 'u32' }),
  statfs: message('Rstatfs', 9, {
    type: 'u32',
    bsize: 'u32',
    blocks: 'size',
    bfree: 'size',
    bavail: 'size',
    files: 'size',
    ffree: 'size',
    fsid: 'u64',
    namelen: 'u32',
  }),
  open: message('Rlopen', 13, { qid: 'qid', iounit: 'u32' }),
  create: message('Rlcreate', 15, { qid: 'qid', iounit: 'u32' }),
  symlink: message('Rsymlink', 17, { qid: 'qid' }),
  mknod: message('Rmknod', 19, { qid: 'qid' }),
  rename: message('Rrename', 21, {}),
  readlink: message('Rreadlink', 23, { target: 'string' }),
  getattr: message('Rgetattr', 25, {
    valid: 'u64',
    qid: 'qid',
    mode: 'u32',
    uid: 'u32',
    gid: 'u32',
    nlink: 'size',
    rdev: 'size',
    size: 'size',
    blksize: 'size',
    blocks: 'size',
    atime: 'time',
    atimeNs: 'size',
    mtime: 'time',
    mtimeNs: 'size',
    ctime: 'time',
    ctimeNs: 'size',
    btime: 'time',
    btimeNs: 'size',
    generation: 'u64',
    dataVersion: 'u64',
  }),
  setattr: message('Rsetattr', 27, {}),
  xattrwalk: message('Rxattrwalk', 31, { size: 'size' }),
  xattrcreate: message('Rxattrcreate', 33, {}),
  /** `count` bytes of {@link DirectoryEntry} follow. */
  readdir: message('Rreaddir', 41, { count: 'u32' }),
  fsync: message('Rfsync', 51, {}),
  lock: message('Rlock', 53, { status: 'u8' }),
  getlock: message('Rgetlock', 55, {
    type: 'u8',
    start: 'size',
    length: 'size',
    process: 'u32',
    client: 'string',
  }),
  link: message('Rlink', 71, {}),
  mkdir: message('Rmkdir', 73, { qid: 'qid' }),
  renameat: message('Rrenameat', 75, {}),
  unlinkat: message('Runlinkat', 77, {}),
  version: message('Rversion', 101, { msize: 'u32', version: 'string' }),
  attach: message('Rattach', 105, { qid: 'qid' }),
  flush: message('Rflush', 109, {}),
  walk: message('Rwalk', 111, { qids: 'qids' }),
  /** `count` bytes follow. */
  read: message('Rread', 117, { count: 'u32' }),
  write: message('Rwrite', 119, { count: 'u32' }),
  clunk: message('Rclunk', 121, {}),
  remove: message('Rremove', 123, {}),
} as const;

/** One entry of the data of `Rreaddir`. */
export const DirectoryEntry = {
  qid: 'qid',
  /** The cookie of the next entry, for the next `Treaddir`. */
  offset: 'u64',
  /** As in Linux's `getdents`; see {@link DirentType}. */
  type: 'u8',
  name: 'string',
} as const satisfies Fields;

/** The masks of `Tgetattr`. */
export const GetattrMask = { BASIC: 0x7ffn, ALL: 0x3fffn, BTIME: 0x800n } as const;

/** The flags of `Tlock`. */
export const LockFlag = { BLOCK: 1, RECLAIM: 2 } as const;
