/** The requests other than reads and writes, as commands: what is sent, and how the answer is decoded. */
import { VirtioError } from '@virtio/core';
import type { Command } from './dispatcher.ts';
import type { Limits } from './limits.ts';
import { DEVICE_ID_SIZE, LifetimeInfo, RequestType } from './protocol.ts';
import { encodeRanges, type SectorRange } from './ranges.ts';

/**
 * The wear of the storage, as eMMC and UFS devices report it.
 *
 * @see VIRTIO 1.4, 5.2.6
 */
export interface BlkLifetime {
  /** The use of the reserved blocks: less than 80 %, 80 % or more, 90 % or more; undefined if not known. */
  readonly preEol: 'normal' | 'warning' | 'urgent' | undefined;
  /** The wear of SLC cells in steps of 10 %: 1 is up to 10 %, 10 up to 100 %, 11 beyond; undefined if not known. */
  readonly typeA: number | undefined;
  /** The wear of MLC cells, in the same steps. */
  readonly typeB: number | undefined;
}

/** Commits completed writes to stable storage. */
export const FLUSH: Command<void> = { type: RequestType.FLUSH, sector: 0, data: [], segments: 0 };

const PRE_EOL = [undefined, 'normal', 'warning', 'urgent'] as const;
const MOST_LIFETIME = 11;

/** A request on ranges of sectors; the feature that it needs has the same name. */
export function rangeCommand(
  limits: Limits,
  what: 'DISCARD' | 'WRITE_ZEROES' | 'SECURE_ERASE',
  ranges: SectorRange | readonly SectorRange[],
  unmap = false,
): Command<void> {
  limits.checkWritable(what);
  const { config } = limits;
  const range = {
    DISCARD: config.discard,
    WRITE_ZEROES: config.writeZeroes,
    SECURE_ERASE: config.secureErase,
  }[what];
  if (range === undefined) throw limits.lacks(what, what);
  const data = encodeRanges(limits.who(what), ranges, range, config.capacity, unmap);
  return {
    type: RequestType[what],
    sector: 0,
    data,
    segments: limits.checkSegments(what, limits.segments(data)),
  };
}

/** Asks for the device ID string. */
export function deviceIdCommand(limits: Limits): Command<string> {
  const data = new Uint8Array(DEVICE_ID_SIZE);
  const decode = (): string => {
    const end = data.indexOf(0);
    return String.fromCharCode(...data.subarray(0, end < 0 ? data.length : end));
  };
  const segments = limits.checkSegments('GET_ID', limits.segments(data));
  return { type: RequestType.GET_ID, sector: 0, data, segments, decode };
}

/** Asks for the wear of the storage. */
export function lifetimeCommand(limits: Limits): Command<BlkLifetime> {
  const data = new Uint8Array(LifetimeInfo.size);
  const decode = (): BlkLifetime => decodeLifetime(limits, data);
  const segments = limits.checkSegments('GET_LIFETIME', limits.segments(data));
  return { type: RequestType.GET_LIFETIME, sector: 0, data, segments, decode };
}

function decodeLifetime(limits: Limits, data: Uint8Array): BlkLifetime {
  const info = LifetimeInfo.read(new DataView(data.buffer));
  const { preEolInfo, deviceLifetimeEstTypA: typeA, deviceLifetimeEstTypB: typeB } = info;
  if (preEolInfo >= PRE_EOL.length || typeA > MOST_LIFETIME || typeB > MOST_LIFETIME) {
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${limits.who('GET_LIFETIME')}: the device answered ${preEolInfo}, ${typeA}, ${typeB}, some of which are reserved values; ` +
        'do not rely on its answer',
    );
  }
  return { preEol: PRE_EOL[preEolInfo], typeA: typeA || undefined, typeB: typeB || undefined };
}
