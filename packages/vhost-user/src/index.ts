/**
 * VirtIO devices in another process, over a Unix socket: the front end of the vhost-user protocol.
 *
 * @packageDocumentation
 */
export {
  BackendDisplay,
  type BackendCursor,
  type BackendDisplayEvents,
  type BackendDisplayOptions,
  type BackendScanout,
  type ScanoutUpdate,
} from './display.ts';
export { VhostUserHal } from './hal.ts';
export { VhostUserInterrupts } from './interrupts.ts';
export { openDriver, type TypedDriverClass, type VhostUserDriverOptions } from './open-driver.ts';
export { openVhostUser, type VhostUserDevice, type VhostUserOptions } from './open.ts';
export { VhostUserTransport } from './transport.ts';
