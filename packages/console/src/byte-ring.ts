/** Received bytes that were not read yet, in memory that is allocated once. */

/** A queue of bytes with a fixed capacity. */
export class ByteRing {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #head = 0;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** How many bytes it holds at most. */
  get capacity(): number {
    return this.#bytes.length;
  }

  /** How many bytes are in it. */
  get length(): number {
    return this.#length;
  }

  /** How many more bytes there is room for. */
  get room(): number {
    return this.#bytes.length - this.#length;
  }

  /**
   * Adds as many bytes as there is room for.
   *
   * @returns how many
   */
  write(bytes: Uint8Array): number {
    const count = Math.min(bytes.length, this.room);
    const tail = this.#place(this.#length);
    const first = Math.min(count, this.#bytes.length - tail);
    this.#bytes.set(bytes.subarray(0, first), tail);
    if (count > first) this.#bytes.set(bytes.subarray(first, count));
    this.#length += count;
    return count;
  }

  /**
   * Takes as many bytes as `into` holds.
   *
   * @returns how many
   */
  read(into: Uint8Array): number {
    const count = this.copy(into);
    this.skip(count);
    return count;
  }

  /**
   * Copies as many bytes as `into` holds; they stay.
   *
   * @returns how many
   */
  copy(into: Uint8Array): number {
    const count = Math.min(into.length, this.#length);
    const first = Math.min(count, this.#bytes.length - this.#head);
    into.set(this.#bytes.subarray(this.#head, this.#head + first));
    if (count > first) into.set(this.#bytes.subarray(0, count - first), first);
    return count;
  }

  /** The next byte, which stays; -1 if there is none. */
  peek(): number {
    return this.#length === 0 ? -1 : (this.#bytes[this.#head] as number);
  }

  /** Drops `count` bytes; there must be as many. */
  skip(count: number): void {
    this.#head = this.#place(count);
    this.#length -= count;
  }

  /** Where the first `byte` is at or behind `from`, counted from the next byte; -1 if there is none. */
  indexOf(byte: number, from = 0): number {
    if (from >= this.#length) return -1;
    const bytes = this.#bytes;
    const start = this.#place(from);
    const end = this.#head + this.#length;
    if (start >= this.#head) {
      const found = bytes.indexOf(byte, start);
      if (found >= 0 && found < end) return found - this.#head;
      if (end <= bytes.length) return -1;
    }
    // The part that lies at the beginning of the memory.
    const found = bytes.indexOf(byte, start >= this.#head ? 0 : start);
    return found >= 0 && found < end - bytes.length ? found + bytes.length - this.#head : -1;
  }

  #place(offset: number): number {
    const place = this.#head + offset;
    return place >= this.#bytes.length ? place - this.#bytes.length : place;
  }
}
