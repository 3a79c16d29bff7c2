/** Base address registers: read, sized and set. Addresses and sizes are numbers below 2^53. */
import { type RegisterWindow, requireInteger, VirtioError } from '@virtio/core';
import { commandBits, DECODE, DECODE_IO, DECODE_MEMORY, setCommandBits } from './command.ts';
import { DeviceFunctionInfo, PciRegister } from './config-space.ts';
import { because } from './reasons.ts';

const IO = 0x1;
const PREFETCHABLE = 0x8;
const MEMORY_TYPE = 0x6;
const BELOW_1MIB = 0x2;
const WIDE = 0x4;

/** A BAR in memory space. */
export interface MemoryBar {
  /** Distinguishes it from an {@link IoBar}. */
  readonly kind: 'memory';
  /** Its index, 0 to 5. A 64-bit BAR takes the next index as well. */
  readonly index: number;
  /** Its physical address; 0 if none was assigned. */
  readonly address: number;
  /** Bytes: a power of two. */
  readonly size: number;
  /** Where its address may be: below 2^32, below 1 MiB, or anywhere. */
  readonly type: '32-bit' | 'below-1mib' | '64-bit';
  /** Whether reads have no side effects and writes may be merged. */
  readonly prefetchable: boolean;
}

/** A BAR in I/O space. */
export interface IoBar {
  /** Distinguishes it from a {@link MemoryBar}. */
  readonly kind: 'io';
  /** Its index, 0 to 5. */
  readonly index: number;
  /** Its first port; 0 if none was assigned. */
  readonly address: number;
  /** The number of ports. */
  readonly size: number;
}

/** A BAR that a function implements. */
export type Bar = MemoryBar | IoBar;

/** The BARs of a function by index; `undefined` where there is none, or where the upper half of a 64-bit one is. */
export type Bars = readonly (Bar | undefined)[];

/**
 * Reads and sizes all BARs of a function. To size a BAR, all ones are written to it while the function does not decode addresses;
 * its value is restored afterwards. Nothing else may use the function meanwhile.
 *
 * @param name the function, for messages
 * @throws {@link VirtioError} `INVALID_DEVICE` for a BAR that PCI does not allow, `UNSUPPORTED` for an address above 2^53
 */
export function readBars(config: RegisterWindow, name: string): Bars {
  const { headerType } = DeviceFunctionInfo.read(config, name);
  const count = headerType === 'standard' ? 6 : headerType === 'pci-bridge' ? 2 : 0;
  const bars: (Bar | undefined)[] = new Array<undefined>(count).fill(undefined);
  const command = commandBits(config);
  const quiet = command & ~DECODE;
  if (quiet !== command) setCommandBits(config, quiet);
  try {
    for (let index = 0; index < count; index += 1) {
      const bar = readBar(config, index, count, name);
      bars[index] = bar;
      if (bar?.kind === 'memory' && bar.type === '64-bit') index += 1;
    }
  } finally {
    if (quiet !== command) setCommandBits(config, command);
  }
  return bars;
}

function readBar(config: RegisterWindow, index: number, count: number, name: string): Bar | undefined {
  const [low, lowMask] = probe(config, index);
  if (lowMask === 0) return undefined;
  if ((low & IO) !== 0) {
    // The upper 16 address bits may be hardwired to zero.
    const mask = (lowMask & 0xffff_0000) === 0 ? lowMask | 0xffff_0000 : lowMask;
    const size = sizeOf(BigInt((mask & ~0x3) >>> 0) | 0xffff_ffff_0000_0000n, index, name);
    return size === 0 ? undefined : { kind: 'io', index, address: (low & ~0x3) >>> 0, size };
  }
  let high = 0;
  let highMask = 0xffff_ffff;
  if ((low & MEMORY_TYPE) === WIDE) {
    if (index + 1 >= count) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${name}: BAR ${index} is a 64-bit BAR, but there is no BAR after it; the device is broken`,
        because('BAD_BAR'),
      );
    }
    [high, highMask] = probe(config, index + 1);
  } else if ((low & MEMORY_TYPE) === MEMORY_TYPE) {
    throw new VirtioError(
      'INVALID_DEVICE',
      `${name}: BAR ${index} has a type that PCI does not define; the device is broken`,
      because('BAR_TYPE_RESERVED'),
    );
  }
  const size = sizeOf((BigInt(highMask) << 32n) | BigInt((lowMask & ~0xf) >>> 0), index, name);
  if (size === 0) return undefined;
  const address = high * 2 ** 32 + ((low & ~0xf) >>> 0);
  if (!Number.isSafeInteger(address + size)) {
    throw new VirtioError('UNSUPPORTED', `${name}: BAR ${index} is above 2^53; give it a lower address`);
  }
  return {
    kind: 'memory',
    index,
    address,
    size,
    type:
      (low & MEMORY_TYPE) === WIDE ? '64-bit' : (low & MEMORY_TYPE) === BELOW_1MIB ? 'below-1mib' : '32-bit',
    prefetchable: (low & PREFETCHABLE) !== 0,
  };
}

/** Writes all ones to a BAR, restores it, and returns its value and what it read as. */
function probe(config: RegisterWindow, index: number): readonly [value: number, mask: number] {
  const register = PciRegister.BAR0 + 4 * index;
  const value = config.read32(register);
  config.write32(register, 0xffff_ffff);
  const mask = config.read32(register);
  config.write32(register, value);
  return [value, mask];
}

const U64 = 2n ** 64n - 1n;

/** Computes the size from the address bits that can be set; 0 if none can. */
function sizeOf(mask: bigint, index: number, name: string): number {
  const size = (~mask + 1n) & U64;
  if ((size & (size - 1n)) !== 0n || size > 1n << 52n) {
    throw new VirtioError(
      'INVALID_DEVICE',
      `${name}: BAR ${index} has a size of 0x${size.toString(16)} bytes, which is not a power of two ` +
        'below 2^53; the device is broken',
      because('BAD_BAR'),
    );
  }
  return Number(size);
}

/**
 * Sets the address of a BAR. The function should not decode addresses while that happens.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` for an address that the BAR cannot have
 */
export function setBar(config: RegisterWindow, bar: Bar, address: number): void {
  const wide = bar.kind === 'memory' && bar.type === '64-bit';
  const limit =
    bar.kind === 'memory' && bar.type === 'below-1mib' ? 2 ** 20 : wide ? Number.MAX_SAFE_INTEGER : 2 ** 32;
  if (
    !Number.isSafeInteger(address) ||
    address < 0 ||
    address % bar.size !== 0 ||
    address + bar.size > limit
  ) {
    throw new VirtioError(
      'INVALID_PARAM',
      `BAR ${bar.index} of ${bar.size} bytes cannot be at 0x${address.toString(16)}: it must be at a multiple of its ` +
        `size, below 0x${limit.toString(16)}`,
    );
  }
  const register = PciRegister.BAR0 + 4 * bar.index;
  // The flags in the lowest bits are read-only.
  config.write32(register, address % 2 ** 32);
  if (wide) config.write32(register + 4, Math.floor(address / 2 ** 32));
}

/** A range of addresses: `[start, start + size)`. */
export interface AddressRange {
  /** The first address, or port. */
  readonly start: number;
  /** Bytes, or ports. */
  readonly size: number;
}

/** The address ranges that the host bridge forwards to PCI. */
export interface BarRanges {
  /** Memory below 2^32. */
  readonly memory: AddressRange;
  /** Memory above 2^32, for 64-bit BARs; without it they get addresses from `memory`. */
  readonly memory64?: AddressRange;
  /** I/O ports; without them I/O BARs get no address. */
  readonly io?: AddressRange;
}

/**
 * Assigns addresses to BARs, on platforms without firmware.
 *
 * @example
 * ```ts
 * import { BarAllocator, FunctionConfig, type PciRoot } from '@virtio/pci';
 *
 * export function assignAll(root: PciRoot): void {
 *   const allocator = new BarAllocator({ memory: { start: 0x1000_0000, size: 0x2eff_0000 } });
 *   for (const [at, info] of root.functions()) {
 *     if (info.headerType === 'standard') allocator.assign(new FunctionConfig(root.access, at), String(at));
 *   }
 * }
 * ```
 */
export class BarAllocator {
  readonly #ranges: BarRanges;
  readonly #next: { memory: number; memory64: number; io: number };

  /** @throws {@link VirtioError} `INVALID_PARAM` for a range that is not one of integers below 2^53 */
  constructor(ranges: BarRanges) {
    const { memory, memory64, io } = ranges;
    for (const [name, range] of Object.entries({ memory, memory64, io })) {
      if (range === undefined) continue;
      requireInteger('BarAllocator', `${name}.start`, range.start, 0, Number.MAX_SAFE_INTEGER);
      requireInteger('BarAllocator', `${name}.size`, range.size, 0, Number.MAX_SAFE_INTEGER - range.start);
    }
    this.#ranges = ranges;
    // A BAR at address 0 counts as unassigned.
    const first = (range: AddressRange | undefined): number => Math.max(range?.start ?? 0, 1);
    this.#next = { memory: first(memory), memory64: first(memory64), io: first(io) };
  }

  /**
   * Allocates an address for a BAR.
   *
   * @returns the address, or `undefined` for an I/O BAR if the allocator has no ports
   * @throws {@link VirtioError} `INVALID_PARAM` if the range is used up
   */
  allocate(bar: Bar): number | undefined {
    const { memory64, io } = this.#ranges;
    if (bar.kind === 'io') return io && this.#take('io', io, bar);
    if (bar.type === '64-bit' && memory64) return this.#take('memory64', memory64, bar);
    return this.#take('memory', this.#ranges.memory, bar);
  }

  /**
   * Assigns addresses to all BARs of a function, the largest first, and enables address decoding.
   *
   * @param name the function, for messages
   * @returns the BARs with their new addresses
   */
  assign(config: RegisterWindow, name: string): Bars {
    const bars = [...readBars(config, name)];
    const quiet = commandBits(config) & ~DECODE;
    setCommandBits(config, quiet);
    let decode = 0;
    const present = bars.filter((bar) => bar !== undefined).sort((a, b) => b.size - a.size);
    for (const bar of present) {
      const address = this.allocate(bar);
      if (address === undefined) continue;
      setBar(config, bar, address);
      bars[bar.index] = { ...bar, address };
      decode |= bar.kind === 'io' ? DECODE_IO : DECODE_MEMORY;
    }
    setCommandBits(config, quiet | decode);
    return bars;
  }

  #take(which: 'memory' | 'memory64' | 'io', range: AddressRange, bar: Bar): number {
    const address = Math.ceil(this.#next[which] / bar.size) * bar.size;
    if (address + bar.size > range.start + range.size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `there is no room for a BAR of ${bar.size} bytes in the range ${which} at 0x${range.start.toString(16)}, ` +
          `which has ${range.size} bytes; give the allocator a larger range`,
      );
    }
    this.#next[which] = address + bar.size;
    return address;
  }
}
