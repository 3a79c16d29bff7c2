/**
 * The file system API that `@virtio/9p` and `@virtio/fs` share, in the shape of `node:fs/promises`.
 *
 * @packageDocumentation
 */
export type { Time } from './attributes.ts';
export { CLIENT, MAX_ID, MAX_U32, requireString, resized } from './check.ts';
export { claim, release } from './claim.ts';
export * from './client.ts';
export * from './errno.ts';
export { FileError, refuse } from './file-error.ts';
export { FileHandle } from './file-handle.ts';
export { FileSink } from './file-streams.ts';
export { FileSystem, type FileSystemOptions } from './file-system.ts';
export type {
  HeldLock,
  LockOptions,
  ReadStreamOptions,
  TransferOptions,
  WriteStreamOptions,
} from './handle-options.ts';
export { MessageDriver, type MessageEvents } from './message-driver.ts';
export * from './numbers.ts';
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
export { pipeline, type Pipeline } from './pipeline.ts';
export { Dirent, type StatFs, Stats } from './stats.ts';
export { type TagDevice, Tags, type TagsOptions } from './tags.ts';
export * from './task.ts';
export { TaskRunner } from './task-runner.ts';
