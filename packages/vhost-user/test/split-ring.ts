/**
 * The device's side of a split vring as a back end has it: it may begin anywhere, and it can keep the record of requests in flight
 * (INFLIGHT_SHMFD). Written from the texts, and shares nothing with the driver's side.
 */

/** The bytes at an address. */
export type ViewOf = (address: number, length: number) => DataView;

export interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

const COUNTER = 8;
const HEAD = 16;
const ENTRY = 16;

/** The size of one vring's part of the record. */
export function recordSize(size: number): number {
  return Math.ceil((HEAD + ENTRY * size) / 64) * 64;
}

export class SplitRing {
  readonly #view: ViewOf;
  readonly #size: number;
  readonly #desc: DataView;
  readonly #avail: DataView;
  readonly #used: DataView;
  readonly #record: DataView | undefined;
  #lastAvail: number;
  #counter = 0n;
  /** Heads of the record that are to be done again, oldest first. */
  readonly #again: number[] = [];

  constructor(
    view: ViewOf,
    place: { size: number; desc: number; avail: number; used: number },
    base: number,
    record?: DataView,
  ) {
    const { size } = place;
    this.#view = view;
    this.#size = size;
    this.#desc = view(place.desc, 16 * size);
    this.#avail = view(place.avail, 4 + 2 * size);
    this.#used = view(place.used, 6 + 8 * size);
    this.#record = record;
    this.#lastAvail = base;
    if (record !== undefined) this.#resume(record);
  }

  /** Where the next request would be taken. */
  get base(): number {
    return this.#lastAvail;
  }

  /** Takes the next request. */
  take(): number | undefined {
    const again = this.#again.shift();
    if (again !== undefined) return again;
    if (this.#availIndex() === this.#lastAvail) {
      // EVENT_IDX: the next one is to be announced. Stored before the index is looked at again.
      const words = new Uint16Array(this.#used.buffer, this.#used.byteOffset, 3 + 4 * this.#size);
      Atomics.store(words, 2 + 4 * this.#size, this.#lastAvail);
      if (this.#availIndex() === this.#lastAvail) return undefined;
    }
    const head = this.#avail.getUint16(4 + 2 * (this.#lastAvail % this.#size), true);
    this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
    if (this.#record !== undefined) {
      this.#record.setBigUint64(HEAD + ENTRY * head + COUNTER, this.#counter++, true);
      this.#record.setUint8(HEAD + ENTRY * head, 1);
    }
    return head;
  }

  #availIndex(): number {
    return Atomics.load(new Uint16Array(this.#avail.buffer, this.#avail.byteOffset, 2), 1);
  }

  buffers(head: number): Buffer[] {
    const found: Buffer[] = [];
    let table = this.#desc;
    let at = head;
    for (;;) {
      const address = Number(table.getBigUint64(16 * at, true));
      const length = table.getUint32(16 * at + 8, true);
      const flags = table.getUint16(16 * at + 12, true);
      if ((flags & 4) !== 0) {
        table = this.#view(address, length);
        at = 0;
        continue;
      }
      found.push({ address, length, writable: (flags & 2) !== 0 });
      if ((flags & 1) === 0) return found;
      at = table.getUint16(16 * at + 14, true);
    }
  }

  /** Gives a request back. With `dieBefore` the record is left as by a back end that is killed at that very moment. */
  use(head: number, length: number, dieBefore = false): void {
    const record = this.#record;
    if (record !== undefined) {
      record.setUint16(HEAD + ENTRY * head + 6, record.getUint16(12, true), true);
      record.setUint16(12, head, true);
    }
    const idx = this.#used.getUint16(2, true);
    this.#used.setUint32(4 + 8 * (idx % this.#size), head, true);
    this.#used.setUint32(8 + 8 * (idx % this.#size), length, true);
    // Ordered after the element: a store that the driver's thread sees last.
    const words = new Uint16Array(this.#used.buffer, this.#used.byteOffset, 2);
    Atomics.store(words, 1, (idx + 1) & 0xffff);
    if (record === undefined || dieBefore) return;
    record.setUint8(HEAD + ENTRY * head, 0);
    record.setUint16(14, (idx + 1) & 0xffff, true);
  }

  #resume(record: DataView): void {
    record.setUint16(8, 1, true);
    record.setUint16(10, this.#size, true);
    const idx = this.#used.getUint16(2, true);
    let batch = (idx - record.getUint16(14, true)) & 0xffff;
    for (let head = record.getUint16(12, true); batch > 0; batch -= 1) {
      record.setUint8(HEAD + ENTRY * head, 0);
      head = record.getUint16(HEAD + ENTRY * head + 6, true);
    }
    record.setUint16(14, idx, true);
    const found: { head: number; counter: bigint }[] = [];
    for (let head = 0; head < this.#size; head += 1) {
      if (record.getUint8(HEAD + ENTRY * head) === 0) continue;
      found.push({ head, counter: record.getBigUint64(HEAD + ENTRY * head + COUNTER, true) });
    }
    found.sort((a, b) => Number(a.counter - b.counter));
    this.#again.push(...found.map(({ head }) => head));
    this.#counter = (found.at(-1)?.counter ?? -1n) + 1n;
    this.#lastAvail = (idx + found.length) & 0xffff;
  }
}
