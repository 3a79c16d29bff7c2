/**
 * The data that was received on a connection and not read yet: bytes, and for seqpacket sockets the ends of messages. It holds at most
 * what the peer has credit for. Its memory grows as data arrives, and is reused.
 */

/** The initial memory of a buffer, in bytes. */
const FIRST_SIZE = 4096;
/** Up to this many bytes, a loop is faster than `set` of a view, and allocates nothing. */
const FEW = 96;
/** Ends of messages that were taken stay in the list until there are this many of them. */
const TIDY = 1024;

/** A message that is complete. */
export interface MessageEnd {
  /** Bytes. */
  readonly length: number;
  /** Whether it ends a record. */
  readonly eor: boolean;
}

/** The received bytes that wait to be read. */
export class ReceiveBuffer {
  readonly #capacity: number;
  #bytes = new Uint8Array(0);
  #start = 0;
  #length = 0;
  /**
   * The complete messages from `#taken` on, oldest first: twice the length, and one more if a record ends. Numbers, as a peer may send
   * empty messages for which it needs no credit.
   */
  readonly #messages: number[] = [];
  #taken = 0;
  /** Bytes of the message that is not complete yet. */
  #partial = 0;

  /** @param capacity the largest number of bytes, and of messages */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Bytes in the buffer. */
  get length(): number {
    return this.#length;
  }

  /** The number of complete messages. */
  get messages(): number {
    return this.#messages.length - this.#taken;
  }

  /** Adds bytes; there must be room. */
  push(source: Uint8Array): void {
    const { length } = source;
    if (length === 0) return;
    this.#reserve(this.#length + length);
    const size = this.#bytes.length;
    const at = (this.#start + this.#length) % size;
    const first = size - at;
    if (length <= first) {
      this.#bytes.set(source, at);
    } else {
      this.#bytes.set(source.subarray(0, first), at);
      this.#bytes.set(source.subarray(first), 0);
    }
    this.#length += length;
    this.#partial += length;
  }

  /**
   * Makes the bytes since the last message a message.
   *
   * @returns false if there are too many messages
   */
  endMessage(eor: boolean): boolean {
    if (this.messages >= this.#capacity) return false;
    this.#messages.push(2 * this.#partial + (eor ? 1 : 0));
    this.#partial = 0;
    return true;
  }

  /** Moves as many bytes as there are and `into` holds, and returns how many. */
  read(into: Uint8Array): number {
    const count = Math.min(into.length, this.#length);
    if (count === 0) return 0;
    const bytes = this.#bytes;
    const start = this.#start;
    const first = Math.min(count, bytes.length - start);
    if (count <= FEW) {
      for (let n = 0; n < first; n += 1) into[n] = bytes[start + n] as number;
      for (let n = first; n < count; n += 1) into[n] = bytes[n - first] as number;
    } else {
      into.set(bytes.subarray(start, start + first));
      if (first < count) into.set(bytes.subarray(0, count - first), first);
    }
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

  /** Takes the next complete message; its bytes are read after that. */
  takeMessage(): MessageEnd | undefined {
    const found = this.#messages[this.#taken];
    if (found === undefined) return undefined;
    this.#taken += 1;
    if (this.#taken === this.#messages.length) {
      this.#messages.length = 0;
      this.#taken = 0;
    } else if (this.#taken >= TIDY && this.#taken * 2 >= this.#messages.length) {
      this.#messages.splice(0, this.#taken);
      this.#taken = 0;
    }
    return { length: found >>> 1, eor: (found & 1) !== 0 };
  }

  /** Drops everything, and the memory. */
  clear(): void {
    this.#bytes = new Uint8Array(0);
    this.#start = 0;
    this.#length = 0;
    this.#messages.length = 0;
    this.#taken = 0;
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
