/**
 * A received packet in the driver's DMA memory: nothing is copied unless its holder asks for a copy, or the packet is spread over
 * several buffers. The device lacks its buffers until it is given back.
 */
import { VirtioError } from '@virtio/core';
import type { HeaderCodec, ReceiveHeader } from './header.ts';
import type { PacketAssembler } from './assembler.ts';

/** The queue that packets come from and go back to. */
export interface PacketSource {
  /** The number of the pair of queues. */
  readonly pair: number;
  readonly codec: HeaderCodec;
  /** Changes when the device was reset and all buffers went back to it. */
  readonly generation: number;
  /** The error of a driver that was disposed: the memory is gone. */
  readonly disposed: VirtioError | undefined;
  buffer(number: number): Uint8Array<ArrayBuffer>;
  /** Gives a buffer back. */
  giveBack(number: number): void;
}

/** A received packet. Give it back with {@link ReceivedPacket.release}, or hold it with `using`. */
export class ReceivedPacket implements Disposable {
  /** The length of the packet in bytes, from its Ethernet header to its end, without the frame check sequence. */
  length = 0;
  /** The number of buffers that it is spread over. */
  pieces = 0;

  readonly #source: PacketSource;
  #generation = 0;
  #first = 0;
  #firstLength = 0;
  /** Of the other buffers: number and length, in turn. */
  #others: readonly number[] = [];
  #joined: Uint8Array<ArrayBuffer> | undefined;
  #held = false;

  /** @internal */
  constructor(source: PacketSource) {
    this.#source = source;
  }

  /** @internal Takes the packet that an assembler has found. */
  take(assembler: PacketAssembler): this {
    const { pieces, numbers, lengths } = assembler;
    this.length = assembler.length;
    this.pieces = pieces;
    this.#generation = this.#source.generation;
    this.#first = numbers[0] as number;
    this.#firstLength = lengths[0] as number;
    this.#joined = undefined;
    this.#held = true;
    if (pieces > 1) {
      this.#others = Array.from(numbers.subarray(1, pieces)).flatMap((number, i) => [
        number,
        lengths[i + 1] as number,
      ]);
    }
    return this;
  }

  /** The pair of queues that it was received on. */
  get pair(): number {
    return this.#source.pair;
  }

  /** Whether it can still be read: it was not given back, and the device was not reset or disposed. */
  get isHeld(): boolean {
    return this.#held && this.#generation === this.#source.generation && this.#source.disposed === undefined;
  }

  /**
   * The memory that the packet lies in, at {@link ReceivedPacket.offset}: for loops that must not allocate. It belongs to the
   * packet until that is given back.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` after {@link ReceivedPacket.release}, `DEVICE_RESET` after a reset, `DISPOSED`
   */
  get bytes(): Uint8Array<ArrayBuffer> {
    this.#check();
    return this.pieces === 1 ? this.#source.buffer(this.#first) : (this.#joined ??= this.#join());
  }

  /** Where in {@link ReceivedPacket.bytes} the packet starts. */
  get offset(): number {
    return this.#source.codec.size;
  }

  /** A view of the packet's bytes, valid until the packet is given back. Throws as {@link ReceivedPacket.bytes}. */
  get data(): Uint8Array<ArrayBuffer> {
    const { offset } = this;
    return this.bytes.subarray(offset, offset + this.length);
  }

  /** What the device reports about the packet. Throws as {@link ReceivedPacket.bytes}. */
  get header(): ReceiveHeader {
    this.#check();
    return this.#source.codec.read(this.#source.buffer(this.#first), this.length);
  }

  /** A copy of the packet's bytes. Throws as {@link ReceivedPacket.bytes}. */
  copy(): Uint8Array<ArrayBuffer> {
    return this.data.slice();
  }

  /**
   * Copies the packet's bytes.
   *
   * @returns how many bytes were copied
   * @throws {@link VirtioError} `INVALID_PARAM` if there is less room; as {@link ReceivedPacket.bytes}
   */
  copyTo(target: Uint8Array, at = 0): number {
    if (!(Number.isInteger(at) && at >= 0 && at + this.length <= target.length)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `a packet of ${this.length} bytes does not fit into ${target.length} bytes at offset ${at}`,
      );
    }
    target.set(this.data, at);
    return this.length;
  }

  /** Gives the packet's buffers back to the device; its bytes can then no longer be read. A second call does nothing. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    const source = this.#source;
    if (this.#generation !== source.generation) return;
    source.giveBack(this.#first);
    if (this.pieces === 1) return;
    const others = this.#others;
    this.#others = [];
    for (let i = 0; i < others.length; i += 2) {
      // The device may have been reset inside the notification of the one before, and has all buffers again.
      if (this.#generation !== source.generation) return;
      source.giveBack(others[i] as number);
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }

  #join(): Uint8Array<ArrayBuffer> {
    const joined = new Uint8Array(this.#source.codec.size + this.length);
    joined.set(this.#source.buffer(this.#first).subarray(0, this.#firstLength));
    let at = this.#firstLength;
    for (let i = 0; i < this.#others.length; i += 2) {
      const length = this.#others[i + 1] as number;
      joined.set(this.#source.buffer(this.#others[i] as number).subarray(0, length), at);
      at += length;
    }
    return joined;
  }

  #check(): void {
    if (this.isHeld) return;
    const { disposed } = this.#source;
    if (disposed !== undefined) throw disposed;
    throw this.#held
      ? new VirtioError('DEVICE_RESET', 'the packet was lost when the device was reset')
      : new VirtioError('INVALID_PARAM', 'the packet was given back; read or copy() it before that');
  }
}
