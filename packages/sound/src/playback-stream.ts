/**
 * Playback: written frames are gathered into whole periods, which are given to the device when they are full; the last one is filled
 * with silence. 5.14.6.8.1.2 allows it to be shorter, but crosvm answers that with an error, and Linux's driver never does it. The stream starts by itself when its buffer is full; `drain` starts it earlier.
 */
import { type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import { copyPart } from './copy.ts';
import { isWholeFrames } from './formats.ts';
import { bytesFor } from './pcm-data.ts';
import { PcmStream, type PcmStreamParts } from './pcm-stream.ts';
import { fillSilence, type PcmData } from './samples.ts';
import type { Steps } from './steps.ts';
import { type WritableStreamClass, writableOf } from './streams.ts';

/**
 * An open playback stream.
 *
 * @example
 * ```ts
 * import type { VirtioSound } from '@virtio/sound';
 *
 * // A second of a tone.
 * export async function beep(sound: VirtioSound): Promise<void> {
 *   await using stream = await sound.openPlayback({ format: 'S16', rate: 48_000, channels: 1 });
 *   const tone = Int16Array.from({ length: 48_000 }, (_, n) => 10_000 * Math.sin((2 * Math.PI * 440 * n) / 48_000));
 *   await stream.write(tone);
 * } // closing plays out what was written
 * ```
 */
export class PlaybackStream extends PcmStream {
  readonly #staged: Uint8Array;
  #stagedLength = 0;
  #draining = false;
  /** The written bytes of the periods that the device has: all are full, except the last one before the end. */
  #bytesWithDevice = 0;
  #lastPeriod = 0;

  /** @internal use `VirtioSound.openPlayback` */
  constructor(parts: PcmStreamParts) {
    super(parts);
    this.#staged = new Uint8Array(parts.parameters.periodBytes);
  }

  /** How often the device ran out of periods while the stream ran: each time, there was a gap in the sound. */
  get underruns(): number {
    return this.xruns;
  }

  /** The number of bytes that can be written now without waiting. */
  get writableBytes(): number {
    this.queue.drain();
    const { periodBytes } = this.parameters;
    const free = this.takesPeriods ? Math.min(this.periods, this.queue.capacity) - this.withDevice : 0;
    return Math.max(0, free) * periodBytes + periodBytes - this.#stagedLength;
  }

  /**
   * Writes frames, and waits until all of them are in the buffer: until the device has used enough earlier periods. Calls wait for each
   * other. The array must not change until then.
   *
   * @param data whole frames: bytes in the stream's format, or an array of integers or floats of the stream's format
   * @param options a signal that cancels the wait; some of the frames may be in the buffer then
   * @throws {@link VirtioError} `INVALID_PARAM` for a part of a frame, elements of another format, or an array that was detached or resized
   * meanwhile; `IO_ERROR` if the device failed to play a period since the last call,
   * `ABORTED` if cancelled or by `stop`, `UNSUPPORTED` without interrupts, `DISPOSED`, or why the device no longer works
   */
  write(data: PcmData, options?: WaitOptions): Promise<void> {
    return this.run(this.#write(data), options);
  }

  /** As {@link PlaybackStream.write}, spinning; `NOT_READY` after `timeoutMs`. */
  writeSync(data: PcmData, options?: SpinOptions): void {
    this.runSync(this.#write(data), options);
  }

  /**
   * Writes as many frames as fit now, without starting the stream: call {@link PcmStream.start}, or `VirtioSound.control.submit` with
   * `streamCommand(id, 'START')`, when enough is in the buffer. While the stream is stopped only one period fits: after
   * {@link PlaybackStream.drain}, send RELEASE and PREPARE first if more is to be in the buffer at the start.
   *
   * @returns the number of bytes written: whole frames, from the start of `data`; 0 while the stream is being stopped
   * @throws {@link VirtioError} as {@link PlaybackStream.write}
   */
  submitWrite(data: PcmData): number {
    const bytes = this.#frames(data);
    this.check();
    // Who writes with a promise is first; and what is written while the stream stops would be dropped.
    if (this.line.length > 0 || this.releasing) return 0;
    this.#requirePrepared();
    return this.#accept(bytes, 0);
  }

  /**
   * Plays all frames that were written, and silence up to the end of a period, and then stops the stream. The device has used all of them when this returns; it does not report
   * when their sound has ended.
   *
   * @throws {@link VirtioError} as {@link PlaybackStream.write}; `INVALID_PARAM` if the stream is paused, or in an unknown state
   */
  drain(options?: WaitOptions): Promise<void> {
    return this.run(this.#drain(), options);
  }

  /** As {@link PlaybackStream.drain}, spinning; `NOT_READY` after `timeoutMs`. */
  drainSync(options?: SpinOptions): void {
    this.runSync(this.#drain(), options);
  }

  /**
   * A Web Stream to write to, with back-pressure. A frame may be split between two chunks. Closing it plays all written frames and leaves
   * this stream open; aborting it stops this stream.
   *
   * @param WritableStream the class of the platform, or of a library
   */
  writable<S>(WritableStream: WritableStreamClass<S>): S {
    return writableOf(this, WritableStream);
  }

  protected override get bufferedBytes(): number {
    return this.#bytesWithDevice + this.#stagedLength;
  }

  protected override get starves(): boolean {
    return super.starves && !this.#draining;
  }

  protected override arrived(): void {
    const { periodBytes } = this.parameters;
    // Only the last one before the end is shorter, and it comes back last.
    this.#bytesWithDevice -= this.withDevice === 0 && this.#lastPeriod > 0 ? this.#lastPeriod : periodBytes;
    if (this.withDevice === 0) {
      this.#bytesWithDevice = 0;
      this.#lastPeriod = 0;
    }
  }

  protected override beforeStart(): void {
    this.#postFull();
  }

  protected override afterResume(): void {
    this.#postFull();
  }

  protected override afterRelease(): void {
    this.#stagedLength = 0;
    this.#bytesWithDevice = 0;
    this.#lastPeriod = 0;
  }

  protected override *closeSteps(): Steps<void> {
    // A device that may be stopped may never play what it has.
    const plays = !this.paused && this.state !== 'unknown';
    if (plays && (this.withDevice > 0 || this.#stagedLength > 0)) yield* this.#drain();
    yield* this.releaseSteps();
  }

  #frames(data: PcmData): Uint8Array {
    const bytes = bytesFor(this.who(), this.parameters.format, data);
    if (isWholeFrames(this.parameters, bytes.length)) return bytes;
    const { format, channels } = this.parameters;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.who()}: ${bytes.length} bytes are not whole frames of ${channels} ${format} samples; a frame has ${this.frameBytes} bytes`,
    );
  }

  #requirePrepared(): void {
    const { state } = this;
    if (state === 'prepared' || state === 'running' || state === 'stopped') return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.who()} is ${state === 'unknown' ? 'in an unknown state' : state}, so no frames can be written; stop() it, then start() it`,
    );
  }

  *#write(data: PcmData): Steps<void> {
    const bytes = this.#frames(data);
    const { length } = bytes;
    const me = {};
    try {
      yield* this.turn(me);
      this.check();
      yield* this.untilReleased();
      const { epoch } = this;
      if (this.state === 'released') yield* this.command('PREPARE');
      // What is written to a paused stream waits until it is started.
      if (!this.paused) yield* this.prepareAgain();
      for (let at = 0; ;) {
        this.check();
        if (this.epoch !== epoch) throw this.#stopped();
        this.#requirePrepared();
        this.requireUnchanged(bytes, length, `its frames from byte ${at} on were not written`);
        at = this.#accept(bytes, at);
        if (this.#isFull && this.#startsItself) yield* this.startCommand();
        if (at >= length) return;
        yield this.until(() => this.#hasRoom || this.epoch !== epoch, 'room in the buffer');
      }
    } finally {
      this.leave(me);
    }
  }

  *#drain(): Steps<void> {
    const me = {};
    try {
      yield* this.turn(me);
      this.check();
      yield* this.untilReleased();
      const { epoch } = this;
      if (this.paused) {
        throw new VirtioError(
          'INVALID_PARAM',
          `${this.who()} is paused, so written frames are not played; start() it, or stop() it`,
        );
      }
      if (this.state === 'unknown') this.#requirePrepared();
      this.#draining = true;
      if (this.#stagedLength > 0) yield* this.prepareAgain();
      while (this.#stagedLength > 0) {
        this.#lastPeriod = this.#stagedLength;
        if (this.#post()) {
          this.announce();
          break;
        }
        this.#lastPeriod = 0;
        if (this.#startsItself) yield* this.startCommand();
        yield this.until(() => this.mayPost || this.epoch !== epoch, 'room for the last period');
        this.check();
        if (this.epoch !== epoch) throw this.#stopped();
      }
      if (this.withDevice > 0 && this.#startsItself) yield* this.startCommand();
      while (this.withDevice > 0) {
        yield this.until(() => this.withDevice === 0 || this.epoch !== epoch, 'the end of the frames');
        if (this.epoch !== epoch) throw this.#stopped();
        this.check();
      }
      if (this.state === 'running') yield* this.command('STOP');
    } finally {
      this.#draining = false;
      this.leave(me);
    }
  }

  #stopped(): VirtioError {
    return new VirtioError(
      'ABORTED',
      `${this.who()} was stopped while frames were being written or played; write them again`,
    );
  }

  /** Whether the device has all periods that it can have. */
  get #isFull(): boolean {
    return !this.mayPost;
  }

  get #startsItself(): boolean {
    return (
      !this.paused &&
      !this.releasing &&
      this.withDevice > 0 &&
      (this.state === 'prepared' || this.state === 'stopped')
    );
  }

  get #hasRoom(): boolean {
    return this.#stagedLength < this.#staged.length || this.mayPost;
  }

  /** Copies bytes from `at` on, as many as there is room for; returns where they end. */
  #accept(bytes: Uint8Array, at: number): number {
    const { periodBytes } = this.parameters;
    let posted = false;
    for (;;) {
      if (this.#stagedLength === periodBytes) {
        if (!this.#post()) break;
        posted = true;
      }
      if (at >= bytes.length) break;
      const count = Math.min(periodBytes - this.#stagedLength, bytes.length - at);
      copyPart(bytes, at, count, this.#staged, this.#stagedLength);
      this.#stagedLength += count;
      at += count;
    }
    if (posted) this.announce();
    return at;
  }

  /** Gives the device a whole period that was gathered while it took none. */
  #postFull(): void {
    if (this.#stagedLength === this.parameters.periodBytes && this.#post()) this.announce();
  }

  /** Gives the device the frames that were gathered, and silence after them. */
  #post(): boolean {
    const { format, periodBytes } = this.parameters;
    if (this.#stagedLength < periodBytes) fillSilence(format, this.#staged.subarray(this.#stagedLength));
    if (!this.post(this.#staged, periodBytes)) return false;
    this.#bytesWithDevice += this.#stagedLength;
    this.#stagedLength = 0;
    return true;
  }
}
