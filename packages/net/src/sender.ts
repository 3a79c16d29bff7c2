/**
 * Sends packets on one queue: each is copied behind a header into a buffer of the queue's, or built there. Buffers that the device has
 * used are taken back when one is needed. Callers that wait for one are served in order.
 */
import {
  cancellable,
  requireBytes,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type Transport,
  type TransmitQueue,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { HeaderCodec, TransmitHeader } from './header.ts';

/** Options of all calls that send. */
export interface SendOptions {
  /** The pair of queues (default 0); less than `activePairs`. */
  readonly pair?: number;
  /** What the device must do with the packet (default: send it as it is). */
  readonly header?: TransmitHeader;
}

/** The parts of a {@link Sender}. */
export interface SenderParts {
  readonly transport: Transport;
  readonly queue: TransmitQueue;
  readonly codec: HeaderCodec;
  /** Refuses a packet beyond the MTU, unless the device cuts it. */
  readonly checkMtu: (frame: Uint8Array, isCut: boolean) => void;
  /** Refuses a pair that is not in use. */
  readonly checkPair: () => void;
}

/** A buffer to build a packet in. Send it, or give it back unsent; `using` does the latter. */
export class TransmitBuffer implements Disposable {
  /** Room for the packet. Its initial contents have no meaning. */
  readonly data: Uint8Array<ArrayBuffer>;
  readonly #send: (length: number, header: TransmitHeader | undefined) => void;
  readonly #kick: () => void;
  readonly #putBack: () => void;
  #taken = true;

  /** @internal use `VirtioNet.takeBuffer` */
  constructor(
    data: Uint8Array<ArrayBuffer>,
    send: (length: number, header: TransmitHeader | undefined) => void,
    kick: () => void,
    putBack: () => void,
  ) {
    this.data = data;
    this.#send = send;
    this.#kick = kick;
    this.#putBack = putBack;
  }

  /**
   * Sends the packet.
   *
   * @param length its length in bytes, from the start of {@link TransmitBuffer.data}
   * @param options `header`: what the device must do with it; `kick: false`: the device is not notified yet
   * @throws {@link VirtioError} `INVALID_PARAM`, also if it was sent or given back; `UNSUPPORTED`, `DEVICE_RESET`, or why the device
   * no longer works
   */
  send(length: number, options: { readonly header?: TransmitHeader; readonly kick?: boolean } = {}): void {
    if (!this.#taken) {
      throw new VirtioError('INVALID_PARAM', 'the buffer was sent or given back; take another');
    }
    this.#send(length, options.header);
    // Before the device is told: it may answer inside the notification, and the buffer be another caller's then.
    this.#taken = false;
    if (options.kick !== false) this.#kick();
  }

  /** Gives the buffer back if it was not sent. */
  [Symbol.dispose](): void {
    if (!this.#taken) return;
    this.#taken = false;
    this.#putBack();
  }
}

/** The sending half of a pair of queues. */
export class Sender {
  readonly queue: TransmitQueue;
  /** Changes when the device was reset and all buffers are free again. */
  generation = 0;

  readonly #transport: Transport;
  readonly #codec: HeaderCodec;
  readonly #checkMtu: (frame: Uint8Array, isCut: boolean) => void;
  readonly #checkPair: () => void;
  /** The callers that wait for a buffer, one after the other. */
  #line: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor({ transport, queue, codec, checkMtu, checkPair }: SenderParts) {
    this.#transport = transport;
    this.queue = queue;
    this.#codec = codec;
    this.#checkMtu = checkMtu;
    this.#checkPair = checkPair;
  }

  /** Whether a packet could be sent now. */
  get isReady(): boolean {
    const { queue } = this;
    if (queue.failure !== undefined || this.#waiting > 0) return false;
    if (queue.available === 0) queue.drain();
    return queue.available > 0;
  }

  /** The longest packet that a buffer holds. */
  get room(): number {
    return this.queue.bufferSize - this.#codec.size;
  }

  /** Sends a packet if there is a buffer for it and no other caller waits for one; a kick notifies the device. */
  trySend(frame: Uint8Array, header: TransmitHeader | undefined): boolean {
    this.#check(frame, header);
    return this.#waiting === 0 && this.#put(frame, header);
  }

  /** Sends a packet when it is its turn and there is a buffer. */
  async send(frame: Uint8Array, header: TransmitHeader | undefined, options?: WaitOptions): Promise<void> {
    this.#checkUsable();
    requireWaitable(this.#transport, options);
    if (this.trySend(frame, header)) {
      this.queue.kickSoon();
      return;
    }
    const { generation } = this;
    const { length } = frame;
    const sendWhenFree = async (): Promise<void> => {
      requireWaitable(this.#transport, options);
      for (;;) {
        if (generation !== this.generation) throw this.#wasReset();
        this.#checkUnchanged(frame, length);
        if (this.#put(frame, header)) break;
        await this.queue.wait(options);
      }
      this.queue.kickSoon();
    };
    await this.#inLine(sendWhenFree, options);
  }

  /** Sends a packet, spinning until there is a buffer. */
  sendSync(frame: Uint8Array, header: TransmitHeader | undefined, options?: SpinOptions): void {
    this.#check(frame, header);
    const { length } = frame;
    const put = (): boolean => {
      this.#checkUnchanged(frame, length);
      return this.#put(frame, header);
    };
    this.queue.spin(put, options, 'room for a packet');
    this.queue.kick();
  }

  /** A buffer to build a packet in, or `undefined`. */
  take(): TransmitBuffer | undefined {
    const { queue } = this;
    const number = this.#waiting > 0 ? -1 : queue.take();
    if (number < 0) return undefined;
    const { generation } = this;
    const bytes = queue.buffer(number);
    const { size } = this.#codec;
    return new TransmitBuffer(
      bytes.subarray(size),
      (length, header) => {
        this.#checkUsable();
        if (generation !== this.generation) throw this.#wasReset();
        this.#checkPair();
        requireInteger(this.#transport, 'length', length, 0, this.room);
        this.#check(bytes.subarray(size, size + length), header);
        this.#write(bytes, header, length);
        queue.send(number, size + length);
      },
      () => {
        queue.kick();
      },
      () => {
        if (generation === this.generation && queue.failure === undefined) queue.putBack(number);
      },
    );
  }

  /** Waits until the device has used all packets that were sent before, those that wait for room included. */
  async flush(options?: WaitOptions): Promise<void> {
    const { queue, generation } = this;
    this.#checkUsable();
    requireWaitable(this.#transport, options);
    // Not those that are sent meanwhile: others may send all the time.
    let { sends } = queue;
    const mark = (): Promise<void> => {
      sends = queue.sends;
      return Promise.resolve();
    };
    if (this.#waiting > 0) await this.#inLine(mark, options);
    for (;;) {
      this.#checkUsable();
      if (generation !== this.generation) throw this.#wasReset();
      queue.kick();
      queue.drain();
      if (queue.hasUsedFirst(sends)) return;
      await queue.wait(options);
    }
  }

  /** The same, spinning. */
  flushSync(options?: SpinOptions): void {
    const { queue } = this;
    this.#checkUsable();
    queue.kick();
    const { sends } = queue;
    queue.spin(
      () => {
        queue.drain();
        this.#checkUsable();
        return queue.hasUsedFirst(sends);
      },
      options,
      'all packets to be sent',
    );
  }

  /** Runs `send` when all before have run. A caller that cancels leaves at once; its turn then passes. */
  #inLine(send: () => Promise<void>, options: WaitOptions | undefined): Promise<void> {
    this.#waiting += 1;
    let left = false;
    const sent = this.#line
      .then(() => (left ? undefined : send()))
      .finally(() => {
        this.#waiting -= 1;
      });
    this.#line = sent.catch(() => undefined);
    return new Promise((resolve, reject) => {
      cancellable({ resolve, reject }, this.#transport, options?.signal, {
        enter: (waiter) => {
          sent.then(waiter.resolve, waiter.reject);
        },
        leave: () => {
          left = true;
        },
      });
    });
  }

  #checkUsable(): void {
    if (this.queue.failure !== undefined) throw this.queue.failure;
  }

  #wasReset(): VirtioError {
    return new VirtioError(
      'DEVICE_RESET',
      `${this.#transport.who()} was reset, and the packet was not sent: send it again`,
    );
  }

  #put(frame: Uint8Array, header: TransmitHeader | undefined): boolean {
    const { queue } = this;
    // The caller may have waited, and fewer pairs be in use.
    this.#checkPair();
    const number = queue.take();
    if (number < 0) return false;
    const bytes = queue.buffer(number);
    const { size } = this.#codec;
    try {
      this.#write(bytes, header, frame.length);
      bytes.set(frame, size);
    } catch (error) {
      queue.putBack(number);
      // An array whose memory is gone has no length; other errors are those of the header.
      throw VirtioError.is(error) || frame.length > 0 ? error : this.#isGone(error);
    }
    queue.send(number, size + frame.length);
    return true;
  }

  #write(bytes: Uint8Array, header: TransmitHeader | undefined, length: number): void {
    if (header === undefined) this.#codec.clear(bytes);
    else this.#codec.write(bytes, header, length);
  }

  /** The caller may have transferred or resized the array while it waited. */
  #checkUnchanged(frame: Uint8Array, length: number): void {
    if (frame.length !== length) throw this.#isGone(undefined);
  }

  #isGone(cause: unknown): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#transport.who()}: the memory of a packet was transferred or resized before it was sent; do not change it until then`,
      { cause },
    );
  }

  #check(frame: Uint8Array, header: TransmitHeader | undefined): void {
    requireBytes(this.#transport, frame);
    if (frame.length > this.room) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: cannot send a packet of ${frame.length} bytes: a transmit buffer holds ${this.room}; see transmitBufferSize`,
      );
    }
    this.#checkMtu(frame, header?.gso !== undefined);
  }
}
