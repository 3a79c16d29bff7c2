/**
 * VirtIO without an operating system: memory, an event loop, interrupt controllers, and the tables of firmware.
 *
 * @packageDocumentation
 */
export * from './acpi.ts';
export * from './bare-hal.ts';
export * from './bare-loop.ts';
export * from './command-line.ts';
export * from './controllers.ts';
export { type AddressWindow, deviceTreeSize, DeviceTreeNode, parseDeviceTree } from './device-tree.ts';
export * from './router.ts';
export * from './tree-devices.ts';
