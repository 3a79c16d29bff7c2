/**
 * The driver of VirtIO socket devices, and connections on top of it.
 *
 * @packageDocumentation
 */
export type { VsockAddress } from './connection.ts';
export { VsockConnectionManager } from './connection-manager.ts';
export type { MessageOptions, VsockMessage } from './connection-port.ts';
export type { ConnectionEnd, ConnectionPhase } from './connection-state.ts';
export type { Timers } from './deadlines.ts';
export type { VsockEvent, VsockEventType } from './event-line.ts';
export { VsockListener } from './listener.ts';
export type {
  ConnectionManagerOptions,
  ConnectOptions,
  ListenOptions,
  VsockTypeName,
} from './manager-options.ts';
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
export { VsockConnection } from './vsock-connection.ts';
