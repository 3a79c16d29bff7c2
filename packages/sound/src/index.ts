/**
 * The driver of VirtIO sound devices.
 *
 * @packageDocumentation
 */
export { CaptureStream } from './capture-stream.ts';
export * from './commands.ts';
export type { ControlMetadata, ControlValue, Iec958Value } from './control-values.ts';
export * from './formats.ts';
export type {
  AudioDirection,
  ChannelMapInfo,
  ControlInfo,
  ControlRange,
  ItemInfo,
  JackInfo,
  StreamInfo,
} from './info.ts';
export type { ItemRange, SoundCounts } from './items.ts';
export type { SoundNotification } from './notifications.ts';
export type { PcmCommand, PcmState } from './pcm-state.ts';
export { type OpenParameters, PcmStream } from './pcm-stream.ts';
export type { Transferred } from './period-queue.ts';
export { PlaybackStream } from './playback-stream.ts';
export * from './protocol.ts';
export * from './samples.ts';
export { SoundControl } from './sound-control.ts';
export type {
  ChunkController,
  ChunkSink,
  ChunkSource,
  ReadableStreamClass,
  WritableStreamClass,
} from './streams.ts';
export * from './virtio-sound.ts';
