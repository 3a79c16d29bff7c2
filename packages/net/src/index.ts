/**
 * The VirtIO network device.
 *
 * @packageDocumentation
 */
export type { HashLimits, LinkState } from './config.ts';
export {
  type Coalescing,
  type ControlTarget,
  type HashConfig,
  type HashTypeName,
  type NetCommand,
  NetControl,
  type PacketQueue,
  type RssConfig,
  type TunnelTypeName,
} from './control.ts';
export {
  NetFeature,
  type NetFeatureName,
  NetFeatures,
  type NetFeatureSet,
  RECEIVE_OFFLOADS,
  type ReceiveOffload,
} from './features.ts';
export { flowHash } from './flow.ts';
export type {
  GsoInfo,
  HashReportName,
  PartialChecksum,
  ReceiveHeader,
  Segmentation,
  TransmitHeader,
} from './header.ts';
export { formatMac, isMulticast, parseMac } from './mac.ts';
export { NetDriver, type NetDriverOptions, type NetEvents } from './net-driver.ts';
export * from './pcap.ts';
export * from './protocol.ts';
export { type PacketSource, ReceivedPacket } from './received-packet.ts';
export { type SendOptions, TransmitBuffer } from './sender.ts';
export * from './stats.ts';
export type {
  FrameController,
  FrameSink,
  FrameSource,
  ReadableStreamClass,
  WritableStreamClass,
} from './streams.ts';
export * from './virtio-net.ts';
export * from './virtio-net-raw.ts';
