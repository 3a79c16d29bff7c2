/**
 * VirtIO over MMIO registers, modern and legacy.
 *
 * @packageDocumentation
 */
export { InterruptLine, type MmioInterrupt } from './interrupts.ts';
export * from './mmio-transport.ts';
export * from './registers.ts';
