/** The kinds of guests in which the suites run. */
import type { Cell } from './define.ts';

/** The rings by name. The properties go to each virtio device. */
const RINGS = {
  split: {},
  packed: { packed: true },
  'split, no event index': { event_idx: false },
  'split, no indirect': { indirect_desc: false },
  'split, in order': { in_order: true },
  'packed, no event index': { packed: true, event_idx: false },
  'packed, in order': { packed: true, in_order: true },
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
  cell('microvm', 'mmio-v2', 'packed'),
  // A legacy device has no packed ring.
  cell('microvm', 'mmio-v1', 'split'),
  // Disks alone go through what else a ring can be: the queues are the same code for every device.
  ...(
    [
      'split, no event index',
      'split, no indirect',
      'split, in order',
      'packed, no event index',
      'packed, in order',
    ] as const
  ).map((ring) => ({ ...cell('q35', 'pci-vfio', ring), devices: ['blk'] })),
];

/** A cell's name for people. */
export function cellName({ machine, transport, ring: { name } }: Cell): string {
  return `${machine} · ${transport} · ${name}`;
}
