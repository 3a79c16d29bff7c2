/**
 * The deadlines of connections that wait for their peers. Without timers they are checked when packets arrive and when a method is
 * called.
 */
import type { Connection } from './connection.ts';

/** The timers of a platform: `globalThis` of Node.js and of browsers has them. */
export interface Timers {
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: never): void;
}

/** Connections with a deadline. */
export class Deadlines {
  readonly #timers: Timers | undefined;
  readonly #expired: () => void;
  readonly #timed = new Set<Connection>();
  #timer: unknown;
  /** When the timer fires. It may be early: removing a deadline does not change it. */
  #due = Infinity;
  #clock = 0;
  /** By how many milliseconds the clock has gone back in all. */
  #back = 0;

  /** @param expired called after deadlines have passed */
  constructor(timers: Timers | undefined, expired: () => void) {
    this.#timers = timers;
    this.#expired = expired;
  }

  /** Sets the deadline of a connection that has none. */
  set(connection: Connection, milliseconds: number): void {
    if (connection.state.phase === 'closed' || connection.deadline !== Infinity) return;
    connection.deadline = this.#now() + milliseconds;
    this.#timed.add(connection);
    if (connection.deadline < this.#due) this.#arm(connection.deadline);
  }

  /** Removes the deadline of a connection that is over. */
  delete(connection: Connection): void {
    this.#timed.delete(connection);
  }

  /** Expires all deadlines that have passed. */
  check(): void {
    if (this.#timed.size === 0) return;
    const now = this.#now();
    for (const connection of [...this.#timed]) {
      if (connection.deadline > now) {
        if (connection.deadline === Infinity) this.#timed.delete(connection);
        continue;
      }
      connection.expire();
    }
    this.#expired();
  }

  /** Clears the timer. */
  stop(): void {
    if (this.#timer !== undefined) this.#timers?.clearTimeout(this.#timer as never);
    this.#timer = undefined;
    this.#due = Infinity;
  }

  /** The clock, without its steps back (a machine may be resumed, or its time be set), which would make all deadlines later. */
  #now(): number {
    const clock = Date.now();
    if (clock < this.#clock) this.#back += this.#clock - clock;
    this.#clock = clock;
    return clock + this.#back;
  }

  #arm(due: number): void {
    const timers = this.#timers;
    if (timers === undefined) return;
    this.stop();
    this.#due = due;
    this.#timer = timers.setTimeout(
      () => {
        this.#timer = undefined;
        this.#due = Infinity;
        this.check();
        let next = Infinity;
        for (const { deadline } of this.#timed) next = Math.min(next, deadline);
        if (next < this.#due) this.#arm(next);
      },
      Math.max(1, due - this.#now()),
    );
    // In Node.js: who waits keeps the event loop alive, a time limit does not.
    (this.#timer as { unref?: () => void }).unref?.();
  }
}
