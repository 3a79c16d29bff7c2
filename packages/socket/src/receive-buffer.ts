/**
 * What was received on a connection and not read yet: bytes, and for seqpacket sockets where messages end. It holds what the peer has
 * credit for and no more; its memory grows with what comes, and is let go when it is empty.
 */

/** The memory that a buffer begins with, in bytes. */
const FIRST_SIZE = 4096;

/** A message that is complete. */
export interface MessageEnd {
  /** Bytes. */
  readonly length: number;
  /** Whether it ends a record. */
  readonly eor: boolean;
}

/** The bytes that wait for whoever reads. */
export class ReceiveBuffer {
  readonly #capacity: number;
  #bytes = new Uint8Array(0);
  #start = 0;
  #length = 0;
  /** The complete messages, oldest first. */
  readonly #messages: MessageEnd[] = [];
  /** Bytes of the message that is coming in. */
  #partial = 0;

  /** @param capacity bytes, and also the most messages */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Bytes in the buffer. */
  get length(): number {
    return this.#length;
  }

  /** The next complete message. */
  get message(): MessageEnd | undefined {
    return this.#messages[0];
  }

  /** How many complete messages there are. */
  get messages(): number {
    return this.#messages.length;
  }

  /**
   * Adds bytes; there must be room.
   *
   * @param from where they begin in `source`
   */
  push(source: Uint8Array, from: number, length: number): void {
    if (length === 0) return;
    this.#reserve(this.#length + length);
    const size = this.#bytes.length;
    const at = (this.#start + this.#length) % size;
    const first = Math.min(length, size - at);
    this.#bytes.set(source.subarray(from, from + first), at);
    if (first < length) this.#bytes.set(source.subarray(from + first, from + length), 0);
    this.#length += length;
    this.#partial += length;
  }

  /**
   * The bytes that came since the last message are one.
   *
   * @returns false if there are too many messages
   */
  endMessage(eor: boolean): boolean {
    if (this.#messages.length >= this.#capacity) return false;
    this.#messages.push({ length: this.#partial, eor });
    this.#partial = 0;
    return true;
  }

  /** Moves as many bytes as there are and fit, and returns how many. */
  read(into: Uint8Array): number {
    const count = Math.min(into.length, this.#length);
    if (count === 0) return 0;
    const first = Math.min(count, this.#bytes.length - this.#start);
    into.set(this.#bytes.subarray(this.#start, this.#start + first));
    if (first < count) into.set(this.#bytes.subarray(0, count - first), first);
    this.skip(count);
    return count;
  }

  /** Drops bytes, as many as there are. */
  skip(count: number): number {
    const dropped = Math.min(count, this.#length);
    this.#length -= dropped;
    this.#start = this.#length === 0 ? 0 : (this.#start + dropped) % this.#bytes.length;
    return dropped;
  }

  /** Takes the next complete message out of the line; its bytes are read after that. */
  takeMessage(): MessageEnd | undefined {
    return this.#messages.shift();
  }

  /** Drops everything, and the memory. */
  clear(): void {
    this.#bytes = new Uint8Array(0);
    this.#start = 0;
    this.#length = 0;
    this.#messages.length = 0;
    this.#partial = 0;
  }

  #reserve(length: number): void {
    if (length <= this.#bytes.length) return;
    let size = Math.max(FIRST_SIZE, this.#bytes.length);
    while (size < length) size *= 2;
    const bytes = new Uint8Array(Math.min(size, Math.max(this.#capacity, length)));
    const kept = this.#length;
    const start = this.#start;
    const first = Math.min(kept, this.#bytes.length - start);
    bytes.set(this.#bytes.subarray(start, start + first));
    bytes.set(this.#bytes.subarray(0, kept - first), first);
    this.#bytes = bytes;
    this.#start = 0;
  }
}
