/** The kinds of guests in which the suites run. */
import type { Cell } from './define.ts';

/** The rings by name. The properties go to each virtio device. */
const RINGS = {
  split: {},
  packed: { packed: true },
} as const;

const cell = (machine: Cell['machine'], transport: Cell['transport'], name: keyof typeof RINGS): Cell => ({
  machine,
  transport,
  ring: { name, properties: RINGS[name] },
});

/** All cells, in the order in which they run. */
export const MATRIX: readonly Cell[] = [
  cell('q35', 'pci-vfio', 'split'),
  cell('q35', 'pci-vfio', 'packed'),
  cell('q35', 'pci-physical', 'split'),
  cell('microvm', 'mmio-v2', 'split'),
  cell('microvm', 'mmio-v1', 'split'),
];

/** A cell's name for people. */
export function cellName({ machine, transport, ring: { name } }: Cell): string {
  return `${machine} · ${transport} · ${name}`;
}
