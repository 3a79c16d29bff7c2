/**
 * The addresses that a device behind an IOMMU sees can be chosen freely. They are taken from the bottom up, so that they stay
 * below 2^31 for the first gibibytes, where JavaScript engines keep numbers unboxed.
 */
import { VirtioError } from '@virtio/core';

/** A range of addresses: from `start` up to but not including `end`. */
export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

/** Low memory is left free: an address of 0 means "none" in many registers. */
const LOWEST = 0x100_0000;

/** Where x86 writes its interrupt messages; never memory. Kernels since 5.4 leave it out of the ranges they report. */
const MSI_WINDOW: AddressRange = { start: 0xfee0_0000, end: 0xfef0_0000 };

/** An allocator of ranges of device addresses. */
export class IovaSpace {
  /** Free ranges in ascending order, none touching the next. */
  #free: AddressRange[] = [];

  /** @param usable the ranges that the IOMMU can map, in any order */
  constructor(usable: readonly AddressRange[]) {
    const limit = Number.MAX_SAFE_INTEGER;
    for (const { start, end } of usable) {
      const low = Math.max(start, LOWEST);
      const high = Math.min(end, limit);
      for (const range of without({ start: low, end: high }, MSI_WINDOW)) {
        if (range.start < range.end) this.#free.push(range);
      }
    }
    this.#free.sort((a, b) => a.start - b.start);
  }

  /**
   * Takes the lowest free range.
   *
   * @param size bytes, a multiple of `alignment`
   * @param alignment a power of two
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  take(size: number, alignment: number): number {
    for (const [i, range] of this.#free.entries()) {
      const start = Math.ceil(range.start / alignment) * alignment;
      const end = start + size;
      if (end > range.end) continue;
      const rest = without(range, { start, end });
      this.#free.splice(i, 1, ...rest.filter((part) => part.start < part.end));
      return start;
    }
    throw new VirtioError(
      'DMA_ERROR',
      `there are no ${size} bytes of device addresses left; free DMA memory that is no longer used`,
    );
  }

  /** Gives a range back. */
  give(start: number, size: number): void {
    const end = start + size;
    const after = this.#free.findIndex((range) => range.start >= end);
    const at = after < 0 ? this.#free.length : after;
    const before = this.#free[at - 1];
    const next = this.#free[at];
    const joinsBefore = before?.end === start;
    const joinsNext = next?.start === end;
    this.#free.splice(at - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsNext ? 1 : 0), {
      start: joinsBefore ? before.start : start,
      end: joinsNext ? next.end : end,
    });
  }
}

/** What remains of a range without another; parts may be empty. */
function without(range: AddressRange, hole: AddressRange): AddressRange[] {
  if (hole.end <= range.start || hole.start >= range.end) return [range];
  return [
    { start: range.start, end: hole.start },
    { start: hole.end, end: range.end },
  ];
}
