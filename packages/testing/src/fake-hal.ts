/**
 * A platform in plain memory that checks every use: each region lies between guard pages and guard bytes, the device can access
 * only memory that is allocated or shared, and only in its direction, memory that is given back is detached, and memory that is
 * given back twice, never, or wrongly is reported.
 */
import {
  type BufferDirection,
  type DmaRegion,
  type Hal,
  PAGE_SIZE,
  type PostedMemory,
  type RegisterWindow,
  VirtioError,
} from '@virtio/core';
import { type Access, type DeviceMemory, MemoryFault } from './device-memory.ts';

/** The number of guard bytes before and after each region, which must not be written. */
const GUARD_BYTES = 64;
const GUARD = 0xc5;
/** The initial value of bytes in bounce buffers. */
const POISON = 0xa5;

/** Options of {@link FakeHal}. */
export interface FakeHalOptions {
  /** The first device address (default 0x100000). A value above 2^32 shows whether drivers handle the upper half. */
  readonly base?: number;
  /** The size of the address space in bytes (default 1 GiB); free addresses are reused after a lap. */
  readonly addressSpace?: number;
}

/** Memory that is shared now. */
export interface Share {
  readonly address: number;
  readonly length: number;
  readonly direction: BufferDirection;
  readonly accessPlatform: boolean;
  /** Whether the buffer was used without a copy, since it lies in DMA memory. */
  readonly zeroCopy: boolean;
}

/** Counts of operations so far. */
export interface HalCounts {
  allocations: number;
  frees: number;
  shares: number;
  unshares: number;
  /** Shares that needed a copy. */
  bounces: number;
  /** Allocations and shares that a {@link FailurePlan} made fail. */
  refusals: number;
  /** Accesses by the device through {@link FakeHal.view}. */
  deviceAccesses: number;
  /** Accesses by the device that were refused. */
  faults: number;
}

/** Which calls fail on purpose. */
export interface FailurePlan {
  /** How many calls succeed first (default 0). */
  readonly after?: number;
  /** How many calls fail then (default 1). */
  readonly count?: number;
}

interface Area {
  readonly kind: 'dma' | 'bounce';
  readonly address: number;
  readonly length: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly direction: BufferDirection;
  readonly accessPlatform: boolean;
  /** Of a DMA region: what was handed out. */
  readonly region?: DmaRegion;
}

interface LiveShare extends Share {
  readonly buffer: Uint8Array;
  readonly bounce: Area | undefined;
}

/** Called for memory that the driver takes back, with its address, its length, and a description. */
export type ReleaseListener = (address: number, length: number, what: string) => void;

const hex = (address: number): string => `0x${address.toString(16)}`;

/** Detaches a buffer if the engine has ECMAScript 2024's `transfer`; some small engines do not. */
function detach(buffer: { readonly byteLength: number; transfer?(): unknown }): void {
  buffer.transfer?.();
}

/** A {@link Hal} for tests, and the device's access to its memory. */
export class FakeHal implements Hal, DeviceMemory {
  /** Counts of operations so far. */
  readonly counts: HalCounts = {
    allocations: 0,
    frees: 0,
    shares: 0,
    unshares: 0,
    bounces: 0,
    refusals: 0,
    deviceAccesses: 0,
    faults: 0,
  };
  /** What the driver did wrong, as text. */
  readonly misuse: string[] = [];

  readonly #base: number;
  readonly #limit: number;
  #next: number;
  /** All areas by ascending address, and their addresses. */
  readonly #areas: Area[] = [];
  readonly #byBuffer = new Map<ArrayBufferLike, Area>();
  readonly #shares = new Map<number, LiveShare[]>();
  readonly #registers: { readonly address: number; readonly window: RegisterWindow }[] = [];
  readonly #listeners = new Set<ReleaseListener>();
  #last: Area | undefined;
  #allocPlan = { after: 0, count: 0 };
  #sharePlan = { after: 0, count: 0 };

  constructor({ base = 0x10_0000, addressSpace = 0x4000_0000 }: FakeHalOptions = {}) {
    this.#base = base;
    this.#next = base;
    this.#limit = base + addressSpace;
  }

  dmaAlloc(pages: number, direction: BufferDirection, accessPlatform: boolean): DmaRegion {
    if (!Number.isInteger(pages) || pages < 1) {
      throw this.#misused(`asked to allocate ${pages} pages; ask for one or more`);
    }
    if (fails(this.#allocPlan)) {
      this.counts.refusals += 1;
      throw new VirtioError(
        'DMA_ERROR',
        `${pages} pages were asked for; the test makes this allocation fail`,
      );
    }
    const length = pages * PAGE_SIZE;
    const buffer = new ArrayBuffer(GUARD_BYTES + length + GUARD_BYTES);
    new Uint8Array(buffer, 0, GUARD_BYTES).fill(GUARD);
    new Uint8Array(buffer, GUARD_BYTES + length).fill(GUARD);
    const bytes = new Uint8Array(buffer, GUARD_BYTES, length);
    const address = this.#place(length);
    const region: DmaRegion = { bytes, address, pages };
    this.#insert({ kind: 'dma', address, length, bytes, direction, accessPlatform, region });
    this.#byBuffer.set(buffer, this.#find(address) as Area);
    this.counts.allocations += 1;
    return region;
  }

  dmaDealloc(region: DmaRegion, accessPlatform: boolean): void {
    const area = this.#find(region.address);
    if (area?.region !== region) {
      throw this.#misused(
        `the region at ${hex(region.address)} was given back, but is not allocated: given back twice?`,
      );
    }
    if (accessPlatform !== area.accessPlatform) {
      throw this.#misused(
        `the region at ${hex(area.address)} was allocated with accessPlatform ${area.accessPlatform}, but given back with ` +
          String(accessPlatform),
      );
    }
    for (const share of [...this.#shares.values()].flat()) {
      if (share.zeroCopy && share.address >= area.address && share.address < area.address + area.length) {
        this.#note(
          `the region at ${hex(area.address)} was given back with ${share.length} bytes at ${hex(share.address)} shared`,
        );
      }
    }
    this.#checkGuards(area);
    this.#tell(area.address, area.length, `DMA region of ${region.pages} pages`);
    this.#remove(area);
    this.#byBuffer.delete(area.bytes.buffer);
    this.counts.frees += 1;
    // Views of it that either side still has are empty from now on.
    detach(area.bytes.buffer);
  }

  mapRegisters(address: number, size: number): RegisterWindow {
    const found = this.#registers.find((entry) => entry.address === address && size <= entry.window.size);
    if (found) return found.window;
    throw new VirtioError(
      'INVALID_PARAM',
      `no register window of ${size} bytes at ${hex(address)}; the test adds it with addRegisters`,
    );
  }

  /** Describes a DMA region for another thread, for {@link FakeHal.attach}. */
  post(bytes: Uint8Array): PostedMemory {
    const area = this.#byBuffer.get(bytes.buffer);
    if (area === undefined) throw this.#misused('memory was posted that does not come from dmaAlloc');
    const address = area.address + bytes.byteOffset - area.bytes.byteOffset;
    return { pointer: address, address, length: bytes.length };
  }

  /** The DMA region that was posted. */
  attach({ pointer }: PostedMemory): DmaRegion {
    const region = this.#find(pointer)?.region;
    if (region === undefined) {
      throw this.#misused(`memory at ${hex(pointer)} was attached, but is not allocated`);
    }
    return region;
  }

  /** Adds a window for {@link FakeHal.mapRegisters}. */
  addRegisters(address: number, window: RegisterWindow): void {
    this.#registers.push({ address, window });
  }

  share(buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): number {
    if (!((buffer as unknown) instanceof Uint8Array)) {
      throw this.#misused('what was shared is not a Uint8Array');
    }
    if (buffer.length === 0) {
      throw this.#misused('an empty buffer was shared, or one whose memory was given back');
    }
    if (fails(this.#sharePlan)) {
      this.counts.refusals += 1;
      throw new VirtioError(
        'DMA_ERROR',
        `${buffer.length} bytes were to be shared; the test makes this call fail`,
      );
    }
    const { length } = buffer;
    const home = this.#byBuffer.get(buffer.buffer);
    let share: LiveShare;
    if (home) {
      const start = buffer.byteOffset - home.bytes.byteOffset;
      if (start < 0 || start + length > home.length) {
        throw this.#misused(
          `the buffer that was shared reaches out of its DMA region at ${hex(home.address)}`,
        );
      }
      if (home.direction !== 'both' && home.direction !== direction) {
        throw this.#misused(
          `${length} bytes of the ${home.direction} region at ${hex(home.address)} were shared ${direction}`,
        );
      }
      const address = home.address + start;
      share = { address, length, direction, accessPlatform, zeroCopy: true, buffer, bounce: undefined };
    } else {
      const bytes = new Uint8Array(length).fill(POISON);
      if (direction !== 'device-to-driver') bytes.set(buffer);
      const address = this.#place(length);
      const bounce: Area = { kind: 'bounce', address, length, bytes, direction, accessPlatform };
      this.#insert(bounce);
      this.counts.bounces += 1;
      share = { address, length, direction, accessPlatform, zeroCopy: false, buffer, bounce };
    }
    const same = this.#shares.get(share.address);
    if (same) same.push(share);
    else this.#shares.set(share.address, [share]);
    this.counts.shares += 1;
    return share.address;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): void {
    const shares = this.#shares.get(address) ?? [];
    const at = shares.findIndex((share) => share.buffer === buffer || sameMemory(share.buffer, buffer));
    const share = shares[at];
    if (!share) {
      throw this.#misused(
        `a buffer of ${buffer.length} bytes was unshared at ${hex(address)}, but is not shared there: unshared twice?`,
      );
    }
    if (direction !== share.direction && direction !== 'driver-to-device') {
      throw this.#misused(`${hex(address)} was shared ${share.direction}, but unshared ${direction}`);
    }
    if (accessPlatform !== share.accessPlatform) {
      throw this.#misused(
        `${hex(address)} was shared with accessPlatform ${share.accessPlatform}, but unshared with ${accessPlatform}`,
      );
    }
    this.#tell(share.address, share.length, `shared buffer of ${share.length} bytes`);
    shares.splice(at, 1);
    if (shares.length === 0) this.#shares.delete(address);
    this.counts.unshares += 1;
    if (!share.bounce) return;
    if (direction !== 'driver-to-device') buffer.set(share.bounce.bytes);
    this.#remove(share.bounce);
    detach(share.bounce.bytes.buffer);
  }

  /** Makes calls of {@link FakeHal.dmaAlloc} fail with `DMA_ERROR`. */
  failAlloc({ after = 0, count = 1 }: FailurePlan = {}): void {
    this.#allocPlan = { after, count };
  }

  /** Makes calls of {@link FakeHal.share} fail with `DMA_ERROR`. */
  failShare({ after = 0, count = 1 }: FailurePlan = {}): void {
    this.#sharePlan = { after, count };
  }

  view(address: number, length: number, access: Access): Uint8Array {
    this.counts.deviceAccesses += 1;
    const area = this.#find(address);
    if (!area || address + length > area.address + area.length) {
      this.counts.faults += 1;
      throw new MemoryFault(
        address,
        length,
        access,
        area
          ? `what is offered ends at ${hex(area.address + area.length)}`
          : 'nothing is allocated or shared there',
      );
    }
    if (
      (access === 'write' && area.direction === 'driver-to-device') ||
      (access === 'read' && area.direction === 'device-to-driver')
    ) {
      this.counts.faults += 1;
      throw new MemoryFault(address, length, access, `it is offered ${area.direction}`);
    }
    const start = address - area.address;
    return area.bytes.subarray(start, start + length);
  }

  /** Reads as the device does; returns a copy. */
  read(address: number, length: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.view(address, length, 'read'));
  }

  /** Writes as the device does. */
  write(address: number, bytes: Uint8Array): void {
    this.view(address, bytes.length, 'write').set(bytes);
  }

  /** Whether the device may make an access, without counting it. */
  allows(address: number, length: number, access: Access): boolean {
    const { deviceAccesses, faults } = this.counts;
    try {
      this.view(address, length, access);
      return true;
    } catch {
      return false;
    } finally {
      this.counts.deviceAccesses = deviceAccesses;
      this.counts.faults = faults;
    }
  }

  /** The regions that are allocated now. */
  get regions(): readonly DmaRegion[] {
    return this.#areas.flatMap((area) => (area.region ? [area.region] : []));
  }

  /** The buffers that are shared now. */
  get shares(): readonly Share[] {
    return [...this.#shares.values()].flat();
  }

  /** What is still allocated or shared, as text. */
  leaks(): string[] {
    return [
      ...this.regions.map(({ address, pages }) => `${pages} pages at ${hex(address)} are still allocated`),
      ...this.shares.map(({ address, length }) => `${length} bytes at ${hex(address)} are still shared`),
    ];
  }

  /**
   * Checks that all memory was given back and nothing was misused.
   *
   * @throws Error that lists what is wrong
   */
  assertClean(): void {
    for (const area of this.#areas) this.#checkGuards(area);
    const problems = [...this.misuse, ...this.leaks()];
    if (problems.length > 0) throw new Error(`memory is not in order:\n- ${problems.join('\n- ')}`);
  }

  /**
   * Adds a listener that is called just before the driver takes memory back.
   *
   * @returns a function that removes it
   */
  onRelease(listener: ReleaseListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(address: number, length: number, what: string): void {
    for (const listener of this.#listeners) listener(address, length, what);
  }

  /** The area that an address lies in. */
  #find(address: number): Area | undefined {
    const last = this.#last;
    if (last && address >= last.address && address < last.address + last.length) return last;
    const area = this.#areas[this.#above(address) - 1];
    if (!area || address >= area.address + area.length) return undefined;
    this.#last = area;
    return area;
  }

  /** The index of the first area that starts above an address. */
  #above(address: number): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#areas[middle] as Area).address <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Chooses an address with a free page before and behind. */
  #place(length: number): number {
    const span = (Math.ceil(length / PAGE_SIZE) + 1) * PAGE_SIZE;
    let lapped = false;
    for (;;) {
      const start = this.#next;
      if (start + span > this.#limit) {
        if (lapped) break;
        lapped = true;
        this.#next = this.#base;
        continue;
      }
      const before = this.#areas[this.#above(start + span - 1) - 1];
      const free = before ? (Math.ceil((before.address + before.length) / PAGE_SIZE) + 1) * PAGE_SIZE : start;
      if (free <= start) {
        this.#next = start + span;
        return start;
      }
      this.#next = free;
    }
    throw new VirtioError(
      'DMA_ERROR',
      `${length} bytes were asked for; the addresses of the fake are used up; give it a larger addressSpace`,
    );
  }

  #insert(area: Area): void {
    this.#areas.splice(this.#above(area.address), 0, area);
  }

  #remove(area: Area): void {
    this.#areas.splice(this.#areas.indexOf(area), 1);
    this.#last = undefined;
  }

  #checkGuards(area: Area): void {
    if (area.kind !== 'dma') return;
    const { buffer } = area.bytes;
    const after = GUARD_BYTES + area.length;
    let touched = new Uint8Array(buffer, 0, GUARD_BYTES).findIndex(isOverwritten);
    if (touched < 0) {
      touched = new Uint8Array(buffer, after).findIndex(isOverwritten);
      if (touched >= 0) touched += after;
    }
    if (touched >= 0) {
      this.#note(
        `the driver wrote outside its region at ${hex(area.address)}, at offset ${touched - GUARD_BYTES}`,
      );
    }
  }

  #note(what: string): void {
    if (!this.misuse.includes(what)) this.misuse.push(what);
  }

  #misused(what: string): Error {
    this.#note(what);
    return new Error(`Hal misused: ${what}`);
  }
}

const isOverwritten = (byte: number): boolean => byte !== GUARD;

function sameMemory(a: Uint8Array, b: Uint8Array): boolean {
  return a.buffer === b.buffer && a.byteOffset === b.byteOffset && a.length === b.length;
}

function fails(plan: { after: number; count: number }): boolean {
  if (plan.count === 0) return false;
  if (plan.after > 0) {
    plan.after -= 1;
    return false;
  }
  plan.count -= 1;
  return true;
}
