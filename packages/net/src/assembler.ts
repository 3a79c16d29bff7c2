/**
 * Puts received packets together from the buffers that the device has used. With mergeable buffers a header says over how many a
 * packet is spread, and that number may be wrong. Whatever it says: no more buffers are taken than belong together, each goes back
 * exactly once, and the next packet starts where it should.
 *
 * All buffers of a packet are used together, and all but the last are filled completely [5.1.9.4.1]. So a count that is followed by
 * nothing, or by a buffer that is not full, was wrong at that place, and what comes next is another packet.
 */
import type { HeaderCodec } from './header.ts';

/** The part of a `ReceiveQueue` that an assembler uses. */
export interface UsedBuffers {
  readonly buffers: number;
  readonly bufferSize: number;
  readonly usedLength: number;
  pop(): number;
  buffer(number: number): Uint8Array<ArrayBuffer>;
  repost(number: number): void;
}

/** Takes packets from one receive queue. */
export class PacketAssembler {
  /** The number of buffers of the packet that {@link PacketAssembler.next} found. */
  pieces = 0;
  /** The length of the packet in bytes, without its header. */
  length = 0;
  /** How many packets were dropped because the device described them wrongly. */
  dropped = 0;

  /** By piece of the packet: the number of its buffer, and its bytes, the header included. */
  readonly numbers: Uint16Array;
  readonly lengths: Uint32Array;

  readonly #queue: UsedBuffers;
  readonly #codec: HeaderCodec;
  readonly #quirk: (message: string) => void;

  /** @param quirk is called for each packet that is dropped */
  constructor(queue: UsedBuffers, codec: HeaderCodec, quirk: (message: string) => void) {
    this.#queue = queue;
    this.#codec = codec;
    this.#quirk = quirk;
    this.numbers = new Uint16Array(queue.buffers);
    this.lengths = new Uint32Array(queue.buffers);
  }

  /**
   * Takes the next packet. The caller gives its buffers back, with {@link PacketAssembler.release} or one by one. Bad packets before
   * it are dropped and their buffers given back; one call takes at most as many buffers as the queue has.
   *
   * @returns false if there is none
   */
  next(): boolean {
    const queue = this.#queue;
    for (let attempts = queue.buffers; attempts > 0; attempts -= 1) {
      const number = queue.pop();
      if (number < 0) return false;
      this.pieces = 1;
      this.numbers[0] = number;
      this.lengths[0] = queue.usedLength;
      const fault = this.#take(number, queue.usedLength);
      if (fault === undefined) return true;
      this.release();
      this.dropped += 1;
      this.#quirk(`a received packet was dropped: ${fault}`);
    }
    return false;
  }

  /** Gives the buffers of the packet back. The device sees them after a kick. */
  release(): void {
    for (let i = 0; i < this.pieces; i += 1) this.#queue.repost(this.numbers[i] as number);
    this.pieces = 0;
  }

  /** Takes the other pieces of a packet; returns what is wrong with it. */
  #take(first: number, used: number): string | undefined {
    const queue = this.#queue;
    const { size } = this.#codec;
    if (used < size) return `it has ${used} bytes, fewer than the ${size} of its header`;
    const header = queue.buffer(first);
    const count = this.#codec.numBuffers(header);
    if (count === 0) return 'num_buffers is 0';
    this.length = used - size;
    let last = used;
    while (this.pieces < count) {
      if (last < queue.bufferSize) {
        return `num_buffers is ${count}, but buffer ${this.pieces} holds only ${last} of ${queue.bufferSize} bytes [5.1.9.4.1]`;
      }
      const number = this.pieces < queue.buffers ? queue.pop() : -1;
      if (number < 0) return `num_buffers is ${count}, but the device used only ${this.pieces}`;
      last = queue.usedLength;
      this.numbers[this.pieces] = number;
      this.lengths[this.pieces] = last;
      this.pieces += 1;
      this.length += last;
    }
    return this.#codec.fault(header, this.length);
  }
}
