/**
 * VirtIO devices from a Linux process: discovery, VFIO, DMA memory, interrupts.
 *
 * @packageDocumentation
 */
export type { PostedMemory } from '@virtio/core';
export { type DeviceInfo, type DiscoveryOptions, listDevices } from './discovery.ts';
export { BLOCK_SIZE, type DmaBlock, type DmaSource } from './dma-memory.ts';
export { type ByteConnection, type ConnectionDuplex, type DuplexOptions, toDuplex } from './duplex.ts';
export { EventPoller } from './event-poller.ts';
export { disposeAtExit } from './exit-cleanup.ts';
export { type DmaBuffer, LinuxHal } from './hal.ts';
export { type AddressRange, IovaSpace } from './iova-space.ts';
export { Mapping, type MappingOptions } from './mapping.ts';
export type { MmioDeviceInfo, MmioWindow } from './mmio-devices.ts';
export * from './open-driver.ts';
export type { OpenOptions } from './open-options.ts';
export { openQueue, type OpenQueueOptions } from './open-queue.ts';
export * from './open-transport.ts';
export type { PciDeviceInfo } from './pci-devices.ts';
export { PhysicalHal } from './physical-hal.ts';
export { Resources } from './resources.ts';
export { SharedFile } from './shared-file.ts';
export {
  closeDescriptor,
  duplicate,
  eventfd,
  pollDescriptors,
  PollEvents,
  signalEventfd,
} from './syscalls.ts';
export { Errno, errorName, SystemCallError, systemError } from './system-error.ts';
export { type Received, UnixListener, UnixSocket } from './unix-socket.ts';
export * from './tap.ts';
export { VfioContainer } from './vfio-container.ts';
export { VfioDevice } from './vfio-device.ts';
export { type RegisterResolver, VfioHal } from './vfio-hal.ts';
export { VfioInterrupts } from './vfio-interrupts.ts';
export { attachMemory } from './worker-memory.ts';
