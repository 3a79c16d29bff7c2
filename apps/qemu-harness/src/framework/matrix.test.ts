import { describe, expect, it } from 'vitest';
import { guestTest, type GuestTest } from './define.ts';
import { cellName, isIncluded, MATRIX } from './matrix.ts';

const test = (device: string, essential: boolean | 'checks'): GuestTest =>
  guestTest({ device, name: 'x', devices: {}, essential, guest: () => undefined });
const where = (tested: GuestTest, extent: 'short' | 'checks' | 'full'): string[] =>
  MATRIX.filter((cell) => isIncluded(cell, tested, extent)).map(cellName);
const OTHERS = MATRIX.filter(({ arch }) => arch !== 'x86_64').map(cellName);
const ALL = MATRIX.map(cellName);
const OWN = ALL.filter((name) => !OTHERS.includes(name));
const FOR_ALL_DEVICES = [...OWN.slice(0, 7), ...OTHERS];
/** Its ring and its memory are each gone through in other kinds. */
const BRIEF = OWN[3];
const NOT_BRIEF = FOR_ALL_DEVICES.filter((name) => name !== BRIEF);

describe('isIncluded', () => {
  it('runs everything in the first kind of guest, and what is essential in all that are for every device', () => {
    expect(where(test('rng', false), 'short')).toEqual([ALL[0]]);
    expect(where(test('rng', true), 'short')).toEqual(NOT_BRIEF);
    expect(where(test('rng', true), 'checks')).toEqual(FOR_ALL_DEVICES);
    expect(where(test('rng', 'checks'), 'short')).toEqual([ALL[0], ...OTHERS]);
    expect(where(test('rng', 'checks'), 'checks')).toEqual(NOT_BRIEF);
  });

  it('runs a test that the first kind of guest cannot in the first one that can', () => {
    const picky = (can: readonly string[]): GuestTest => ({
      ...test('rng', false),
      skip: ({ transport }) => (can.includes(transport) ? undefined : 'not there'),
    });
    expect(where(picky(['pci-physical', 'mmio-v2']), 'short')).toEqual([
      ALL[0],
      'x86_64 q35 · pci-physical · split',
    ]);
    expect(where(picky(['mmio-v2']), 'checks')).toEqual([ALL[0], 'x86_64 microvm · mmio-v2 · split']);
    expect(where(picky([]), 'short')).toEqual([ALL[0]]);
  });

  it('leaves out what takes long where only a short run is asked for', () => {
    const long: GuestTest = { ...test('rng', false), long: true };
    expect(where(long, 'short')).toEqual([]);
    expect(where(long, 'checks')).toEqual([ALL[0]]);
    expect(where(long, 'full')).toEqual(FOR_ALL_DEVICES);
  });

  it('checks disks through every transport in full, and through every ring', () => {
    expect(where(test('blk', false), 'short')).toEqual([ALL[0]]);
    expect(where(test('blk', false), 'checks')).toEqual([
      'x86_64 q35 · pci-vfio · split',
      'x86_64 q35 · pci-vfio · packed',
      'x86_64 q35 · pci-physical · split',
      'x86_64 microvm · mmio-v2 · split',
      'x86_64 microvm · mmio-v1 · split',
    ]);
    expect(where(test('blk', true), 'checks')).toEqual(ALL);
  });

  it('leaves a test out that is only for all when all is not asked for', () => {
    const long: GuestTest = { ...test('rng', false), onlyFull: true };
    expect(where(long, 'short')).toEqual([]);
    expect(where(long, 'checks')).toEqual([]);
    expect(where(long, 'full')).toEqual(FOR_ALL_DEVICES);
  });

  it('runs every test in every kind of guest that is for its device when all is asked for', () => {
    expect(where(test('blk', false), 'full')).toEqual(ALL);
    expect(where(test('rng', false), 'full')).toEqual(FOR_ALL_DEVICES);
  });
});
