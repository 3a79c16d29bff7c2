/** Devices of x86-64 machines: MMIO by the command line, PCI by the table MCFG or by I/O ports. */
import { type BareDevice } from './board.ts';

/** All virtio devices of the machine. */
export function discoverX86(): readonly BareDevice[] {
  return [];
}
