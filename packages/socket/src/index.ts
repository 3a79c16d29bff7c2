/**
 * The driver of VirtIO socket devices, and connections on top of it.
 *
 * @packageDocumentation
 */
export type { VsockAddress } from './connection.ts';
export * from './connection-manager.ts';
export type { ConnectionEnd, ConnectionPhase } from './connection-state.ts';
export { VsockListener } from './listener.ts';
export {
  HEADER_SIZE,
  VsockCid,
  type VsockFeatureName,
  VsockFeatures,
  VsockHeader,
  VsockOp,
  VsockSeqFlags,
  VsockShutdown,
  VsockType,
} from './protocol.ts';
export type {
  ChunkController,
  ChunkSink,
  ChunkSource,
  ReadableStreamClass,
  WritableStreamClass,
} from './streams.ts';
export { type SocketEvents, type SocketOptions, VirtioSocket } from './virtio-socket.ts';
export { type MessageOptions, VsockConnection, type VsockMessage } from './vsock-connection.ts';
