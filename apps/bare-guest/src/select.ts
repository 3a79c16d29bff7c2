/** Which tests run in which kinds of bare guests. */
import type { GuestTest, Ring } from '@virtio/qemu-harness/src/framework/define.ts';
import { ARCHITECTURES, type Architecture, machineFor } from './machines.ts';
import type { BareTestOptions } from './options.ts';
import { type BareCell, reasonAgainst, type SuiteTest } from './suites.ts';

export const SPLIT: Ring = { name: 'split', properties: {} };
export const PACKED: Ring = { name: 'packed', properties: { packed: true } };

/** All kinds of bare guests. A legacy device has no packed ring. */
function cells(arch: Architecture): readonly BareCell[] {
  return [
    { machine: machineFor(arch, 'mmio-v2'), ring: SPLIT },
    { machine: machineFor(arch, 'mmio-v2'), ring: PACKED },
    { machine: machineFor(arch, 'mmio-v1'), ring: SPLIT },
    { machine: machineFor(arch, 'pci'), ring: SPLIT },
    { machine: machineFor(arch, 'pci'), ring: PACKED },
  ];
}

/** The name of a kind of guest: `riscv64 · bare · virt · pci · packed`. */
export const cellName = ({ machine, ring }: BareCell): string =>
  `${machine.arch} · bare · ${machine.name} · ${machine.transport} · ${ring.name}`;

/** Of the kinds, those that a short run takes: each transport, and each ring. */
const isShort = ({ machine, ring }: BareCell): boolean => (machine.transport === 'pci') === (ring === PACKED);

/** The tests of a kind of guest. */
export interface CellTests {
  readonly cell: BareCell;
  readonly tests: readonly SuiteTest[];
}

/**
 * The tests of each kind of guest that has any. A short run has each essential test once an architecture, on the three transports in turn:
 * of three architectures each test sees each transport that it can have.
 */
export function select(
  all: readonly SuiteTest[],
  { filters, extent }: Pick<BareTestOptions, 'filters' | 'extent'>,
): CellTests[] {
  const chosen = extent === 'full' ? all : all.filter(({ test }) => (test.essential ?? false) !== false);
  return ARCHITECTURES.flatMap((arch, row) => {
    const kinds = cells(arch).filter((cell) => extent !== 'short' || isShort(cell));
    const cellOf = (test: GuestTest, index: number): BareCell | undefined => {
      const first = index + row;
      const order = [...kinds.slice(first % kinds.length), ...kinds.slice(0, first % kinds.length)];
      return order.find((one) => reasonAgainst(test, one) === undefined) ?? order[0];
    };
    return kinds.map((cell) => {
      const tests = chosen.filter(({ test }, index) => {
        const text = `${test.device}: ${test.name}`;
        return (
          (extent !== 'short' || cellOf(test, index) === cell) &&
          filters.every((word) => text.includes(word) || cellName(cell).includes(word))
        );
      });
      return { cell, tests };
    });
  }).filter(({ tests }) => tests.length > 0);
}
