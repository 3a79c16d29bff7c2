/**
 * The driver of VirtIO input devices.
 *
 * @packageDocumentation
 */
export * from './bitmap.ts';
export * from './event-codes.ts';
export * from './names.ts';
export * from './virtio-input.ts';
export { InputConfigSelect } from './protocol.ts';
