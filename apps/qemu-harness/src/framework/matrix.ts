/** The kinds of guests in which the suites run. */
import type { Cell, Ring } from './define.ts';

/** The rings by name. The properties go to each virtio device. */
export const RINGS = {
  split: {},
  'split, no event index': { event_idx: false },
  'split, no indirect': { indirect_desc: false },
  packed: { packed: true },
} as const;

const ring = (name: keyof typeof RINGS): Ring => ({ name, properties: RINGS[name] });

/** All cells, in the order in which they run. */
export const MATRIX: readonly Cell[] = [
  { machine: 'q35', transport: 'pci-vfio', ring: ring('split') },
  { machine: 'q35', transport: 'pci-vfio', ring: ring('packed') },
];

/** A cell's name for people. */
export function cellName({ machine, transport, ring: { name } }: Cell): string {
  return `${machine} · ${transport} · ${name}`;
}
