/** Queries for the items of a device: jacks, streams, channel maps, control elements. */
import { requireInteger, type Transport, VirtioError } from '@virtio/core';
import { type Query, queryCommand } from './commands.ts';
import { ask, type Steps } from './steps.ts';

/** The number of items of each kind. */
export interface SoundCounts {
  readonly jacks: number;
  readonly streams: number;
  readonly channelMaps: number;
  /** 0 unless CTLS was negotiated. */
  readonly controls: number;
}

/** The items to ask for (default: all). */
export interface ItemRange {
  /** The first one (default 0). */
  readonly start?: number;
  /** How many (default: all from there on). */
  readonly count?: number;
}

/** The largest size of items that are asked for at once, in bytes. */
const QUERY_BYTES = 16_384;
/** The largest number of items of a kind; a device that reports more is not trusted. */
export const MAX_ITEMS = 65_536;

/** The items of a device. */
export class Items {
  /** How many there are; a reset may change it. */
  counts: SoundCounts;
  readonly #transport: Transport;

  constructor(transport: Transport, counts: SoundCounts) {
    this.#transport = transport;
    this.counts = counts;
  }

  /** Asks for information about items. */
  *query<T>(kind: keyof SoundCounts, query: Query<T>, { start = 0, count }: ItemRange = {}): Steps<T[]> {
    const total = this.counts[kind];
    if (total > MAX_ITEMS) {
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#transport.who()} reports ${total} ${kind}; more than ${MAX_ITEMS} are not accepted`,
      );
    }
    // 5.14.6.2: no more than there are.
    requireInteger(this.#transport, `the first of the ${kind}`, start, 0, total);
    const end =
      start +
      requireInteger(this.#transport, `the number of ${kind}`, count ?? total - start, 0, total - start);
    const items: T[] = [];
    const most = Math.floor(QUERY_BYTES / query.size);
    for (let at = start; at < end; at += most) {
      items.push(...(yield* ask(queryCommand(query, at, Math.min(most, end - at)))));
    }
    return items;
  }

  /** Checks the number of an item. */
  requireId(kind: string, id: number, count: number): number {
    if (count === 0) throw this.none(kind, id, count);
    return requireInteger(this.#transport, `the ${kind}`, id, 0, count - 1);
  }

  /** The error for an item that does not exist. */
  none(kind: string, id: number, count: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#transport.who()}: there is no ${kind} ${String(id)}; the device has ${count}, from 0 on`,
    );
  }
}
