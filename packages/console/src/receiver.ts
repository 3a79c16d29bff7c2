/**
 * The receiving half of a port: buffers with the device, and a ring of bytes to read from.
 *
 * A buffer goes back to the device when all of its bytes are in the ring. So a key press does not hold a whole buffer, and
 * when the ring is full the device runs out of buffers and holds its sender up: nothing is dropped.
 *
 * When the far side closes the port, what it sent before is the end of a session: reads stop there once.
 */
import { decodeUtf8, type ReceiveQueue, VirtioError } from '@virtio/core';
import { ByteRing } from './byte-ring.ts';

const NEWLINE = 10;
const CARRIAGE_RETURN = 13;

/** What a port has received. */
export class Receiver {
  readonly #name: string;
  #queue: ReceiveQueue | undefined;
  #ring: ByteRing;

  // Buffers that the device has filled and that are not all in the ring: numbers and lengths, oldest first.
  readonly #held: number[] = [];
  readonly #lengths: number[] = [];
  /** The bytes of the oldest that are in the ring. */
  #heldAt = 0;

  // Positions in the stream of bytes: what came, what was read, and where sessions ended.
  #received = 0;
  #consumed = 0;
  readonly #ends: number[] = [];
  /** So many bytes of the ring hold no end of a line. */
  #scanned = 0;

  /**
   * @param name for messages
   * @param queue whose buffers are posted
   * @param capacity how many bytes to keep until they are read
   */
  constructor(name: string, queue: ReceiveQueue, capacity: number) {
    this.#name = name;
    this.#queue = queue;
    this.#ring = new ByteRing(capacity);
  }

  /**
   * Takes what the device has sent.
   *
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`
   */
  receive(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    // Bounded by the number of buffers: none goes back before this has ended.
    for (let buffer = queue.pop(); buffer >= 0; buffer = queue.pop()) {
      this.#held.push(buffer);
      this.#lengths.push(queue.usedLength);
      this.#received += queue.usedLength;
    }
    this.#move();
  }

  /** How many bytes can be read, up to the end of the session. */
  get available(): number {
    return (this.#ends[0] ?? this.#received) - this.#consumed;
  }

  /** Whether a session ended and all of it was read. */
  get atEnd(): boolean {
    return this.#ends.length > 0 && this.available === 0;
  }

  /** Goes on behind the end of a session. */
  passEnd(): void {
    this.#ends.shift();
  }

  /** The far side closed the port: marks the end of what it sent. */
  end(): void {
    this.receive();
    if (this.#ends.at(-1) !== this.#received) this.#ends.push(this.#received);
  }

  /** The next byte of the session, or -1. */
  peek(): number {
    return this.available === 0 ? -1 : this.#ring.peek();
  }

  /**
   * Copies bytes of the session, which stay: those that are in the ring.
   *
   * @returns how many
   */
  copy(into: Uint8Array): number {
    return this.#ring.copy(into.subarray(0, Math.min(into.length, this.available)));
  }

  /**
   * Takes bytes of the session without looking at them.
   *
   * @returns how many: all that there are if there are fewer
   */
  skip(count: number): number {
    let skipped = 0;
    while (skipped < count && this.available > 0) {
      const part = Math.min(count - skipped, this.available, this.#ring.length);
      this.#ring.skip(part);
      skipped += part;
      this.#took(part);
    }
    return skipped;
  }

  /**
   * Takes bytes of the session.
   *
   * @returns how many
   */
  read(into: Uint8Array): number {
    let count = 0;
    // Buffers move to the ring as it empties.
    while (count < into.length && this.available > 0) {
      const left = Math.min(into.length - count, this.available);
      const taken = this.#ring.read(into.subarray(count, count + left));
      count += taken;
      this.#took(taken);
    }
    return count;
  }

  /**
   * Takes a line: up to the next newline, or to the end of the session.
   *
   * @returns the line as text, without its end, or `undefined` if it is not complete
   * @throws {@link VirtioError} `UNSUPPORTED` if the line does not fit the ring; nothing was taken then
   */
  readLine(): string | undefined {
    if (this.atEnd) return undefined;
    const end = this.#ends[0];
    const within = end === undefined ? this.#ring.length : Math.min(this.#ring.length, end - this.#consumed);
    const at = this.#ring.indexOf(NEWLINE, this.#scanned);
    if (at >= 0 && at < within) return this.#takeLine(at, 1);
    if (end !== undefined && within === this.available && within > 0) return this.#takeLine(within, 0);
    this.#scanned = within;
    if (this.#ring.room === 0) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#name}: the line is longer than the ${this.#ring.capacity} bytes that the driver keeps; read it as bytes, or raise readAhead`,
      );
    }
    return undefined;
  }

  /** How many bytes it keeps until they are read. */
  get capacity(): number {
    return this.#ring.capacity;
  }

  /** Whether a session ended, so that no more comes to what can be read now. */
  get ends(): boolean {
    return this.#ends.length > 0;
  }

  /** Whether the next read gets something without waiting: bytes, or the end of a session. */
  get ready(): boolean {
    return this.available > 0 || this.atEnd;
  }

  /** Drops all that was received. */
  clear(): void {
    this.receive();
    this.#ends.length = 0;
    this.#heldAt = 0;
    this.#lengths.fill(0);
    this.#ring.skip(this.#ring.length);
    this.#consumed = this.#received;
    this.#scanned = 0;
    this.#move();
  }

  /** Copies what is in buffers of the queue, so that they can go back or be lost. */
  absorb(): void {
    const queue = this.#queue;
    if (queue === undefined || this.#held.length === 0) return;
    const held = this.#lengths.reduce((sum, length) => sum + length, -this.#heldAt);
    const ring = new ByteRing(Math.max(this.#ring.capacity, this.#ring.length + held));
    const bytes = new Uint8Array(this.#ring.length);
    this.#ring.read(bytes);
    ring.write(bytes);
    this.#ring = ring;
    this.#held.forEach((buffer, i) => {
      ring.write(queue.buffer(buffer).subarray(i === 0 ? this.#heldAt : 0, this.#lengths[i]));
    });
    this.#held.length = 0;
    this.#lengths.length = 0;
    this.#heldAt = 0;
  }

  /** Lets go of the queue: gives it all buffers back. What was received can be read all the same. */
  detach(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    this.receive();
    const held = [...this.#held];
    this.absorb();
    for (const buffer of held) queue.repost(buffer);
    if (held.length > 0) queue.kick();
    this.#queue = undefined;
  }

  /** The device no longer works, and nothing goes back to it. What was received can be read all the same. */
  suspend(): void {
    this.absorb();
    this.#queue = undefined;
  }

  /** The device works again, and the queue is empty. */
  resume(queue: ReceiveQueue): void {
    this.#queue = queue;
  }

  #takeLine(length: number, terminator: number): string {
    const bytes = new Uint8Array(length);
    this.#ring.read(bytes);
    this.#ring.skip(terminator);
    this.#took(length + terminator);
    return decodeUtf8(bytes.at(-1) === CARRIAGE_RETURN ? bytes.subarray(0, -1) : bytes);
  }

  #took(count: number): void {
    this.#consumed += count;
    this.#scanned = Math.max(0, this.#scanned - count);
    this.#move();
  }

  /** Moves bytes from buffers to the ring, as many as fit, and gives empty buffers back. */
  #move(): void {
    const queue = this.#queue;
    if (queue === undefined) return;
    let emptied = 0;
    while (emptied < this.#held.length) {
      const buffer = this.#held[emptied] as number;
      const length = this.#lengths[emptied] as number;
      this.#heldAt += this.#ring.write(queue.buffer(buffer).subarray(this.#heldAt, length));
      if (this.#heldAt < length) break;
      this.#heldAt = 0;
      emptied += 1;
      queue.repost(buffer);
    }
    if (emptied === 0) return;
    this.#held.splice(0, emptied);
    this.#lengths.splice(0, emptied);
    queue.kick();
  }
}
