/**
 * One chain as a device sees it: bytes to read, then room to write, however the driver divided them into descriptors.
 */
import type { DeviceMemory } from './device-memory.ts';

/** One buffer of a chain. */
export interface ChainElement {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

/** What a chain needs of its queue. */
export interface ChainQueue {
  /** The memory of the driver. */
  readonly memory: DeviceMemory;
  /** Whether the driver has the queue set up now. */
  readonly live: boolean;
  /** Whether the device has the chain. */
  holds(chain: Chain): boolean;
  /** Uses the chain: gives it back to the driver. Returns whether the driver was interrupted. */
  complete(chain: Chain, length?: number): boolean;
}

/** A chain of buffers that the driver made available and the device took. */
export class Chain {
  /** The queue it came from. */
  readonly queue: ChainQueue;
  /** Its id for the device: the head descriptor (split) or the buffer id (packed). */
  readonly id: number;
  /** Its buffers. */
  readonly elements: readonly ChainElement[];
  /** How many descriptors of the ring it takes. */
  readonly descriptors: number;
  /** Whether it uses an indirect table. */
  readonly indirect: boolean;
  /** Bytes that the device can read. */
  readonly readable: number;
  /** Bytes that the device can write. */
  readonly writable: number;
  /** Bytes written so far, from the first writable one: what {@link Chain.complete} reports by default. */
  written = 0;

  #cursor = 0;
  #deferred = false;

  /** @internal chains come from `DeviceQueue.pop` */
  constructor(
    queue: ChainQueue,
    id: number,
    elements: readonly ChainElement[],
    descriptors: number,
    indirect: boolean,
  ) {
    this.queue = queue;
    this.id = id;
    this.elements = elements;
    this.descriptors = descriptors;
    this.indirect = indirect;
    let readable = 0;
    let writable = 0;
    for (const element of elements) {
      if (element.writable) writable += element.length;
      else readable += element.length;
    }
    this.readable = readable;
    this.writable = writable;
  }

  /** The bytes that can still be written after {@link Chain.written}. */
  get room(): number {
    return this.writable - this.written;
  }

  /**
   * The next readable bytes, as a copy.
   *
   * @param length how many (default: all that remain)
   * @throws RangeError if there are fewer
   */
  read(length = this.readable - this.#cursor): Uint8Array<ArrayBuffer> {
    const bytes = this.readAt(this.#cursor, length);
    this.#cursor += length;
    return bytes;
  }

  /**
   * Readable bytes from `offset`, as a copy. Does not change where {@link Chain.read} continues.
   *
   * @throws RangeError if there are fewer
   */
  readAt(offset: number, length: number): Uint8Array<ArrayBuffer> {
    if (offset < 0 || length < 0 || offset + length > this.readable) {
      throw new RangeError(
        `chain ${this.id} has ${this.readable} readable bytes, not ${length} at ${offset}`,
      );
    }
    const bytes = new Uint8Array(length);
    this.#walk(false, offset, length, (address, at, size) => {
      bytes.set(this.queue.memory.view(address, size, 'read'), at);
    });
    return bytes;
  }

  /** All readable bytes, as a copy. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.readAt(0, this.readable);
  }

  /** All readable bytes as a `DataView` of a copy, for the fields of a header. */
  header(): DataView<ArrayBuffer> {
    return new DataView(this.bytes().buffer);
  }

  /**
   * Appends to what was written before.
   *
   * @returns this chain
   * @throws RangeError if there is less room
   */
  write(bytes: ArrayLike<number>): this {
    return this.writeAt(this.written, bytes);
  }

  /**
   * Writes at an offset from the first writable byte. Skipped bytes are zeroed, as the used length counts from the first byte.
   *
   * @returns this chain
   * @throws RangeError if there is less room
   */
  writeAt(offset: number, bytes: ArrayLike<number>): this {
    if (offset < 0 || offset + bytes.length > this.writable) {
      throw new RangeError(
        `chain ${this.id} has ${this.writable} writable bytes, not ${bytes.length} at ${offset}`,
      );
    }
    if (offset > this.written) this.writeAt(this.written, new Uint8Array(offset - this.written));
    const source = bytes instanceof Uint8Array ? bytes : Uint8Array.from(bytes);
    this.#walk(true, offset, source.length, (address, at, size) => {
      this.queue.memory.view(address, size, 'write').set(source.subarray(at, at + size));
    });
    this.written = Math.max(this.written, offset + source.length);
    return this;
  }

  /** Keeps the chain when the handler returns; {@link Chain.complete} ends it later. */
  defer(): void {
    this.#deferred = true;
  }

  /** Whether {@link Chain.defer} was called. */
  get deferred(): boolean {
    return this.#deferred;
  }

  /** Whether the device still has the chain: not completed, and the queue was not reset. */
  get pending(): boolean {
    return this.queue.holds(this);
  }

  /**
   * Gives the chain back to the driver and interrupts it if it wants that. After a reset of the queue it does nothing, as a
   * device that was reset has forgotten the chain.
   *
   * @param length the used length to report (default: what was written)
   * @returns whether the driver was interrupted
   */
  complete(length = this.written): boolean {
    return this.queue.live && this.queue.complete(this, length);
  }

  #walk(
    writable: boolean,
    offset: number,
    length: number,
    each: (address: number, at: number, size: number) => void,
  ): void {
    let start = 0;
    for (const element of this.elements) {
      if (element.writable !== writable) continue;
      const from = Math.max(offset, start);
      const to = Math.min(offset + length, start + element.length);
      if (from < to) each(element.address + from - start, from - offset, to - from);
      start += element.length;
    }
  }
}
