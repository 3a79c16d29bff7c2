/**
 * The times at which connections have waited long enough for their peers. Without timers they are looked at when packets come and when
 * something is called.
 */
import type { Connection } from './connection.ts';

/** Timers, where there are some: `globalThis` of Node.js and of browsers. */
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
  /** When the timer fires. It may be early: a deadline that is lifted leaves it as it is. */
  #due = Infinity;

  /** @param expired called after deadlines that were over */
  constructor(timers: Timers | undefined, expired: () => void) {
    this.#timers = timers;
    this.#expired = expired;
  }

  /** Gives a connection that has none a deadline. */
  set(connection: Connection, milliseconds: number): void {
    if (connection.state.phase === 'closed' || connection.deadline !== Infinity) return;
    connection.deadline = Date.now() + milliseconds;
    this.#timed.add(connection);
    if (connection.deadline < this.#due) this.#arm(connection.deadline);
  }

  /** The connection is over. */
  delete(connection: Connection): void {
    this.#timed.delete(connection);
  }

  /** Ends what is over. */
  check(): void {
    if (this.#timed.size === 0) return;
    const now = Date.now();
    for (const connection of [...this.#timed]) {
      if (connection.deadline > now) {
        if (connection.deadline === Infinity) this.#timed.delete(connection);
        continue;
      }
      connection.expire();
    }
    this.#expired();
  }

  /** Lets go of the timer. */
  stop(): void {
    if (this.#timer !== undefined) this.#timers?.clearTimeout(this.#timer as never);
    this.#timer = undefined;
    this.#due = Infinity;
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
      Math.max(1, due - Date.now()),
    );
    // In Node.js: who waits keeps the event loop alive, a time limit does not.
    (this.#timer as { unref?: () => void }).unref?.();
  }
}
