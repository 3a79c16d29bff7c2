/**
 * The VirtIO entropy device.
 *
 * @packageDocumentation
 */
export * from './protocol.ts';
export * from './virtio-rng.ts';
