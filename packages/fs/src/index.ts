/**
 * The VirtIO file system device, and a client of FUSE on it.
 *
 * @packageDocumentation
 */
export { Dirent, FileError, FileHandle, FileSink, type StatFs, Stats } from '@virtio/files';
export { type ConnectOptions, FuseClient } from './client.ts';
export { FuseFileSystem, type MountOptions } from './file-system.ts';
export type { FuseFid } from './nodes.ts';
export * from './protocol.ts';
export * from './virtio-fs.ts';
