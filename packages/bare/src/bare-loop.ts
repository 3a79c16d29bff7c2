/**
 * An event loop for an engine that has none: what is scheduled, timers, holds of drivers that wait for interrupts, and what is
 * done while there is nothing to do. Jobs (the reactions of promises) stay the engine's: it runs them between two turns.
 */
import { requireInteger } from '@virtio/core';

/** What a {@link BareLoop} needs of the engine. */
export interface BareLoopOptions {
  /** The milliseconds of a clock that never goes back; fractions are allowed. */
  readonly now: () => number;
  /**
   * There is nothing to do: waits until an interrupt is pending, but no longer than so many milliseconds (`Infinity`: until an
   * interrupt). It may return earlier. `wfi` or `hlt` with a timer; nothing at all is right, too, and polls.
   */
  readonly idle: (ms: number) => void;
  /** Calls the handlers of all interrupts that are pending, as `InterruptRouter.poll` does. Returns whether there was one. */
  readonly poll?: () => boolean;
  /** Runs the engine's jobs until there are none; for {@link BareLoop.run} alone. */
  readonly runJobs?: () => void;
}

/** Names a timer of {@link BareLoop.setTimer}. */
export type TimerId = number;

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * The loop.
 *
 * The engine runs jobs, then a turn, and again, for as long as turns return `true`. An error that a callback throws leaves
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
  #scheduled: (() => void)[] = [];
  /** The list of the last turn, emptied: a turn allocates nothing. */
  #spare: (() => void)[] = [];
  #holds = 0;
  #nextTimer = 1;

  constructor(options: BareLoopOptions) {
    this.#options = options;
  }

  /** Whether anything may still happen: something is scheduled, a timer runs, or somebody holds the loop. */
  get alive(): boolean {
    return this.#scheduled.length > 0 || this.#timers.size > 0 || this.#holds > 0;
  }

  /** How many holds there are now. */
  get holds(): number {
    return this.#holds;
  }

  /** Calls back in the next turn, as `setImmediate` does: what `PollingInterrupts` wants. */
  readonly schedule = (callback: () => void): void => {
    this.#scheduled.push(callback);
  };

  /** Records that a caller waits for an interrupt: the loop goes on. */
  readonly hold = (): void => {
    this.#holds += 1;
  };

  /** Ends one {@link BareLoop.hold}. */
  readonly release = (): void => {
    this.#holds -= 1;
  };

  /**
   * Calls back once, `ms` milliseconds from now or a little later. It keeps the loop alive.
   *
   * @throws VirtioError `INVALID_PARAM` unless `ms` is from 0 to 2^31 − 1
   */
  setTimer(callback: () => void, ms: number): TimerId {
    requireInteger('a timer', 'ms', Math.ceil(ms), 0, 0x7fff_ffff);
    const id = this.#nextTimer;
    this.#nextTimer += 1;
    this.#timers.set(id, { at: this.#options.now() + ms, callback });
    return id;
  }

  /** Cancels a timer. Does nothing if it is unknown or was called already. */
  clearTimer(id: TimerId): void {
    this.#timers.delete(id);
  }

  /**
   * One turn: handlers of interrupts, timers that are due, what was scheduled before the turn began; if there was nothing of all
   * that, the idle callback.
   *
   * @returns whether another turn is needed
   */
  turn(): boolean {
    const work = this.#scheduled;
    this.#scheduled = this.#spare;
    this.#spare = work;
    let busy = work.length > 0;
    let done = 0;
    try {
      if (this.#options.poll?.() === true) busy = true;
      if (this.#runTimers()) busy = true;
      while (done < work.length) {
        done += 1;
        work[done - 1]?.();
      }
    } finally {
      // A callback threw: what it kept from being called is called in the next turn.
      if (done < work.length) this.#scheduled.unshift(...work.slice(done));
      work.length = 0;
    }
    if (!busy && this.alive) this.#idle();
    return this.alive;
  }

  /** Jobs and turns until nothing is left to wait for. */
  run(): void {
    do this.#options.runJobs?.();
    while (this.turn() || this.#afterJobs());
  }

  /** Jobs that the last turn left may give reason for another. */
  #afterJobs(): boolean {
    this.#options.runJobs?.();
    return this.alive;
  }

  #runTimers(): boolean {
    if (this.#timers.size === 0) return false;
    const now = this.#options.now();
    // Those set by a callback have their turn later, even if they are due at once.
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
