/** Receives packets on one queue: takes them when asked, and lets their buffers go back. */
import type { ReceiveQueue, VirtioError } from '@virtio/core';
import { PacketAssembler } from './assembler.ts';
import type { HeaderCodec } from './header.ts';
import { type PacketSource, ReceivedPacket } from './received-packet.ts';

/** The parts of a {@link Receiver}. */
export interface ReceiverParts {
  readonly pair: number;
  readonly codec: HeaderCodec;
  /** Is called when the device wrote something that cannot be true. */
  readonly report: (error: VirtioError) => void;
  /** Is called when the device broke the specification and nothing was at risk. */
  readonly quirk: (message: string) => void;
}

/** The receiving half of a pair of queues. */
export class Receiver implements PacketSource {
  readonly pair: number;
  readonly codec: HeaderCodec;
  readonly queue: ReceiveQueue;
  generation = 0;

  readonly #assembler: PacketAssembler;
  readonly #report: (error: VirtioError) => void;
  /** Buffers that were given back and that the device may not know of. */
  #owed = 0;
  /** The packet that is lent to handlers of {@link Receiver.poll}, unless one of them is at it. */
  #lent: ReceivedPacket | undefined;

  /** @param createQueue makes the queue, with these functions of the receiver's */
  constructor(
    { pair, codec, report, quirk }: ReceiverParts,
    createQueue: (functions: { receive: () => boolean; restarted: () => void }) => ReceiveQueue,
  ) {
    this.pair = pair;
    this.codec = codec;
    this.#report = report;
    this.queue = createQueue({
      // Nothing is taken ahead: a caller that waits looks again, and packets that nobody takes stay in their buffers.
      receive: () => this.queue.queue.hasUsed(),
      restarted: () => {
        this.generation += 1;
      },
    });
    this.#assembler = new PacketAssembler(this.queue, codec, quirk);
    this.#lent = new ReceivedPacket(this);
  }

  /** How many packets were dropped. */
  get dropped(): number {
    return this.#assembler.dropped;
  }

  /** Whether the device has used a buffer that was not taken yet. */
  get isReady(): boolean {
    try {
      return this.queue.queue.hasUsed();
    } catch (error) {
      this.#report(error as VirtioError);
      throw error;
    }
  }

  get disposed(): VirtioError | undefined {
    const { failure } = this.queue;
    return failure?.code === 'DISPOSED' ? failure : undefined;
  }

  buffer(number: number): Uint8Array<ArrayBuffer> {
    return this.queue.buffer(number);
  }

  giveBack(number: number): void {
    // Of a device that failed nothing goes on; a reset gives it all buffers.
    if (this.queue.failure !== undefined) return;
    this.queue.repost(number);
    this.#owed += 1;
    // One notification for many; but not so many that the device runs out of buffers before the turn ends.
    if (this.#owed * 4 >= this.queue.buffers) this.#kick();
    else this.queue.kickSoon();
  }

  /** The next packet, if there is one. The caller releases it. */
  tryReceive(): ReceivedPacket | undefined {
    return this.#next() ? new ReceivedPacket(this).take(this.#assembler) : undefined;
  }

  /** Calls `handler` with each received packet, at most once for each buffer, and gives its buffers back afterwards. */
  poll(handler: (packet: ReceivedPacket) => void): number {
    const packet = this.#lent ?? new ReceivedPacket(this);
    this.#lent = undefined;
    const { queue, generation } = this;
    let count = 0;
    try {
      while (count < queue.buffers && this.#next()) {
        count += 1;
        packet.take(this.#assembler);
        try {
          handler(packet);
        } finally {
          packet.release();
        }
        // The handler may have ended or reset the driver.
        if (queue.failure !== undefined || this.generation !== generation) break;
      }
    } finally {
      this.#lent = packet;
      if (count > 0 && queue.failure === undefined) this.#kick();
    }
    return count;
  }

  #kick(): void {
    this.#owed = 0;
    this.queue.kick();
  }

  #next(): boolean {
    const { queue } = this;
    if (queue.failure !== undefined) throw queue.failure;
    try {
      if (this.#assembler.next()) return true;
      // A caller that finds nothing may spin now, so that the turn never ends: the device gets all buffers that were given back.
      this.#kick();
      return false;
    } catch (error) {
      this.#report(error as VirtioError);
      throw error;
    }
  }
}
