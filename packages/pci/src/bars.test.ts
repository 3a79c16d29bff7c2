import { MappedRegisters, type RegisterWindow } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { type Bar, BarAllocator, readBars, setBar } from './bars.ts';
import { Command, PciRegister, readCommand } from './config-space.ts';

/** Configuration space in which some bits of the BARs can be set; records what is written. */
function space(bars: readonly (readonly [value: number, writable: number])[], headerType = 0) {
  const memory = new MappedRegisters(new ArrayBuffer(256));
  memory.write32(PciRegister.VENDOR_ID, 0x1042_1af4);
  memory.write16(PciRegister.COMMAND, 0x0407);
  memory.write16(PciRegister.STATUS, 0x0020);
  memory.write8(PciRegister.HEADER_TYPE, headerType);
  bars.forEach(([value], index) => memory.write32(PciRegister.BAR0 + 4 * index, value));
  const decodingAtWrite: number[] = [];
  const config: RegisterWindow = {
    size: 256,
    read8: (offset) => memory.read8(offset),
    read16: (offset) => memory.read16(offset),
    read32: (offset) => memory.read32(offset),
    write8: (offset, value) => memory.write8(offset, value),
    write16: (offset, value) => memory.write16(offset, value),
    write32: (offset, value) => {
      const writable = bars[(offset - PciRegister.BAR0) / 4]?.[1] ?? 0;
      decodingAtWrite.push(readCommand(config).bits & (Command.IO_SPACE | Command.MEMORY_SPACE));
      memory.write32(offset, ((memory.read32(offset) & ~writable) | (value & writable)) >>> 0);
    },
  };
  const bytes = (): Uint8Array => memory.mapped.u8.slice();
  return { config, decodingAtWrite, bytes };
}

const memory = (index: number, size: number, more: object = {}): object => ({
  kind: 'memory',
  index,
  address: 0,
  size,
  type: '32-bit',
  prefetchable: false,
  ...more,
});

describe('readBars', () => {
  it('sizes BARs of all kinds', () => {
    const { config } = space([
      [0xfebf_0000, 0xffff_0000],
      [0xc041, 0xffc0],
      [0x0000_000c, 0xffff_c000],
      [0x0000_0008, 0xffff_ffff],
      [0x0009_0002, 0xffff_fff0],
      [0, 0],
    ]);
    expect(readBars(config, 'x')).toEqual([
      memory(0, 0x1_0000, { address: 0xfebf_0000 }),
      { kind: 'io', index: 1, address: 0xc040, size: 64 },
      memory(2, 0x4000, { address: 0x8_0000_0000, type: '64-bit', prefetchable: true }),
      undefined,
      memory(4, 16, { address: 0x9_0000, type: 'below-1mib' }),
      undefined,
    ]);
  });

  it('sizes a 64-bit BAR of 16 GiB', () => {
    const { config } = space([
      [4, 0],
      [0, 0xffff_fffc],
    ]);
    expect(readBars(config, 'x')[0]).toEqual(memory(0, 2 ** 34, { type: '64-bit' }));
  });

  it('leaves all as it was', () => {
    const { config, bytes } = space([
      [0xfebf_0008, 0xffff_0000],
      [0xc041, 0xffff_ffc0],
      [0xfe00_000c, 0xffff_c000],
      [0x0000_0008, 0xffff_ffff],
    ]);
    const before = bytes();
    readBars(config, 'x');
    expect(bytes()).toEqual(before);
  });

  it('writes to BARs only while the function does not decode addresses', () => {
    const { config, decodingAtWrite } = space([[0, 0xffff_f000]]);
    readBars(config, 'x');
    expect(decodingAtWrite.length).toBeGreaterThan(0);
    expect(new Set(decodingAtWrite)).toEqual(new Set([0]));
  });

  it('has two BARs for a bridge and none for a header that is not known', () => {
    const bars = [
      [0, 0xffff_f000],
      [0, 0],
      [0, 0xffff_f000],
    ] as const;
    expect(readBars(space(bars, 1).config, 'x')).toEqual([memory(0, 0x1000), undefined]);
    expect(readBars(space(bars, 2).config, 'x')).toEqual([]);
  });

  it.each([
    [
      'a 64-bit BAR in the last place',
      [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
        [4, 0xffff_f000],
      ],
    ],
    ['a type that PCI does not define', [[6, 0xffff_f000]]],
    ['a size that is no power of two', [[0, 0xfff0_f000]]],
    [
      'a size beyond all sense',
      [
        [4, 0],
        [0, 0x8000_0000],
      ],
    ],
  ] as const)('refuses %s, and restores decoding', (_, bars) => {
    const { config, bytes } = space(bars);
    const before = bytes();
    expect(() => readBars(config, 'PCI 0000:00:03.0')).toThrow(
      expect.objectContaining({
        code: 'INVALID_DEVICE',
        reason: expect.stringMatching(/^BAD_BAR|BAR_TYPE_RESERVED$/) as string,
        message: expect.stringContaining('0000:00:03.0') as string,
      }),
    );
    expect(bytes()).toEqual(before);
  });

  it('refuses an address beyond 2^53', () => {
    const { config } = space([
      [4, 0xffff_f000],
      [0x8000_0000, 0xffff_ffff],
    ]);
    expect(() => readBars(config, 'x')).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
  });
});

describe('setBar', () => {
  it('sets both halves of a 64-bit BAR, and keeps the flags', () => {
    const { config } = space([
      [0xc, 0xffff_f000],
      [0, 0xffff_ffff],
    ]);
    const [bar] = readBars(config, 'x');
    setBar(config, bar as Bar, 0x12_3456_7000);
    expect(config.read32(PciRegister.BAR0)).toBe(0x3456_700c);
    expect(config.read32(PciRegister.BAR0 + 4)).toBe(0x12);
    expect(readBars(config, 'x')[0]).toMatchObject({ address: 0x12_3456_7000 });
  });

  it.each([
    ['misaligned', 0x1800],
    ['negative', -0x1000],
    ['above 2^32', 2 ** 32],
    ['no number', NaN],
    ['a text', '4096' as unknown as number],
  ])('refuses a 32-bit BAR an address that is %s', (_, address) => {
    const { config } = space([[0, 0xffff_f000]]);
    const [bar] = readBars(config, 'x');
    expect(() => setBar(config, bar as Bar, address)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('refuses an address above 1 MiB to a BAR that must be below', () => {
    const { config } = space([[2, 0xffff_f000]]);
    const [bar] = readBars(config, 'x');
    expect(() => setBar(config, bar as Bar, 0x10_0000)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    setBar(config, bar as Bar, 0xf_f000);
    expect(readBars(config, 'x')[0]).toMatchObject({ address: 0xf_f000 });
  });
});

describe('BarAllocator', () => {
  const bars = [
    [0, 0xffff_f000],
    [1, 0xffff_ffe0],
    [4, 0xfff0_0000],
    [0, 0xffff_ffff],
  ] as const;

  it('assigns aligned addresses, the largest BAR first, and lets the function decode', () => {
    const { config, decodingAtWrite } = space(bars);
    const allocator = new BarAllocator({
      memory: { start: 0x1000_0800, size: 0x100_0000 },
      io: { start: 0x1000, size: 0x1000 },
    });
    const assigned = allocator.assign(config, 'x');
    expect(assigned.map((bar) => bar?.address)).toEqual([
      0x1020_0000,
      0x1000,
      0x1010_0000,
      undefined,
      undefined,
      undefined,
    ]);
    expect(readBars(config, 'x')).toEqual(assigned);
    expect(readCommand(config).bits).toBe(0x0407);
    expect(new Set(decodingAtWrite)).toEqual(new Set([0]));
  });

  it('takes 64-bit BARs from a range of their own, if there is one', () => {
    const { config } = space(bars);
    const allocator = new BarAllocator({
      memory: { start: 0x1000_0000, size: 0x1000 },
      memory64: { start: 0x40_0000_0000, size: 2 ** 32 },
    });
    expect(allocator.assign(config, 'x').map((bar) => bar?.address)).toEqual([
      0x1000_0000,
      0,
      0x40_0000_0000,
      undefined,
      undefined,
      undefined,
    ]);
    expect(readCommand(config).has(Command.IO_SPACE), 'a BAR without address is not decoded').toBe(false);
  });

  it('never gives the same address twice', () => {
    const allocator = new BarAllocator({ memory: { start: 0x1000_0000, size: 0x400_0000 } });
    const taken = [1, 2, 3, 4].flatMap(() =>
      allocator.assign(space(bars).config, 'x').flatMap((bar) => (bar?.kind === 'memory' ? [bar] : [])),
    );
    const sorted = taken.sort((a, b) => a.address - b.address);
    sorted.slice(1).forEach((bar, i) => {
      const before = sorted[i] as Bar;
      expect(bar.address).toBeGreaterThanOrEqual(before.address + before.size);
    });
  });

  it('gives no BAR address 0, which means none', () => {
    const { config } = space(bars);
    const range = { start: 0, size: 0x100_0000 };
    const assigned = new BarAllocator({ memory: range, memory64: range, io: range }).assign(config, 'x');
    expect(assigned.map((bar) => bar?.address)).toEqual([
      0x1000,
      0x20,
      0x10_0000,
      undefined,
      undefined,
      undefined,
    ]);
  });

  it.each([
    ['no number', NaN],
    ['a fraction', 0.5],
    ['a negative number', -4096],
    ['a text', '4096'],
    ['a bigint', 4096n],
    ['nothing', undefined],
    ['2^53', 2 ** 53],
  ])('refuses %s in a range', (_, value) => {
    for (const range of [
      { start: value, size: 4096 },
      { start: 4096, size: value },
    ]) {
      for (const name of ['memory', 'memory64', 'io']) {
        const ranges = { memory: { start: 0, size: 0 }, [name]: range } as ConstructorParameters<
          typeof BarAllocator
        >[0];
        expect(() => new BarAllocator(ranges)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
      }
    }
  });

  it('says so if a range is used up', () => {
    const allocator = new BarAllocator({ memory: { start: 0x1000_0000, size: 0x10_0000 } });
    expect(() => allocator.assign(space(bars).config, 'x')).toThrow(
      expect.objectContaining({
        code: 'INVALID_PARAM',
        message: expect.stringContaining('larger') as string,
      }),
    );
  });
});
