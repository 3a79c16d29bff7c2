/**
 * An open PCM stream: what playback and capture have in common. It keeps periods with the device and moves bytes between them and its
 * caller; commands go through the state machine of the specification.
 */
import {
  requireWaitable,
  type SpinOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { type PcmParameters, streamCommand } from './commands.ts';
import type { ControlQueue } from './control-queue.ts';
import { frameBits, framesOfBytes, type FrameShape, type PcmFormatName } from './formats.ts';
import type { StreamInfo } from './info.ts';
import type { PcmState } from './pcm-state.ts';
import type { PeriodOwner, PeriodQueue } from './period-queue.ts';
import { SoundStatus, statusName } from './protocol.ts';
import { ask, carryOut, carryOutSync, type Pause, type Step, type Steps } from './steps.ts';

/** What an open stream needs of its driver. */
export interface PcmStreamParts {
  readonly transport: Transport;
  readonly commands: ControlQueue;
  readonly periods: PeriodQueue;
  readonly info: StreamInfo;
  readonly parameters: PcmParameters;
  /** The stream was closed: its number is free again. */
  readonly closed: () => void;
  /** The device ran out of periods. */
  readonly xrun: () => void;
  readonly quirk: (message: string) => void;
}

/** The parameters of an open stream. */
export interface OpenParameters extends PcmParameters {
  readonly format: PcmFormatName;
}

/** Stops and releases a stream, from whatever state. */
export function* releaseSteps(id: number, state: PcmState): Steps<void> {
  if (state === 'running') yield* ask(streamCommand(id, 'STOP'));
  if (state === 'running' || state === 'stopped' || state === 'prepared') {
    yield* ask(streamCommand(id, 'RELEASE'));
  }
  if (state !== 'unknown') return;
  for (const command of ['STOP', 'RELEASE'] as const) {
    try {
      yield* ask(streamCommand(id, command));
    } catch (error) {
      // A device that had done before what is asked now refuses it.
      if (!VirtioError.is(error, 'IO_ERROR') && !VirtioError.is(error, 'UNSUPPORTED')) throw error;
    }
  }
}

/** The base of {@link PlaybackStream} and {@link CaptureStream}. */
export abstract class PcmStream implements Disposable, AsyncDisposable {
  /** The number of the stream. */
  readonly id: number;
  /** What the stream can do. */
  readonly info: StreamInfo;
  /** The parameters with which it was opened. */
  readonly parameters: OpenParameters;
  /** How many periods the buffer has. */
  readonly periods: number;

  protected readonly transport: Transport;
  protected readonly queue: PeriodQueue;
  /** Periods that the device has. */
  protected withDevice = 0;
  /** What comes back is of no interest: the stream is being released. */
  protected releasing = false;
  /** The stream was paused by its caller, and goes on by its caller only. */
  protected paused = false;
  /** Counts releases: who waits for something from before one, waits in vain. */
  protected epoch = 0;
  /** The value of `queue.moves` when there last was no room in the queue; -1 if there was. */
  protected stuckAt = -1;
  /** Who reads or writes with a promise, in turn. */
  protected readonly line: object[] = [];

  readonly #commands: ControlQueue;
  readonly #parts: PcmStreamParts;
  readonly #eventXruns: boolean;
  readonly #polling: boolean;
  readonly #owner: PeriodOwner;
  #end: VirtioError | undefined;
  #latencyBytes = 0;
  #xruns = 0;
  #failedPeriods = 0;
  #error: VirtioError | undefined;

  protected constructor(parts: PcmStreamParts) {
    const { transport, commands, periods, info, parameters } = parts;
    this.#parts = parts;
    this.transport = transport;
    this.queue = periods;
    this.#commands = commands;
    this.id = info.id;
    this.#owner = {
      id: info.id,
      used: (data, length, status, latency) => this.#used(data, length, status, latency),
    };
    this.info = info;
    this.parameters = Object.freeze({ ...parameters }) as OpenParameters;
    this.periods = parameters.bufferBytes / parameters.periodBytes;
    this.#eventXruns = parameters.features?.includes('EVT_XRUNS') === true;
    this.#polling = parameters.features?.includes('MSG_POLLING') === true;
  }

  /** The state of the stream, as far as commands were sent. */
  get state(): PcmState {
    return this.#commands.state(this.id);
  }

  /** Whether it was closed, or lost by a reset: open it anew then. */
  get closed(): boolean {
    return this.#end !== undefined;
  }

  /** How samples lie in memory. */
  get shape(): FrameShape {
    return this.parameters;
  }

  /** The bytes of a frame. IMA ADPCM with an odd number of channels has half ones. */
  get frameBytes(): number {
    return frameBits(this.parameters) / 8;
  }

  /**
   * The delay in frames between what is written or read now and what is heard or said now: what is in the buffer, and what the device
   * says of itself, which is believed up to the size of the buffer.
   */
  get latency(): number {
    this.queue.drain();
    const hint = Math.min(this.#latencyBytes, this.parameters.bufferBytes);
    return framesOfBytes(this.parameters, this.bufferedBytes + hint);
  }

  /** How often the device failed to play or capture a period. */
  get failedPeriods(): number {
    this.queue.drain();
    return this.#failedPeriods;
  }

  /** Starts the stream, or goes on after {@link PcmStream.pause}. */
  start(options?: WaitOptions): Promise<void> {
    return this.run(this.startSteps(), options);
  }

  /** As {@link PcmStream.start}, spinning. */
  startSync(options?: SpinOptions): void {
    this.runSync(this.startSteps(), options);
  }

  /** Halts the stream. What is in the buffer stays there. */
  pause(options?: WaitOptions): Promise<void> {
    return this.run(this.pauseSteps(), options);
  }

  /** As {@link PcmStream.pause}, spinning. */
  pauseSync(options?: SpinOptions): void {
    this.runSync(this.pauseSteps(), options);
  }

  /** Stops the stream at once. The device gives its buffers back; playback throws away what was not played yet. */
  stop(options?: WaitOptions): Promise<void> {
    return this.run(this.stopSteps(), options);
  }

  /** As {@link PcmStream.stop}, spinning. */
  stopSync(options?: SpinOptions): void {
    this.runSync(this.stopSteps(), options);
  }

  /** Ends the stream in good order: playback plays out what was written. Its number is free again. */
  async close(options?: WaitOptions): Promise<void> {
    if (this.closed) return;
    try {
      await this.run(this.closeSteps(), options);
    } catch (error) {
      this.#closeAfter(error);
      throw error;
    }
    this[Symbol.dispose]();
  }

  /** As {@link PcmStream.close}, spinning. */
  closeSync(options?: SpinOptions): void {
    if (this.closed) return;
    try {
      this.runSync(this.closeSteps(), options);
    } catch (error) {
      this.#closeAfter(error);
      throw error;
    }
    this[Symbol.dispose]();
  }

  /** Ends the stream at once, without waiting: what was not played is lost. */
  [Symbol.dispose](): void {
    if (this.#end !== undefined) return;
    this.end(new VirtioError('DISPOSED', `${this.who()} is closed; open it anew`));
    if (this.queue.failure !== undefined) return;
    try {
      const { state } = this;
      if (state === 'running' || state === 'unknown') this.#forget('STOP');
      if (state !== 'released') this.#forget('RELEASE');
    } catch (error) {
      // The control queue is full or fails: who opens the stream next stops and releases it.
      if (!VirtioError.is(error)) throw error;
    }
    this.queue.abandon(this.#owner);
  }

  /** The same as {@link PcmStream.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal Ends the stream: it was closed, or the device reset. */
  end(error: VirtioError): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    this.#parts.closed();
    this.queue.wake();
  }

  /** @internal The device says that it ran out of periods. */
  countXrun(): void {
    this.#xruns += 1;
    this.#parts.xrun();
  }

  protected get xruns(): number {
    this.queue.drain();
    return this.#xruns;
  }

  /** The bytes between the caller and the device. */
  protected abstract get bufferedBytes(): number;

  /** A period came back whose data, if any, are good for `length` bytes. */
  protected abstract arrived(data: Uint8Array, length: number): void;

  /** Before the stream starts. */
  protected abstract beforeStart(): void;

  /** The stream was released. */
  protected abstract afterRelease(): void;

  protected abstract closeSteps(): Steps<void>;

  /** The device of the stream, for messages. */
  protected who(): string {
    return `${this.transport.who()}: stream ${this.id}`;
  }

  /** Throws if the stream is closed, the device no longer works, or a period failed since the last call. */
  protected check(): void {
    this.queue.drain();
    if (this.queue.failure !== undefined) throw this.queue.failure;
    if (this.#end !== undefined) throw this.#end;
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
  }

  /**
   * Gives the device a period.
   *
   * @returns false if there is no room now
   */
  protected post(data: Uint8Array | undefined, length: number): boolean {
    if (this.withDevice >= this.periods || this.stuckAt === this.queue.moves) return false;
    if (!this.queue.post(this.#owner, data, length)) {
      this.stuckAt = this.queue.moves;
      return false;
    }
    this.stuckAt = -1;
    this.withDevice += 1;
    return true;
  }

  /** Whether another period may find room. */
  protected get mayPost(): boolean {
    return this.withDevice < this.periods && this.stuckAt !== this.queue.moves;
  }

  /** Shows the device what was posted. */
  protected announce(): void {
    this.queue.announce(this.#polling);
  }

  protected *command(command: 'PREPARE' | 'START' | 'STOP' | 'RELEASE'): Steps<void> {
    yield* ask(streamCommand(this.id, command));
  }

  protected *startSteps(): Steps<void> {
    this.check();
    this.paused = false;
    if (this.state === 'running') return;
    if (this.state === 'released') yield* this.command('PREPARE');
    this.check();
    this.beforeStart();
    yield* this.command('START');
  }

  protected *stopSteps(): Steps<void> {
    this.check();
    yield* this.releaseSteps();
  }

  /** Stops and releases the stream, from whatever state. */
  protected *releaseSteps(): Steps<void> {
    this.epoch += 1;
    this.paused = false;
    this.releasing = true;
    try {
      yield* releaseSteps(this.id, this.state);
      this.queue.drain();
      if (this.withDevice > 0) {
        // 5.14.6.6.5.1: the device must have given them back. Linux waits for them; here their memory is the slots'.
        this.#parts.quirk(
          `stream ${this.id} was released with ${this.withDevice} periods still with the device`,
        );
        this.queue.abandon(this.#owner);
        this.withDevice = 0;
      }
      this.afterRelease();
    } finally {
      this.releasing = false;
    }
    this.queue.wake();
  }

  /** Waits for the turn of whoever asked; {@link PcmStream.leave} lets the next one in. */
  protected *turn(me: object): Steps<void> {
    this.line.push(me);
    if (this.line[0] === me) return;
    yield this.until(() => this.line[0] === me, 'the turn of this call');
  }

  protected leave(me: object): void {
    const place = this.line.indexOf(me);
    if (place >= 0) this.line.splice(place, 1);
    if (this.line.length > 0) this.queue.wake();
  }

  protected until(until: () => boolean, awaited: string): Pause {
    return { until, awaited: `${awaited} of stream ${this.id}`, at: this.queue };
  }

  protected async run<T>(steps: Steps<T>, options?: WaitOptions): Promise<T> {
    requireWaitable(this.transport, options);
    return carryOut(steps, (step) => this.#perform(step, options));
  }

  protected runSync<T>(steps: Steps<T>, options?: SpinOptions): T {
    if (this.line.length > 0) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.who()} is being read or written by a call with a promise; wait for that first`,
      );
    }
    return carryOutSync(steps, (step) => {
      if ('code' in step) return this.#commands.requestSync(step, options);
      this.queue.spin(() => this.#ended(step), step.awaited, options);
      return undefined;
    });
  }

  async #perform(step: Step, options?: WaitOptions): Promise<unknown> {
    if ('code' in step) return this.#commands.request(step, options);
    for (;;) {
      this.queue.drain();
      if (this.#ended(step)) return undefined;
      await this.queue.wait(options);
    }
  }

  /** Whether a wait has come to its end, or the stream to its own. */
  #ended({ until }: Pause): boolean {
    if (this.#end !== undefined) throw this.#end;
    return this.#error !== undefined || until();
  }

  private *pauseSteps(): Steps<void> {
    this.check();
    const before = this.paused;
    // Said before the command is: who writes meanwhile must not start the stream.
    this.paused = true;
    try {
      yield* this.command('STOP');
    } catch (error) {
      this.paused = before;
      throw error;
    }
  }

  /** What closing failed with: unless the caller gave up, and may try again, the stream ends all the same. */
  #closeAfter(error: unknown): void {
    const gaveUp = VirtioError.is(error, 'ABORTED') || VirtioError.is(error, 'NOT_READY');
    if (!gaveUp && !VirtioError.is(error, 'ALREADY_USED') && !VirtioError.is(error, 'UNSUPPORTED')) {
      this[Symbol.dispose]();
    }
  }

  /** Sends a command that nobody waits for. */
  #forget(command: 'STOP' | 'RELEASE'): void {
    // Given up before the device is told: it may answer inside the notification, and a listener there take the result.
    this.#commands.cancel(this.#commands.submit(streamCommand(this.id, command), { kick: false }));
    this.#commands.kick();
  }

  #used(data: Uint8Array, length: number, status: number, latency: number): void {
    this.withDevice -= 1;
    this.#latencyBytes = latency;
    if (status !== SoundStatus.OK && !this.releasing) {
      this.#failedPeriods += 1;
      this.#error ??= new VirtioError(
        'IO_ERROR',
        `${this.who()}: the device answered a period with ${statusName(status)}: its frames are lost. Go on, or stop() and see what the host says`,
      );
    }
    this.arrived(data, status === SoundStatus.OK ? length : 0);
    if (this.withDevice === 0 && this.starves && !this.#eventXruns) this.countXrun();
  }

  /** Whether a device without periods misses them. */
  protected get starves(): boolean {
    return !this.releasing && this.state === 'running';
  }
}
