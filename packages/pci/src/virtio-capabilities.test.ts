import { VirtioError } from '@virtio/core';
import {
  FakeDevice,
  type FakeCapability,
  FakePciDevice,
  type FakePciDeviceOptions,
  type FakeStructure,
} from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { at, device, fixture, negotiate, open } from '../fixture.ts';
import { PciRegister, readCommand } from './config-space.ts';
import { PciTransport } from './pci-transport.ts';

type Change = Partial<FakeStructure>;

/** Opens a device that says something else of a structure. */
function lying(
  type: FakeStructure['type'],
  change: Change,
  options: FakePciDeviceOptions = {},
): FakePciDevice {
  return new FakePciDevice(device(), {
    ...options,
    structures: (all) => all.map((one) => (one.type === type ? { ...one, ...change } : one)),
  });
}

/** Changes the capability of a structure: its bytes after id and link. */
function editing(type: number, edit: (body: number[]) => number[] | undefined): FakePciDevice {
  return new FakePciDevice(device(), {
    capabilities: (all) =>
      all.flatMap((capability): FakeCapability[] => {
        if (capability.id !== 9 || capability.body[1] !== type) return [capability];
        const body = edit([...Array.from(capability.body)]);
        return body ? [{ id: 9, body }] : [];
      }),
  });
}

const refusal = (code: string, ...words: string[]): unknown =>
  expect.objectContaining({
    code,
    message: expect.stringMatching(words.map((word) => `(?=.*${word})`).join('')) as string,
  });

describe('which functions are taken', () => {
  it('takes modern and transitional devices of any revision [4.1.2.2]', () => {
    for (const transitional of [false, true]) {
      for (const revision of [0, 1, 0xff]) {
        const pci = new FakePciDevice(device(), { transitional, header: { revision } });
        expect(open(pci).deviceType).toBe(2);
      }
    }
  });

  it('refuses other functions', () => {
    for (const header of [{ vendorId: 0x1234 }, { deviceId: 0x1040 }, { deviceId: 0x1110 }]) {
      const pci = new FakePciDevice(device(), { header });
      expect(() => open(pci)).toThrow(refusal('INVALID_DEVICE', '0000:00:03.0', 'not a virtio device'));
    }
  });

  it('says that there is no device where nothing answers', () => {
    const fake = device();
    const pci = new FakePciDevice(fake);
    fake.remove();
    expect(() => open(pci)).toThrow(refusal('NO_DEVICE', '0000:00:03.0'));
  });

  it('fails gracefully with a legacy device, which has no virtio capabilities [4.1.5.1.1.1]', () => {
    const fake = device();
    const pci = new FakePciDevice(fake, { transitional: true, capabilities: () => [] });
    expect(() => open(pci)).toThrow(refusal('UNSUPPORTED', 'legacy', 'disable-modern'));
    expect(pci.memoryEnabled).toBe(false);
    const modern = new FakePciDevice(fake, { capabilities: () => [] });
    expect(() => open(modern)).toThrow(refusal('INVALID_DEVICE', 'common configuration'));
  });
});

describe('structures', () => {
  const common = 'common configuration';
  const notify = 'notification structure';
  const isr = 'ISR status';
  const config = 'device configuration';

  it.each<[string, FakeStructure['type'], Change, string]>([
    ['starts outside its BAR', 'common', { offset: 0x4000 }, common],
    ['ends outside its BAR', 'common', { offset: 0x3ff0 }, common],
    ['ends where 32 bits overflow', 'common', { offset: 0xffff_fffc, length: 0x40 }, common],
    ['is too short', 'common', { length: 55 }, common],
    ['is misaligned', 'common', { offset: 2 }, common],
    ['is in a BAR that does not exist', 'common', { bar: 0 }, common],
    ['is in the upper half of a 64-bit BAR', 'common', { bar: 5 }, common],
    ['ends outside its BAR', 'notify', { length: 0x1001 }, notify],
    ['is too short', 'notify', { length: 1 }, notify],
    ['is misaligned', 'notify', { offset: 0x3001 }, notify],
    ['is empty', 'isr', { length: 0 }, isr],
    ['is outside its BAR', 'isr', { offset: 0x1_0000 }, isr],
    ['ends outside its BAR', 'device', { length: 0x1_0000 }, config],
    ['is misaligned', 'device', { offset: 0x2002 }, config],
  ])('%s: the %s structure is refused', (_, type, change, what) => {
    const pci = lying(type, change);
    expect(() => open(pci)).toThrow(refusal('INVALID_DEVICE', '0000:00:03.0', what));
    expect(readCommand(pci.config).bits, 'what was enabled is disabled again').toBe(0);
  });

  it.each([1, 3, 6, 12, 0x1001, 0x8000_0001])('refuses a multiplier of %d [4.1.4.4.1]', (multiplier) => {
    const pci = editing(2, (body) => [...body.slice(0, 14), ...le(multiplier)]);
    expect(() => open(pci)).toThrow(refusal('INVALID_DEVICE', notify, String(multiplier)));
  });

  it.each([0, 2, 4, 4096, 0x8000_0000])('takes a multiplier of %d [4.1.4.4.1]', (multiplier) => {
    const pci = editing(2, (body) => [...body.slice(0, 14), ...le(multiplier)]);
    expect(open(pci)).toBeInstanceOf(PciTransport);
  });

  it.each([
    [1, common],
    [2, notify],
    [3, isr],
  ])('refuses a device without structure %d', (type, what) => {
    expect(() => open(editing(type, () => undefined))).toThrow(
      refusal('INVALID_DEVICE', what, 'no capability'),
    );
  });

  it('uses the first of a kind [4.1.4.1]', () => {
    const pci = new FakePciDevice(device(), {
      structures: (all) => [...all, { type: 'common', bar: 4, offset: 0x3000, length: 64 }],
    });
    const mapBar = vi.fn((bar: number, offset: number, length: number) => pci.mapBar(bar, offset, length));
    open(pci, { mapBar });
    expect(mapBar).toHaveBeenCalledWith(4, 0, 64);
    expect(mapBar).not.toHaveBeenCalledWith(4, 0x3000, 64);
  });

  it('passes over one that cannot be used for the next [4.1.4.1]', () => {
    const fake = device();
    const pci = new FakePciDevice(fake, {
      structures: (all) => [
        { type: 'common', bar: 4, offset: 0x10_0000, length: 64 },
        { type: 'common', bar: 3, offset: 0, length: 64 },
        ...all,
      ],
    });
    negotiate(open(pci));
    fake.assertClean();
  });

  it('passes over one that the platform cannot map, such as one in I/O space', () => {
    const { pci } = fixture({
      pci: { structures: (all) => [...all.filter((one) => one.type === 'isr'), ...all] },
    });
    let calls = 0;
    const mapBar = (bar: number, offset: number, length: number) => {
      if (offset === 0x1000 && (calls += 1) === 1) throw new VirtioError('UNSUPPORTED', 'not that one');
      return pci.mapBar(bar, offset, length);
    };
    open(pci, { mapBar });
    expect(calls).toBe(2);
  });

  it('says that the platform cannot map any of them', () => {
    const { pci } = fixture();
    const cause = new VirtioError('UNSUPPORTED', 'BAR 4 is in I/O space');
    const mapBar = (): never => {
      throw cause;
    };
    expect(() => open(pci, { mapBar })).toThrow(refusal('UNSUPPORTED', common, 'I/O space'));
    expect(() => open(pci, { mapBar })).toThrow(expect.objectContaining({ cause }));
  });

  it("lets the platform's own errors through", () => {
    const { pci } = fixture();
    const error = new Error('mmap failed');
    const mapBar = (): never => {
      throw error;
    };
    const before = readCommand(pci.config).bits;
    expect(() => open(pci, { mapBar })).toThrow(error);
    expect(readCommand(pci.config).bits).toBe(before);
  });

  it('are mapped as far as they are needed, however large [4.1.4.1]', () => {
    const pci = new FakePciDevice(device({ config: 0x2000 }), { multiplier: 2 });
    const lengths = new Map<number, number>();
    open(pci, {
      mapBar: (bar, offset, length) => {
        lengths.set(offset, length);
        return pci.mapBar(bar, offset, length);
      },
    });
    expect(lengths.get(0x2000)).toBe(4096);
    const wide = lying('common', { length: 0x4000 });
    const mapBar = vi.fn((bar: number, offset: number, length: number) => wide.mapBar(bar, offset, length));
    open(wide, { mapBar });
    expect(mapBar).toHaveBeenCalledWith(4, 0, 64);
  });

  it('map notifications no further than the last queue can be', () => {
    const pci = new FakePciDevice(device(), {
      header: { bars: { 4: { kind: 'memory64', size: 2 ** 33 } } },
      vectors: 0,
      structures: (all) => all.map((one) => (one.type === 'notify' ? { ...one, length: 0xffff_0000 } : one)),
    });
    const mapBar = vi.fn((bar: number, offset: number, length: number) => pci.mapBar(bar, offset, length));
    open(pci, { mapBar });
    expect(mapBar).toHaveBeenCalledWith(4, 0x3000, 0xffff * 4 + 4);
  });

  it('are ignored if their type is reserved, or vendor data [4.1.4.1]', () => {
    const fake = device();
    const pci = new FakePciDevice(fake, {
      capabilities: (all) => [
        ...[0, 6, 7, 9, 10, 0xff].map((type) => ({
          id: 9,
          body: [16, type, 4, 0, 0, 0, ...le(0), ...le(0)],
        })),
        ...all.filter(({ id }) => id === 9),
      ],
    });
    negotiate(open(pci));
    fake.assertClean();
  });

  it('are ignored if their BAR is reserved [4.1.4.1]', () => {
    const fake = device();
    const pci = new FakePciDevice(fake, {
      structures: (all) => [...all.map((one) => ({ ...one, bar: 6 })), ...all],
      capabilities: (all) => all.slice(0, -1),
      vectors: 0,
    });
    negotiate(open(pci));
    fake.assertClean();
    expect(() => open(lying('isr', { bar: 0xff }))).toThrow(refusal('INVALID_DEVICE', isr, 'no capability'));
  });

  it('are taken if their capability is longer than specified [4.1.4.1]', () => {
    for (const type of [1, 2, 3, 4]) {
      const pci = editing(type, ([length = 0, ...rest]) => [length + 4, ...rest, 0xff, 0xff, 0xff, 0xff]);
      expect(open(pci).configSize).toBe(16);
    }
  });

  it('are ignored if their capability is shorter than specified', () => {
    for (const [type, least] of [
      [1, 16],
      [2, 20],
      [3, 16],
    ] as const) {
      const pci = editing(type, ([, ...rest]) => [least - 1, ...rest]);
      expect(() => open(pci)).toThrow(refusal('INVALID_DEVICE', 'no capability'));
    }
  });

  it('are never written to [4.1.4.1]', () => {
    const { pci, transport } = fixture();
    negotiate(transport);
    transport[Symbol.dispose]();
    const written = pci.config.accesses.filter(({ kind }) => kind === 'write').map(({ offset }) => offset);
    expect(written.length).toBeGreaterThan(0);
    expect(Math.max(...written)).toBeLessThan(0x40);
  });

  it('may say anything: the driver opens the device or says why not', () => {
    const fresh = (): FakePciDevice => new FakePciDevice(new FakeDevice({ type: 2, config: 8, queues: [8] }));
    const first = Math.min(...fresh().capabilityOffsets);
    let opened = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: first, max: 0xff }), fc.nat(0xff)), {
          minLength: 1,
          maxLength: 12,
        }),
        (pokes) => {
          const pci = fresh();
          for (const [offset, value] of pokes) pci.poke(offset, 1, value);
          let transport: PciTransport;
          try {
            transport = open(pci);
            opened += 1;
          } catch (error) {
            expect(VirtioError.is(error), String(error)).toBe(true);
            expect(pci.peek(PciRegister.COMMAND, 2) & 7).toBe(0);
            refused += 1;
            return;
          }
          try {
            transport.maxQueueSize(0);
            transport.sharedMemory(0);
          } catch (error) {
            // The registers are not where this device says that they are, which the model calls a violation.
            expect(VirtioError.is(error) || pci.device.violations.length > 0, String(error)).toBe(true);
          }
        },
      ),
      { numRuns: 500 },
    );
    expect(opened).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(0);
  });
});

it('names the function in every refusal', () => {
  const pci = new FakePciDevice(device());
  pci.poke(PciRegister.CAPABILITIES, 1, 0x10);
  expect(() => open(pci)).toThrow(refusal('INVALID_DEVICE', String(at)));
});

function le(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}
