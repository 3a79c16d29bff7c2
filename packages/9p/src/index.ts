/**
 * The VirtIO 9P device, and a client of the 9P2000.L protocol on it.
 *
 * @packageDocumentation
 */
export type { Time } from './attributes.ts';
export {
  type AttributeChanges,
  type Attributes,
  type ConnectOptions,
  type LockRequest,
  P9Client,
  type RawDirectoryEntry,
  type RawStatFs,
  type Walk,
} from './client.ts';
export type { Copied } from './copy-data.ts';
export * from './errno.ts';
export type { P9Fid } from './fid.ts';
export { FileHandle } from './file-handle.ts';
export { FileSink } from './file-streams.ts';
export { type MountOptions, P9FileSystem } from './file-system.ts';
export type {
  HeldLock,
  LockOptions,
  ReadStreamOptions,
  TransferOptions,
  WriteStreamOptions,
} from './handle-options.ts';
export type { OpenFlags } from './open-flags.ts';
export type {
  CopyFileOptions,
  Data,
  DataStream,
  Encoding,
  MkdirOptions,
  ReaddirOptions,
  ReadFileOptions,
  ReadTextOptions,
  RmOptions,
  SetxattrOptions,
  SyncOptions,
  WriteFileOptions,
} from './options.ts';
export { P9Error } from './p9-error.ts';
export * from './protocol.ts';
export { Dirent, type StatFs, Stats } from './stats.ts';
export type { Task } from './task.ts';
export * from './virtio-9p.ts';
