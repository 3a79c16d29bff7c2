/**
 * VirtIO devices from a Linux process: discovery, VFIO, DMA memory, interrupts.
 *
 * @packageDocumentation
 */
export { type DeviceInfo, type DiscoveryOptions, listDevices } from './discovery.ts';
export type { DmaBlock, DmaSource } from './dma-memory.ts';
export { type ByteConnection, type ConnectionDuplex, type DuplexOptions, toDuplex } from './duplex.ts';
export { type DmaBuffer, LinuxHal, type PostedMemory } from './hal.ts';
export { Mapping, type MappingOptions } from './mapping.ts';
export type { MmioDeviceInfo, MmioWindow } from './mmio-devices.ts';
export * from './open-driver.ts';
export * from './open-transport.ts';
export type { PciDeviceInfo } from './pci-devices.ts';
export { PhysicalHal } from './physical-hal.ts';
export { SystemCallError } from './system-error.ts';
export * from './tap.ts';
export { VfioContainer } from './vfio-container.ts';
export { VfioDevice } from './vfio-device.ts';
export { type RegisterResolver, VfioHal } from './vfio-hal.ts';
export { VfioInterrupts } from './vfio-interrupts.ts';
export { attachMemory } from './worker-memory.ts';
