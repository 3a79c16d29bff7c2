/**
 * Capture: every period of the buffer is either with the device, or holds captured frames until they are read, in order.
 */
import { requireBytes, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import { copyPart } from './copy.ts';
import { wholeFrameBytes } from './pcm-data.ts';
import { PcmStream, type PcmStreamParts } from './pcm-stream.ts';
import type { Steps } from './steps.ts';
import { type ReadableStreamClass, readableOf } from './streams.ts';

/** How many periods in a row may come back without frames before a call that waits for frames gives up. */
const MAX_EMPTY = 1024;

/**
 * An open capture stream.
 *
 * @example
 * ```ts
 * import type { VirtioSound } from '@virtio/sound';
 *
 * // A second of what the microphone hears, mono.
 * export async function listen(sound: VirtioSound): Promise<Int16Array> {
 *   using stream = await sound.openCapture({ format: 'S16', rate: 48_000, channels: 1 });
 *   const samples = new Int16Array(48_000);
 *   const bytes = new Uint8Array(samples.buffer);
 *   for (let at = 0; at < bytes.length;) at += await stream.read(bytes.subarray(at));
 *   return samples;
 * }
 * ```
 */
export class CaptureStream extends PcmStream {
  /** Captured periods that were not read, the oldest at `#head`. */
  readonly #ring: readonly Uint8Array[];
  readonly #lengths: Int32Array;
  /** The smallest number of bytes that are whole frames. */
  readonly #unit: number;
  #head = 0;
  #filled = 0;
  /** How many bytes of the oldest period were read. */
  #offset = 0;
  #readable = 0;
  /** How many periods in a row came back without frames. */
  #empty = 0;
  /** The stream was stopped: no more frames will follow. */
  #ended = false;

  /** @internal use `VirtioSound.openCapture` */
  constructor(parts: PcmStreamParts) {
    super(parts);
    const { periodBytes } = parts.parameters;
    this.#ring = Array.from({ length: this.periods }, () => new Uint8Array(periodBytes));
    this.#lengths = new Int32Array(this.periods);
    this.#unit = wholeFrameBytes(this.frameBytes);
  }

  /** How often the device ran out of periods while the stream ran, as frames were not read: each time, frames were lost. */
  get overruns(): number {
    return this.xruns;
  }

  /** The number of bytes that can be read now without waiting. */
  get readableBytes(): number {
    this.queue.drain();
    return this.#readable;
  }

  /**
   * Reads frames, and starts the stream if it was not started since it was opened. Waits until there is at least one byte.
   *
   * @param into is filled from its start with what there is. With room for whole frames, it gets whole frames
   * @returns the number of bytes read; 0 only after `stop`, when all captured frames have been read
   * @throws {@link VirtioError} `IO_ERROR` if the device failed to capture a period since the last call, or returns only empty ones;
   * `INVALID_PARAM` if the array was detached or resized meanwhile, `ABORTED`, `UNSUPPORTED` without interrupts, `DISPOSED`, or why the
   * device no longer works
   */
  read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    return this.run(this.#read(into), options);
  }

  /** As {@link CaptureStream.read}, spinning; `NOT_READY` after `timeoutMs`. */
  readSync(into: Uint8Array, options?: SpinOptions): number {
    return this.runSync(this.#read(into), options);
  }

  /**
   * Reads what there is now, without starting the stream.
   *
   * @returns the number of bytes read; 0 if there is nothing now
   * @throws {@link VirtioError} as {@link CaptureStream.read}
   */
  submitRead(into: Uint8Array): number {
    requireBytes(this.transport, into);
    this.check();
    // Who reads with a promise is first.
    if (this.line.length > 0) return 0;
    const count = this.#take(into);
    this.#refill();
    return count;
  }

  /**
   * A Web Stream of captured frames: its chunks are periods. Cancelling it stops this stream.
   *
   * @param ReadableStream the class of the platform, or of a library
   */
  readable<S>(ReadableStream: ReadableStreamClass<S>): S {
    return readableOf(this, ReadableStream);
  }

  protected override get bufferedBytes(): number {
    return this.#readable;
  }

  protected override arrived(data: Uint8Array, length: number): void {
    // Part of a frame would shift all that follows.
    const whole = length - (length % this.#unit);
    if (whole < length) this.quirk(`a period was captured with ${length} bytes, which are no whole frames`);
    if (whole === 0) {
      this.#empty += 1;
      return;
    }
    this.#empty = 0;
    let place = this.#head + this.#filled;
    if (place >= this.periods) place -= this.periods;
    // All of the memory, as that needs no view of a part; what is behind the captured bytes is never looked at.
    (this.#ring[place] as Uint8Array).set(data);
    this.#lengths[place] = whole;
    this.#filled += 1;
    this.#readable += whole;
  }

  protected override beforeStart(): void {
    this.#ended = false;
    this.#empty = 0;
    // 5.14.6.8.2.2: the queue is populated before the stream is started.
    this.#refill();
  }

  protected override afterResume(): void {
    this.#refill();
  }

  protected override afterRelease(): void {
    this.#ended = true;
  }

  protected override *closeSteps(): Steps<void> {
    yield* this.releaseSteps();
  }

  *#read(into: Uint8Array): Steps<number> {
    requireBytes(this.transport, into);
    const { length } = into;
    const me = {};
    try {
      yield* this.turn(me);
      this.check();
      if (this.state === 'prepared') yield* this.startSteps();
      for (;;) {
        this.requireUnchanged(into, length, 'what was captured can still be read');
        const count = this.#take(into);
        this.#refill();
        if (count > 0 || into.length === 0 || this.#ended) return count;
        if (this.#empty >= MAX_EMPTY) throw this.#silent();
        yield this.until(() => this.#readable > 0 || this.#ended || this.#hasEmpty, 'captured frames');
        this.check();
      }
    } finally {
      this.leave(me);
    }
  }

  /** Copies captured frames, as far as there is room. */
  #take(into: Uint8Array): number {
    let count = 0;
    while (this.#filled > 0 && count < into.length) {
      const length = this.#lengths[this.#head] as number;
      const period = this.#ring[this.#head] as Uint8Array;
      const part = Math.min(length - this.#offset, into.length - count);
      copyPart(period, this.#offset, part, into, count);
      count += part;
      this.#offset += part;
      if (this.#offset < length) break;
      this.#offset = 0;
      this.#filled -= 1;
      this.#head = this.#head + 1 === this.periods ? 0 : this.#head + 1;
    }
    this.#readable -= count;
    return count;
  }

  /** The error for a device that only returns empty periods, which would keep a call that waits for frames busy for ever. */
  #silent(): VirtioError {
    const count = this.#empty;
    this.#empty = 0;
    return new VirtioError(
      'IO_ERROR',
      `${this.who()}: the device returned ${count} periods in a row without frames; stop() it, and look at the host's log`,
    );
  }

  /** Whether there are empty periods to give to the device: it may return one without any frames. */
  get #hasEmpty(): boolean {
    return !this.releasing && this.mayPost && this.withDevice + this.#filled < this.periods;
  }

  /** Gives the device all empty periods. */
  #refill(): void {
    if (this.#ended || this.releasing) return;
    let posted = false;
    while (
      this.withDevice + this.#filled < this.periods &&
      this.post(undefined, this.parameters.periodBytes)
    ) {
      posted = true;
    }
    if (posted) this.announce();
  }
}
