/**
 * The VirtIO entropy device.
 *
 * @packageDocumentation
 */
export * from './virtio-rng.ts';
