/**
 * The VirtIO file system device driver, and a client of FUSE.
 *
 * @packageDocumentation
 */
export {
  Dirent,
  FileError,
  FileHandle,
  FileSink,
  MessageDriver,
  type MessageEvents,
  type StatFs,
  Stats,
} from '@virtio/files';
export { FuseClient } from './client.ts';
export { FuseFileSystem, type MountOptions } from './file-system.ts';
export type { FuseFid } from './nodes.ts';
export * from './protocol.ts';
export type { ConnectOptions } from './session.ts';
export * from './virtio-fs.ts';
