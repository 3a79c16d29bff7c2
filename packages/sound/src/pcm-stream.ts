/**
 * An open PCM stream: the common part of playback and capture. It gives periods to the device and copies bytes between them and its
 * caller; commands follow the state machine of the specification.
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

/** What an open stream needs from its driver. */
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

/** Stops and releases a stream, from any state. */
export function* releaseSteps(id: number, commands: ControlQueue): Steps<void> {
  const state = commands.state(id);
  if (state === 'running') yield* ask(streamCommand(id, 'STOP'));
  if (state === 'running' || state === 'stopped' || state === 'prepared') {
    yield* ask(streamCommand(id, 'RELEASE'));
  }
  if (state !== 'unknown') return;
  // STOP only where it should fit: out of order it ends vhost-device-sound (with PipeWire).
  const assumed = commands.assumed(id);
  if (assumed === 'running' || assumed === 'unknown') yield* tolerant(id, 'STOP');
  if (yield* tolerant(id, 'RELEASE')) return;
  if (assumed === 'prepared' || assumed === 'stopped') {
    yield* tolerant(id, 'STOP');
    if (yield* tolerant(id, 'RELEASE')) return;
  }
  // There was nothing to release. After a reset, it is known again.
  if (commands.state(id) === 'unknown') commands.conclude(id, 'released');
}

/** Sends a command that the device may refuse, as it may have carried it out before; returns whether it obeyed. */
function* tolerant(id: number, command: 'STOP' | 'RELEASE'): Steps<boolean> {
  try {
    yield* ask(streamCommand(id, command));
    return true;
  } catch (error) {
    if (!VirtioError.is(error, 'IO_ERROR') && !VirtioError.is(error, 'UNSUPPORTED')) throw error;
    return false;
  }
}

/** The base class of {@link PlaybackStream} and {@link CaptureStream}. */
export abstract class PcmStream implements Disposable, AsyncDisposable {
  /** The number of the stream. */
  readonly id: number;
  /** The stream's capabilities. */
  readonly info: StreamInfo;
  /** The parameters with which it was opened. */
  readonly parameters: OpenParameters;
  /** The number of periods in the buffer. */
  readonly periods: number;

  protected readonly transport: Transport;
  protected readonly queue: PeriodQueue;
  /** Periods that the device has. */
  protected withDevice = 0;
  /** The stream is being released: returned periods are ignored. */
  protected releasing = false;
  /** The stream was paused by its caller, and continues only when the caller starts it. */
  protected paused = false;
  /** A START that continues a stopped stream is with the device. */
  #resuming = false;
  /** Counts releases: a wait that began before a release ends with it. */
  protected epoch = 0;
  /** The value of `queue.moves` when there last was no room in the queue; -1 if there was. */
  protected stuckAt = -1;
  /** The callers that read or write with a promise, in order. */
  protected readonly line: object[] = [];

  readonly #commands: ControlQueue;
  readonly #parts: PcmStreamParts;
  readonly #eventXruns: boolean;
  readonly #polling: boolean;
  readonly #owner: PeriodOwner;
  #end: VirtioError | undefined;
  /** Whether {@link PcmStream.close} has ended it. */
  #wasClosed = false;
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

  /** The state of the stream after the commands that were sent. */
  get state(): PcmState {
    return this.#commands.state(this.id);
  }

  /** Whether it was closed, or lost by a reset; then open it again. */
  get closed(): boolean {
    return this.#end !== undefined;
  }

  /** The layout of samples in memory. */
  get shape(): FrameShape {
    return this.parameters;
  }

  /** The size of a frame in bytes; not a whole number for IMA ADPCM with an odd number of channels. */
  get frameBytes(): number {
    return frameBits(this.parameters) / 8;
  }

  /**
   * The delay, in frames, between a frame that is written or read now and its sound: the frames in the buffer, and the latency that the
   * device reports, which is limited to the size of the buffer.
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

  /** Starts the stream, or continues it after {@link PcmStream.pause}. */
  start(options?: WaitOptions): Promise<void> {
    return this.run(this.startSteps(), options);
  }

  /** As {@link PcmStream.start}, spinning. */
  startSync(options?: SpinOptions): void {
    this.runSync(this.startSteps(), options);
  }

  /** Pauses the stream. The buffer keeps its frames. */
  pause(options?: WaitOptions): Promise<void> {
    return this.run(this.pauseSteps(), options);
  }

  /** As {@link PcmStream.pause}, spinning. */
  pauseSync(options?: SpinOptions): void {
    this.runSync(this.pauseSteps(), options);
  }

  /**
   * Stops the stream at once. The device gives its buffers back; playback drops frames that were not played yet. A period that failed
   * since the last call is not reported.
   */
  stop(options?: WaitOptions): Promise<void> {
    return this.run(this.stopSteps(), options);
  }

  /** As {@link PcmStream.stop}, spinning. */
  stopSync(options?: SpinOptions): void {
    this.runSync(this.stopSteps(), options);
  }

  /**
   * Closes the stream; playback first plays all frames that were written, unless it is paused or in an unknown state. The stream can then be opened again. A call
   * that was refused, cancelled, or took too long leaves it open.
   */
  async close(options?: WaitOptions): Promise<void> {
    if (this.closed) return;
    try {
      await this.run(this.closeSteps(), options);
    } catch (error) {
      // Another call was before this one.
      if (this.#wasClosed) return;
      this.#closeAfter(error);
      throw error;
    }
    this.#wasClosed = true;
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
    this.#wasClosed = true;
    this[Symbol.dispose]();
  }

  /** Closes the stream at once, without waiting: frames that were not played are lost. */
  [Symbol.dispose](): void {
    if (this.#end !== undefined) return;
    this.end(new VirtioError('DISPOSED', `${this.who()} was closed; open it again`));
    if (this.queue.failure !== undefined) return;
    try {
      const state = this.#commands.assumed(this.id);
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

  /** @internal The state has changed: calls that wait look again. */
  look(): void {
    this.queue.wake();
  }

  /** @internal The device reported that it ran out of periods. */
  countXrun(): void {
    this.#xruns += 1;
    this.#parts.xrun();
  }

  protected get xruns(): number {
    this.queue.drain();
    return this.#xruns;
  }

  /** The number of bytes between the caller and the device. */
  protected abstract get bufferedBytes(): number;

  /** A period came back; `length` bytes of its data, if any, are valid. */
  protected abstract arrived(data: Uint8Array, length: number): void;

  /** Called before the stream starts. */
  protected abstract beforeStart(): void;

  /** Called when the stream runs again after it was stopped. */
  protected abstract afterResume(): void;

  /** Called when the stream was released. */
  protected abstract afterRelease(): void;

  protected abstract closeSteps(): Steps<void>;

  /** Counts what the device did wrong, and nothing was at risk. */
  protected quirk(message: string): void {
    this.#parts.quirk(`stream ${this.id}: ${message}`);
  }

  /** Refuses an array that its caller detached or resized while the stream waited. */
  protected requireUnchanged(bytes: Uint8Array, length: number, rest: string): void {
    if (bytes.length === length) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.who()}: the array was detached or resized while the call waited, so ${rest}; do not change it before the call has ended`,
    );
  }

  /** The stream's name in messages. */
  protected who(): string {
    return `${this.transport.who()}: stream ${this.id}`;
  }

  /** Throws if the stream is closed, the device no longer works, or a period failed since the last call. */
  protected check(): void {
    this.#checkUsable();
    const error = this.#error;
    this.#error = undefined;
    if (error !== undefined) throw error;
  }

  /** Throws if the stream is closed, or the device no longer works. */
  #checkUsable(): void {
    this.queue.drain();
    if (this.queue.failure !== undefined) throw this.queue.failure;
    this.#requireOpen();
  }

  /**
   * Gives the device a period.
   *
   * @returns false if there is no room now
   */
  protected post(data: Uint8Array | undefined, length: number): boolean {
    if (!this.mayPost) return false;
    if (!this.queue.post(this.#owner, data, length)) {
      this.stuckAt = this.queue.moves;
      return false;
    }
    this.stuckAt = -1;
    this.withDevice += 1;
    return true;
  }

  /** Whether there may be room for another period. */
  protected get mayPost(): boolean {
    return this.withDevice < this.periods && this.stuckAt !== this.queue.moves && this.takesPeriods;
  }

  /**
   * Whether the device takes periods now. 5.14.6.6.1 has them after PREPARE and after START, not after STOP, nor where it may have been
   * stopped; vhost-device-sound crashes on them there.
   */
  protected get takesPeriods(): boolean {
    const { state } = this;
    return !this.#resuming && (state === 'prepared' || state === 'running');
  }

  /** Notifies the device of the periods that were posted. */
  protected announce(): void {
    this.queue.announce(this.#polling);
  }

  protected *command(command: 'PREPARE' | 'START' | 'STOP' | 'RELEASE'): Steps<void> {
    yield* ask(streamCommand(this.id, command));
  }

  protected *startSteps(): Steps<void> {
    this.check();
    yield* this.untilReleased();
    this.paused = false;
    if (this.state === 'running') return;
    if (this.state === 'released') yield* this.command('PREPARE');
    yield* this.prepareAgain();
    this.check();
    this.beforeStart();
    yield* this.startCommand();
  }

  /** Sends START. In the meantime another call may have sent it: the control queue may be full. */
  protected *startCommand(): Steps<void> {
    const resumes = this.state === 'stopped' || this.state === 'unknown';
    this.#resuming ||= resumes;
    try {
      yield* this.command('START');
    } catch (error) {
      if (!VirtioError.is(error, 'INVALID_PARAM') || this.state !== 'running') throw error;
    } finally {
      if (resumes) {
        this.#resuming = false;
        this.queue.wake();
      }
    }
    if (resumes) this.afterResume();
  }

  /** Prepares a stream that was stopped when it had nothing left, so that it takes periods before it is started. */
  protected *prepareAgain(): Steps<void> {
    if (this.state !== 'stopped' || this.withDevice > 0) return;
    this.releasing = true;
    try {
      yield* this.command('RELEASE');
      yield* this.command('PREPARE');
    } finally {
      this.releasing = false;
      this.queue.wake();
    }
  }

  /** Waits while another call stops the stream. */
  protected *untilReleased(): Steps<void> {
    while (this.releasing) {
      yield this.until(() => !this.releasing, 'the release');
      this.check();
    }
  }

  protected *stopSteps(): Steps<void> {
    this.#checkUsable();
    // The stream stops all the same if a period has failed: its frames would be dropped now.
    this.#error = undefined;
    yield* this.releaseSteps();
  }

  /** Stops and releases the stream, from whatever state. */
  protected *releaseSteps(): Steps<void> {
    yield* this.untilReleased();
    this.epoch += 1;
    this.paused = false;
    this.releasing = true;
    try {
      yield* releaseSteps(this.id, this.#commands);
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
      this.queue.wake();
    }
  }

  /** Waits for the caller's turn; {@link PcmStream.leave} lets the next caller in. */
  protected *turn(me: object): Steps<void> {
    this.line.push(me);
    while (this.line[0] !== me) {
      yield this.until(() => this.line[0] === me, 'the turn of this call');
      // A period that failed ends the wait of all callers, and one of them gets the error.
      this.check();
    }
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
    this.queue.checkSpin(options);
    if (this.line.length > 0 || this.releasing) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.who()} is being ${this.releasing ? 'stopped' : 'read or written'} by a call that has not ended; wait for that first`,
      );
    }
    return carryOutSync(steps, (step) => {
      if ('code' in step) {
        this.#requireOpen();
        return this.#commands.requestSync(step, options);
      }
      this.queue.spin(() => this.#ended(step), step.awaited, options);
      return undefined;
    });
  }

  async #perform(step: Step, options?: WaitOptions): Promise<unknown> {
    if ('code' in step) {
      this.#requireOpen();
      return this.#commands.request(step, options);
    }
    for (;;) {
      // Also after a wait: who has cancelled it takes nothing.
      requireWaitable(this.transport, options);
      this.queue.drain();
      if (this.#ended(step)) return undefined;
      await this.queue.wait(options);
    }
  }

  /** Throws if the stream has ended: its number may belong to another one, which must not get the commands of this one. */
  #requireOpen(): void {
    if (this.#end !== undefined) throw this.#end;
  }

  /** Whether a wait, or the stream, has ended. */
  #ended({ until }: Pause): boolean {
    this.#requireOpen();
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

  /** Handles an error of closing: the stream ends all the same, unless the call was refused or given up, and may be tried again. */
  #closeAfter(error: unknown): void {
    const gaveUp = ['ABORTED', 'NOT_READY', 'ALREADY_USED', 'UNSUPPORTED', 'INVALID_PARAM'] as const;
    if (!gaveUp.some((code) => VirtioError.is(error, code))) this[Symbol.dispose]();
  }

  /** Sends a command without waiting for its answer. */
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
        `${this.who()}: the device answered a period with ${statusName(status)}: its frames are lost. Continue, or stop() and look at the host's log`,
      );
    }
    this.arrived(data, status === SoundStatus.OK ? length : 0);
    if (this.withDevice === 0 && this.starves && !this.#eventXruns) this.countXrun();
  }

  /** Whether running out of periods is an xrun now. */
  protected get starves(): boolean {
    return !this.releasing && this.state === 'running';
  }
}
