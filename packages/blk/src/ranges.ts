/** Ranges of sectors for discard, write-zeroes and secure-erase requests: checked, split into segments and encoded. */
import { VirtioError } from '@virtio/core';
import type { RangeLimits } from './config.ts';
import { RangeSegment } from './protocol.ts';

/** A range of sectors. */
export interface SectorRange {
  /** The first sector, in units of 512 bytes. */
  readonly sector: number;
  /** The number of sectors, in units of 512 bytes. */
  readonly sectors: number;
}

const UNMAP = 1;

/**
 * Encodes ranges as the data of one request. A range that is too long for one segment is split, at the device's alignment where
 * that is possible.
 *
 * @param what the request, for messages
 * @throws {@link VirtioError} `INVALID_PARAM` if there is no range, one is empty or beyond the disk, or one request cannot hold them
 * @see VIRTIO 1.4, 5.2.6
 */
export function encodeRanges(
  what: string,
  ranges: SectorRange | readonly SectorRange[],
  limits: RangeLimits,
  capacity: number,
  unmap: boolean,
): Uint8Array {
  // Callers without types may give something else.
  const list = (Array.isArray(ranges) ? ranges : [ranges]) as readonly (SectorRange | null | undefined)[];
  const { maxSectors, maxSegments, alignment } = limits;
  const segments: SectorRange[] = [];
  for (const range of list) {
    const { sector = NaN, sectors = NaN } = range ?? {};
    if (!isOnDisk(sector, sectors, capacity)) throw notOnDisk(what, sector, sectors, capacity);
    const end = sector + sectors;
    let at = sector;
    // One segment too many is enough to know that they do not fit.
    while (at < end && segments.length <= maxSegments) {
      let next = Math.min(end, at + maxSectors);
      if (next < end && next - (next % alignment) > at) next -= next % alignment;
      segments.push({ sector: at, sectors: next - at });
      at = next;
    }
  }
  if (segments.length === 0) {
    throw new VirtioError('INVALID_PARAM', `${what}: there is no range; give one or more`);
  }
  if (segments.length > maxSegments) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${what}: a request holds at most ${maxSegments} segments of up to ${maxSectors} sectors, and the ${list.length} ranges ` +
        'need more; use several requests',
    );
  }
  const view = new DataView(new ArrayBuffer(segments.length * RangeSegment.size));
  segments.forEach(({ sector, sectors }, i) => {
    RangeSegment.write(view, i * RangeSegment.size, {
      sector: BigInt(sector),
      numSectors: sectors,
      flags: unmap ? UNMAP : 0,
    });
  });
  return new Uint8Array(view.buffer);
}

/** Whether a range has one or more whole sectors, all on the disk. */
export function isOnDisk(sector: number, sectors: number, capacity: number): boolean {
  return (
    Number.isSafeInteger(sector) &&
    sector >= 0 &&
    Number.isSafeInteger(sectors) &&
    sectors >= 1 &&
    sectors <= capacity - sector
  );
}

/** The error for a range that is not on the disk. */
export function notOnDisk(what: string, sector: number, sectors: number, capacity: number): VirtioError {
  return new VirtioError(
    'INVALID_PARAM',
    `${what}: { sector: ${shown(sector)}, sectors: ${shown(sectors)} } is not a range of the disk, which has ${capacity} sectors of ` +
      '512 bytes; give whole numbers, and at least one sector',
  );
}

/** A value for a message: with its type unless it is a number, as `"7"` and `7n` look like numbers. */
export function shown(value: unknown): string {
  return typeof value === 'number' ? String(value) : `${String(value)} (${typeof value})`;
}
