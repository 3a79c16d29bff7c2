/**
 * VirtIO over PCI on x86, through the hypercalls of pKVM or through I/O ports.
 *
 * @packageDocumentation
 */
export type * from './cpu.ts';
export * from './hyp-cam.ts';
export * from './hyp-pci-transport.ts';
export { Hypercall, HypIoRegion, isPkvm } from './hypercalls.ts';
export * from './port-cam.ts';
