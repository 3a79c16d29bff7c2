/**
 * An event loop for an engine that has none: scheduled callbacks, timers, holds of drivers that wait for interrupts, and an idle
 * function. The engine itself runs its jobs (promise reactions), between two turns.
 */
import { requireInteger } from '@virtio/core';

/** What a {@link BareLoop} needs of the engine. */
export interface BareLoopOptions {
  /** Returns the milliseconds of a clock that never goes back; fractions are allowed. */
  readonly now: () => number;
  /**
   * Called when there is nothing to do: waits until an interrupt is pending, but at most `ms` milliseconds (`Infinity`: until an
   * interrupt). It may return earlier. Use `wfi` or `hlt` with a timer; a function that returns at once also works, and the loop
   * then polls.
   */
  readonly idle: (ms: number) => void;
  /** Calls the handlers of all pending interrupts, as `InterruptRouter.poll` does. Returns whether there were any. */
  readonly poll?: () => boolean;
  /** Runs the engine's jobs until there are none; used only by {@link BareLoop.run}. */
  readonly runJobs?: () => void;
}

/** The id of a timer of {@link BareLoop.setTimer}. */
export type TimerId = number;

const MAX_TIMER_MS = 0x7fff_ffff;

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * An event loop for an engine that has none.
 *
 * The engine runs its jobs, then a turn, and repeats that while turns return `true`. An error that a callback throws leaves
 * {@link BareLoop.turn}; the loop stays usable.
 *
 * @example
 * ```ts
 * import { BareLoop } from '@virtio/bare';
 *
 * export interface Engine {
 *   milliseconds(): number;
 *   waitForInterrupt(ms: number): void;
 *   runPendingJobs(): void; // JS_ExecutePendingJob, HostRunMicrotasks …
 * }
 *
 * export function main(engine: Engine, script: (loop: BareLoop) => Promise<void>): void {
 *   const loop = new BareLoop({
 *     now: () => engine.milliseconds(),
 *     idle: (ms) => engine.waitForInterrupt(ms),
 *     runJobs: () => engine.runPendingJobs(),
 *   });
 *   void script(loop);
 *   loop.run();
 * }
 * ```
 */
export class BareLoop {
  readonly #options: BareLoopOptions;
  readonly #timers = new Map<TimerId, Timer>();
  readonly #scheduled: (() => void)[] = [];
  #holds = 0;
  #nextTimer = 1;

  constructor(options: BareLoopOptions) {
    this.#options = options;
  }

  /** Whether the loop still has something to do or to wait for: scheduled callbacks, timers, or holds. */
  get alive(): boolean {
    return this.#scheduled.length > 0 || this.#timers.size > 0 || this.#holds > 0;
  }

  /** The number of holds now. */
  get holds(): number {
    return this.#holds;
  }

  /** Calls back in the next turn, as `setImmediate` does; for the option `schedule` of `PollingInterrupts`. */
  readonly schedule = (callback: () => void): void => {
    this.#scheduled.push(callback);
  };

  /** Records that a caller waits for an interrupt: this keeps the loop alive. */
  readonly hold = (): void => {
    this.#holds += 1;
  };

  /** Ends one {@link BareLoop.hold}. Does nothing without one: the next hold would not keep the loop alive. */
  readonly release = (): void => {
    if (this.#holds > 0) this.#holds -= 1;
  };

  /**
   * Calls back once, `ms` milliseconds from now or a little later. It keeps the loop alive.
   *
   * @param ms fractions are allowed
   * @throws VirtioError `INVALID_PARAM` unless `ms` is a number from 0 to 2^31 − 1
   */
  setTimer(callback: () => void, ms: number): TimerId {
    requireInteger('a timer', 'ms', typeof ms === 'number' ? Math.floor(ms) : ms, 0, MAX_TIMER_MS);
    const id = this.#nextTimer;
    this.#nextTimer += 1;
    this.#timers.set(id, { at: this.#options.now() + ms, callback });
    return id;
  }

  /** Cancels a timer. Does nothing if the id is unknown or the timer has fired. */
  clearTimer(id: TimerId): void {
    this.#timers.delete(id);
  }

  /**
   * Runs one turn: interrupt handlers, timers that are due, and callbacks that were scheduled before the turn began; if there were
   * none of these, the idle function.
   *
   * @returns whether another turn is needed
   */
  turn(): boolean {
    const scheduled = this.#scheduled;
    // Callbacks are taken one by one: one that throws leaves the others to the next turn, and one that runs turns itself, to wait for
    // something, leaves them to those.
    let left = scheduled.length;
    let busy = left > 0;
    if (this.#options.poll?.() === true) busy = true;
    if (this.#runTimers()) busy = true;
    for (; left > 0; left -= 1) scheduled.shift()?.();
    if (!busy && this.alive) this.#idle();
    return this.alive;
  }

  /** Runs jobs and turns until there is nothing left to wait for. */
  run(): void {
    do this.#options.runJobs?.();
    while (this.turn() || this.#afterJobs());
  }

  /** Jobs that the last turn left may make another turn necessary. */
  #afterJobs(): boolean {
    this.#options.runJobs?.();
    return this.alive;
  }

  #runTimers(): boolean {
    if (this.#timers.size === 0) return false;
    const now = this.#options.now();
    // Timers that a callback sets fire in a later turn, even if they are due at once.
    const last = this.#nextTimer;
    const due = [...this.#timers].filter(([, { at }]) => at <= now).sort((a, b) => a[1].at - b[1].at);
    for (const [id, { callback }] of due) {
      if (id < last && this.#timers.delete(id)) callback();
    }
    return due.length > 0;
  }

  #idle(): void {
    let next = Infinity;
    for (const { at } of this.#timers.values()) next = Math.min(next, at);
    const ms = next === Infinity ? Infinity : next - this.#options.now();
    if (ms > 0) this.#options.idle(ms);
  }
}
