/**
 * The VirtIO 9P device, and a client of the 9P2000.L protocol on it.
 *
 * @packageDocumentation
 */
export {
  type CopyFileOptions,
  type Data,
  type DataStream,
  Dirent,
  type Encoding,
  Errno,
  errnoName,
  type ErrnoName,
  errnoText,
  FileError as P9Error,
  FileHandle,
  FileSink,
  type HeldLock,
  type LockOptions,
  MessageDriver,
  type MessageEvents,
  type MkdirOptions,
  type OpenFlags,
  type ReaddirOptions,
  type ReadFileOptions,
  type ReadStreamOptions,
  type ReadTextOptions,
  type RmOptions,
  type SetxattrOptions,
  type StatFs,
  Stats,
  type SyncOptions,
  type Task,
  type Time,
  type TransferOptions,
  type WriteFileOptions,
  type WriteStreamOptions,
} from '@virtio/files';
export { P9Client } from './client.ts';
export type {
  AttributeChanges,
  Attributes,
  ConnectOptions,
  LockRequest,
  RawDirectoryEntry,
  RawStatFs,
  Walk,
} from './client-types.ts';
export type { Copied } from './copy-data.ts';
export type { P9Fid } from './fid.ts';
export { type MountOptions, P9FileSystem } from './file-system.ts';
export * from './protocol.ts';
export * from './virtio-9p.ts';
