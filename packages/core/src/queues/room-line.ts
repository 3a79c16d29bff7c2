/** The line of callers that wait with a promise until their request can begin: first come, first served. */
import type { Waiter } from './wait.ts';

/** A caller that waits for room. */
export interface RoomWaiter extends Waiter<unknown> {
  /** How many descriptors of the ring its chain takes. */
  readonly descriptors: number;
  /** Builds and submits its request; returns the slot, or -1 if there is still no room. */
  readonly start: () => number;
  /** Whether it keeps the event loop alive. */
  readonly holds: boolean;
  /** The slot and its generation once the request has begun; -1 before. */
  slot: number;
  generation: number;
}

/** The slot of a caller that has cancelled while its request was being built. */
export const CANCELLED = -2;

/** What a {@link RoomLine} needs of its queue. */
export interface RoomHost {
  /** Whether a chain that takes `descriptors` descriptors can begin now. */
  hasRoom(descriptors: number): boolean;
  /** The request of a caller that waited has begun in a slot. */
  begun(waiter: RoomWaiter, slot: number): void;
}

/** The line of one queue. */
export class RoomLine {
  /** How many of those who wait keep the event loop alive. */
  holding = 0;

  readonly #host: RoomHost;
  readonly #waiting: RoomWaiter[] = [];
  #serving = false;

  constructor(host: RoomHost) {
    this.#host = host;
  }

  /** How many wait. */
  get length(): number {
    return this.#waiting.length;
  }

  /** Joins the line at its end. */
  join(waiter: RoomWaiter): void {
    this.#waiting.push(waiter);
    if (waiter.holds) this.holding += 1;
  }

  /** Leaves the line; returns whether the waiter was in it. */
  leave(waiter: RoomWaiter): boolean {
    const place = this.#waiting.indexOf(waiter);
    if (place < 0) return false;
    this.#waiting.splice(place, 1);
    if (waiter.holds) this.holding -= 1;
    return true;
  }

  /** Lets the waiting requests begin in their order, as long as there is room for the next one. */
  serve(): void {
    // Beginning a request may call this again: the outer call goes on.
    if (this.#serving) return;
    this.#serving = true;
    try {
      for (;;) {
        const next = this.#waiting[0];
        if (next === undefined || !this.#host.hasRoom(next.descriptors)) return;
        this.leave(next);
        let slot: number;
        try {
          slot = next.start();
        } catch (error) {
          next.reject(error);
          continue;
        }
        if (slot < 0) {
          if (next.slot === CANCELLED) continue;
          this.#waiting.unshift(next);
          if (next.holds) this.holding += 1;
          return;
        }
        this.#host.begun(next, slot);
      }
    } finally {
      this.#serving = false;
    }
  }

  /** Ends all waits with an error. */
  rejectAll(error: unknown): void {
    this.holding = 0;
    for (const waiter of this.#waiting.splice(0)) waiter.reject(error);
  }
}
