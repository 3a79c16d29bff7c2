/** The kinds of guests in which the suites run. */
import type { Cell, GuestTest } from './define.ts';

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

/** What of the suites runs in a cell when not everything is asked for. */
export type Share = 'all' | 'disks and essential' | 'essential' | 'none';

/** A cell of the matrix. */
export interface MatrixCell extends Cell {
  /** The devices whose suites run here at all; every device's if it is not given. */
  readonly devices?: readonly string[];
  readonly share: Share;
}

const cell = (
  machine: Cell['machine'],
  transport: Cell['transport'],
  name: keyof typeof RINGS,
  share: Share,
): MatrixCell => ({ machine, transport, ring: { name, properties: RINGS[name] }, share });

/** All cells, in the order in which they run. Disks show each transport in full, as they ask most of one. */
export const MATRIX: readonly MatrixCell[] = [
  cell('q35', 'pci-vfio', 'split', 'all'),
  cell('q35', 'pci-vfio', 'packed', 'essential'),
  cell('q35', 'pci-physical', 'split', 'disks and essential'),
  cell('microvm', 'mmio-v2', 'split', 'disks and essential'),
  cell('microvm', 'mmio-v2', 'packed', 'essential'),
  cell('microvm', 'mmio-v1', 'split', 'disks and essential'),
  ...(
    [
      'split, no event index',
      'split, no indirect',
      'split, in order',
      'packed, no event index',
      'packed, in order',
    ] as const
  ).map((ring) => ({ ...cell('q35', 'pci-vfio', ring, 'none'), devices: ['blk'] })),
];

/** What the matrix leaves out, and why. */
const GAPS = [
  'microvm · mmio-v1 · packed cannot be: a legacy device has no packed ring.',
  'Rings without the event index or indirect descriptors, or in order, are gone through by disks alone: the queues are the same code for every device.',
];

/** What a reader of the results must know of what was not run. */
export function remarks(full: boolean): readonly string[] {
  return full
    ? GAPS
    : [
        ...GAPS,
        'The first kind of guest ran every test. Where another shows fewer, it ran one test a device, or those of disks and one of each other device: npm start -- --full runs every test in every kind.',
      ];
}

/** Whether a test runs in a cell when not everything is asked for. */
export function isInShare({ share }: MatrixCell, { device, essential = false }: GuestTest): boolean {
  switch (share) {
    case 'all':
      return true;
    case 'disks and essential':
      return essential || device === 'blk';
    case 'essential':
      return essential;
    case 'none':
      return false;
  }
}

/** A cell's name for people. */
export function cellName({ machine, transport, ring: { name } }: Cell): string {
  return `${machine} · ${transport} · ${name}`;
}
