/**
 * The VirtIO 9P device, and a client of the 9P2000.L protocol on it.
 *
 * @packageDocumentation
 */
export * from './client.ts';
export * from './engine.ts';
export * from './errno.ts';
export type { P9Fid } from './fid.ts';
export * from './file-handle.ts';
export { FileSink } from './file-streams.ts';
export * from './file-system.ts';
export * from './file-system-sync.ts';
export type {
  HeldLock,
  LockOptions,
  ReadStreamOptions,
  TransferOptions,
  WriteStreamOptions,
} from './handle-options.ts';
export * from './messages.ts';
export type { OpenFlags } from './open-flags.ts';
export type { Time } from './operations.ts';
export type {
  Data,
  DataStream,
  Encoding,
  MkdirOptions,
  ReaddirOptions,
  ReadFileOptions,
  ReadTextOptions,
  RmOptions,
  SetxattrOptions,
  SignalOption,
  WriteFileOptions,
} from './options.ts';
export { P9Error } from './p9-error.ts';
export { Dirent, type StatFs, Stats } from './stats.ts';
export type { Task } from './task.ts';
export * from './virtio-9p.ts';
