/** The kinds of guests in which the suites run. */
import type { Cell, GuestTest } from './define.ts';

/**
 * With many requests in flight QEMU 10.0 stops using buffers of a ring in order at the end of a lap: its own queue status then
 * shows them taken and not used. A likely cause is what its commit 6fcf5ebafad6 (10.1) mends, a look at an entry beyond the
 * end. Disks, which alone run there, get rings whose end few tests come near; rings of 1024 were not seen to stop.
 */
const IN_ORDER = { in_order: true, 'queue-size': 1024 } as const;

/** The rings by name. The properties go to each virtio device. */
const RINGS = {
  split: {},
  packed: { packed: true },
  'split, no event index': { event_idx: false },
  'split, no indirect': { indirect_desc: false },
  'split, in order': IN_ORDER,
  'packed, no event index': { packed: true, event_idx: false },
  'packed, in order': { packed: true, ...IN_ORDER },
} as const;

/**
 * How much of the suites runs: `short` shows that each device works in every kind of guest and leaves out tests that take long, `checks`
 * has these and besides takes disks in full through every transport and briefly through every ring, `full` is every test in every
 * kind of guest.
 */
export type Extent = 'short' | 'checks' | 'full';

/** What of the suites runs in a cell. Disks ask most of a transport; `one a device` is what is essential without `'checks'`. */
type Share = 'all' | 'disks and essential' | 'essential' | 'one a device' | 'none';

/** A cell of the matrix. */
export interface MatrixCell extends Cell {
  /** The devices whose suites run here at all; every device's if it is not given. */
  readonly devices?: readonly string[];
  readonly shares: Readonly<Record<Exclude<Extent, 'full'>, Share>>;
}

const cell = (
  machine: Cell['machine'],
  transport: Cell['transport'],
  name: keyof typeof RINGS,
  short: Share,
  checks: Share,
  arch: Cell['arch'] = 'x86_64',
): MatrixCell => ({
  arch,
  machine,
  transport,
  ring: { name, properties: RINGS[name] },
  shares: { short, checks },
});

/** A kind of guest of another architecture. */
const virt = (arch: Cell['arch'], transport: Cell['transport'], ring: keyof typeof RINGS): MatrixCell =>
  cell('virt', transport, ring, 'essential', 'essential', arch);

/** All cells, in the order in which they run. */
export const MATRIX: readonly MatrixCell[] = [
  cell('q35', 'pci-vfio', 'split', 'all', 'all'),
  cell('q35', 'pci-vfio', 'packed', 'one a device', 'disks and essential'),
  cell('q35', 'pci-physical', 'split', 'one a device', 'disks and essential'),
  cell('q35', 'pci-physical', 'packed', 'none', 'one a device'),
  cell('microvm', 'mmio-v2', 'split', 'one a device', 'disks and essential'),
  cell('microvm', 'mmio-v2', 'packed', 'one a device', 'essential'),
  cell('microvm', 'mmio-v1', 'split', 'one a device', 'disks and essential'),
  ...(
    [
      'split, no event index',
      'split, no indirect',
      'split, in order',
      'packed, no event index',
      'packed, in order',
    ] as const
  ).map((ring) => ({ ...cell('q35', 'pci-vfio', ring, 'none', 'essential'), devices: ['blk'] })),
  virt('aarch64', 'pci-vfio', 'split'),
  virt('aarch64', 'pci-vfio', 'packed'),
  virt('aarch64', 'pci-physical', 'split'),
  virt('aarch64', 'mmio-v2', 'split'),
  virt('aarch64', 'mmio-v2', 'packed'),
  virt('aarch64', 'mmio-v1', 'split'),
  virt('riscv64', 'pci-physical', 'split'),
  virt('riscv64', 'pci-physical', 'packed'),
  virt('riscv64', 'mmio-v2', 'split'),
  virt('riscv64', 'mmio-v2', 'packed'),
  virt('riscv64', 'mmio-v1', 'split'),
];

/** What the matrix leaves out, and why. */
const GAPS = [
  'mmio-v1 · packed is not possible: a legacy device has no packed ring.',
  'Only disks run with rings without the event index, without indirect descriptors, or in order: the code of the queues is the same for every device.',
];

/** What a reader of the results must know of what was not run. */
export function remarks(extent: Extent): readonly string[] {
  return extent === 'full'
    ? GAPS
    : [
        ...GAPS,
        `Every test${extent === 'short' ? ' that takes no more than a few seconds' : ''} ran in the first kind of guest that can run it, except tests that take minutes or repeat another one at greater length. The other kinds ran the tests of disks, or one or two tests per device; npm start -- --full runs every test in every kind.`,
      ];
}

/** The first kind of guest that can run a test, which runs it whatever the extent. Guests of other architectures show the essential. */
function firstFor(test: GuestTest): MatrixCell | undefined {
  return MATRIX.find(
    (cell) =>
      cell.arch === 'x86_64' &&
      cell.devices?.includes(test.device) !== false &&
      test.skip?.(cell) === undefined,
  );
}

/** Whether a test runs in a cell. */
export function isIncluded(cell: MatrixCell, test: GuestTest, extent: Extent): boolean {
  const { devices, shares } = cell;
  const { device, essential = false, long = false, onlyFull = false } = test;
  if (devices?.includes(device) === false) return false;
  if ((long && extent === 'short') || (onlyFull && extent !== 'full')) return false;
  if (cell === firstFor(test)) return true;
  switch (extent === 'full' ? 'all' : shares[extent]) {
    case 'all':
      return true;
    case 'disks and essential':
      return essential !== false || device === 'blk';
    case 'essential':
      return essential !== false;
    case 'one a device':
      return essential === true;
    case 'none':
      return false;
  }
}

/** The name of a board and its architecture. */
export function boardName({ arch, machine }: Pick<Cell, 'arch' | 'machine'>): string {
  return `${arch} ${machine}`;
}

/** A cell's name for people. */
export function cellName(cell: Cell): string {
  return `${boardName(cell)} · ${cell.transport} · ${cell.ring.name}`;
}
