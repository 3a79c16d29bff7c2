import { describe, expect, it } from 'vitest';
import { disk, guestTest } from '@virtio/qemu-harness/src/framework/define.ts';
import { cellName, select } from './select.ts';
import type { SuiteTest } from './suites.ts';

const one = (name: string, more: object = {}): SuiteTest => ({
  suite: 's.ts',
  test: guestTest({
    device: 'blk',
    name,
    devices: { disk: disk({ size: 512 }) },
    guest: () => undefined,
    ...more,
  }),
});

const ALL = [
  one('a', { essential: true }),
  one('b', { essential: true }),
  one('c', {
    essential: true,
    skip: ({ transport }: { transport: string }) => (transport === 'mmio-v1' ? 'no' : undefined),
  }),
  one('d'),
];

/** Where each test runs, by its name. */
function places(
  extent: 'short' | 'essential' | 'full',
  filters: readonly string[] = [],
): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const { cell, tests } of select(ALL, { extent, filters })) {
    for (const { test } of tests) (found[test.name] ??= []).push(cellName(cell));
  }
  return found;
}

describe('bare guests', () => {
  it('run each essential test once an architecture, on each transport that it can have, in a short run', () => {
    const { a = [], b = [], c = [], d } = places('short');
    expect(a).toEqual([
      'riscv64 · bare · virt · mmio-v2 · split',
      'aarch64 · bare · virt · mmio-v1 · split',
      'x86_64 · bare · q35 · pci · packed',
    ]);
    expect(b.map((name) => name.split(' · ')[3])).toEqual(['mmio-v1', 'pci', 'mmio-v2']);
    expect(c.map((name) => name.split(' · ')[3])).toEqual(['pci', 'mmio-v2', 'pci']);
    expect(d).toBeUndefined();
  });

  it('run the essential tests in all fifteen kinds, all tests only if that is asked for, and what is named', () => {
    const { a = [], d } = places('essential');
    expect([a.length, d]).toEqual([15, undefined]);
    expect(places('full').d).toHaveLength(15);
    expect(Object.keys(places('full', ['blk: d']))).toEqual(['d']);
    expect(places('essential', ['riscv64', 'mmio-v2 · packed']).b).toEqual([
      'riscv64 · bare · virt · mmio-v2 · packed',
    ]);
  });
});
