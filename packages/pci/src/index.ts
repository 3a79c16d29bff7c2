/**
 * VirtIO over PCI.
 *
 * @packageDocumentation
 */
export * from './bars.ts';
export { capabilities, type PciCapability, PciCapabilityId } from './capabilities.ts';
export * from './config-access.ts';
export * from './config-space.ts';
export * from './device-function.ts';
export * from './device-id.ts';
export { InterruptLines, NO_VECTOR, type PciInterrupts } from './interrupts.ts';
export * from './msix.ts';
export * from './pci-cfg.ts';
export * from './pci-root.ts';
export * from './pci-transport.ts';
export type * from './pci-transport-options.ts';
export * from './physical-function.ts';
export type { PciErrorReason } from './reasons.ts';
export {
  VirtioPciCap,
  VirtioPciCapField,
  type VirtioStructure,
  type VirtioStructures,
  virtioStructures,
} from './virtio-capabilities.ts';
