/**
 * The driver of VirtIO console devices.
 *
 * @packageDocumentation
 */
export { ConsolePort, type ConsoleSize } from './console-port.ts';
export { emergencyWrite } from './emergency-write.ts';
export type {
  ChunkController,
  ChunkSink,
  ChunkSource,
  ReadableStreamClass,
  WritableStreamClass,
} from './streams.ts';
export { type ConsoleEvents, type ConsoleOptions, type PortQuery, VirtioConsole } from './virtio-console.ts';
export { type ConsoleFeature, ConsoleFeatures } from './protocol.ts';
