/**
 * The parts that all VirtIO drivers share.
 *
 * @packageDocumentation
 */
export * from './device-status.ts';
export * from './device-type.ts';
export * from './errors.ts';
export * from './features.ts';
export * from './flags.ts';
export * from './hal.ts';
export * from './interrupts.ts';
export * from './layout.ts';
export * from './registers.ts';
export { requireBytes } from './require-bytes.ts';
export * from './transport.ts';
export * from './utf8.ts';
export * from './wait.ts';
export * from './create-queue.ts';
export * from './driver.ts';
export * from './events.ts';
export * from './owning-queue.ts';
export * from './packed-queue.ts';
export * from './request-queue.ts';
export * from './split-queue.ts';
export * from './virt-queue.ts';
export * from './waiters.ts';
