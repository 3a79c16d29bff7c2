/**
 * VirtIO over PCI on x86: by the hypercalls of pKVM, and by I/O ports.
 *
 * @packageDocumentation
 */
export type * from './cpu.ts';
export * from './hyp-cam.ts';
export * from './hyp-pci-transport.ts';
export { Hypercall, HypIoRegion, isPkvm } from './hypercalls.ts';
export * from './port-cam.ts';
