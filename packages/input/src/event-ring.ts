/** Events of the device that were not taken yet, in arrays that are allocated once. */
import { EventType, Sync } from './event-codes.ts';

/** The places that {@link EventRing.markLost} takes. */
export const LOST_MARK = 2;

/** A queue of events with a fixed capacity. */
export class EventRing {
  /** The event that {@link EventRing.shift} took last. */
  type = 0;
  /** The event that {@link EventRing.shift} took last. */
  code = 0;
  /** The event that {@link EventRing.shift} took last. */
  value = 0;

  readonly #types: Uint16Array;
  readonly #codes: Uint16Array;
  readonly #values: Int32Array;
  #head = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#types = new Uint16Array(capacity);
    this.#codes = new Uint16Array(capacity);
    this.#values = new Int32Array(capacity);
  }

  /** How many events are in it. */
  get count(): number {
    return this.#count;
  }

  /** How many more there is room for. */
  get room(): number {
    return this.#types.length - this.#count;
  }

  /** Adds an event, for which there must be room. */
  push(type: number, code: number, value: number): void {
    let place = this.#head + this.#count;
    if (place >= this.#types.length) place -= this.#types.length;
    this.#types[place] = type;
    this.#codes[place] = code;
    this.#values[place] = value;
    this.#count += 1;
  }

  /** Adds what tells of lost events, for which there must be room: {@link LOST_MARK} places. */
  markLost(): void {
    this.push(EventType.EV_SYN, Sync.SYN_DROPPED, 0);
    this.push(EventType.EV_SYN, Sync.SYN_REPORT, 0);
  }

  /**
   * Takes the oldest event; its parts are in the fields then.
   *
   * @returns false if there is none
   */
  shift(): boolean {
    if (this.#count === 0) return false;
    this.type = this.#types[this.#head] as number;
    this.code = this.#codes[this.#head] as number;
    this.value = this.#values[this.#head] as number;
    this.#head = this.#head + 1 === this.#types.length ? 0 : this.#head + 1;
    this.#count -= 1;
    return true;
  }
}
