/**
 * The VirtIO 9P device, and a client of the 9P2000.L protocol on it.
 *
 * @packageDocumentation
 */
export * from './errno.ts';
export * from './messages.ts';
export * from './p9-error.ts';
export { decodeName, encodeName } from './utf8.ts';
export * from './virtio-9p.ts';
