/**
 * The slots of a request queue, one for each request that is under way: where the request is, how its caller waits, and the token
 * by which the caller names it. Numbers in typed arrays; nothing is allocated for a request.
 *
 * A token is a slot with a generation, which changes each time the slot becomes free: a token of an earlier request, or from
 * before a reset, is invalid.
 */

// Where the request of a slot is.
const FREE = 0;
const BEGUN = 1;
const IN_FLIGHT = 2;
const DONE = 3;
/** The device has it, and its caller no longer waits. */
const LATE = 4;
/** The device no longer works; until it is reset, it still has the request's buffers. */
const LOST = 5;

// How the caller waits.
const POLLED = 0;
const AWAITED = 1;
const SPUN = 2;
/** With a promise that does not keep the event loop alive: the bit of `AWAITED`, and one that counts. */
const WATCHED = 3;
const GIVEN_UP = 4;

/** Tokens stay below, so that engines keep them as small integers. */
const TOKENS = 2 ** 30;

/** The slots of one queue. */
export class Slots {
  /** How many there are. */
  readonly size: number;
  /** How many are free. */
  free = 0;
  /** How many are done and polled for, and have not been returned by {@link Slots.takeDone}. */
  done = 0;
  /** For how many a caller waits with a promise that does not keep the event loop alive. */
  watched = 0;

  // By slot: where its request is, how its caller waits, and what changes whenever it becomes free.
  readonly #state: Uint8Array;
  readonly #waits: Uint8Array;
  readonly #generation: Int32Array;

  /** How many of the lower bits of a token are the slot; the generation is above. */
  readonly #slotBits: number;
  readonly #lane: number;
  readonly #lanes: number;
  readonly #generations: number;
  readonly #free: Uint16Array;
  /** The slots that are done and polled for, oldest first; `#inRing` marks them. */
  readonly #doneRing: Uint16Array;
  readonly #inRing: Uint8Array;
  #doneHead = 0;

  /** @param lane where several queues have tokens that must differ: the number of this one, and how many there are */
  constructor(size: number, [lane, lanes]: readonly [index: number, of: number]) {
    this.size = size;
    this.#lane = lane;
    this.#lanes = lanes;
    this.#slotBits = 32 - Math.clz32(size - 1);
    this.#generations = Math.max(2, Math.floor(TOKENS / (2 ** this.#slotBits * lanes)));
    this.#state = new Uint8Array(size);
    this.#waits = new Uint8Array(size);
    this.#generation = new Int32Array(size);
    this.#free = new Uint16Array(size);
    this.#doneRing = new Uint16Array(size);
    this.#inRing = new Uint8Array(size);
    for (let slot = size - 1; slot >= 0; slot -= 1) this.#free[this.free++] = slot;
  }

  /** Changes whenever a slot becomes free. */
  generation(slot: number): number {
    return this.#generation[slot] as number;
  }

  /** Whether a slot is free. */
  isFree(slot: number): boolean {
    return this.#state[slot] === FREE;
  }

  /** Whether the chain of a slot is being built. */
  isBegun(slot: number): boolean {
    return this.#state[slot] === BEGUN;
  }

  /** Whether the device has the request of a slot, and its caller waits. */
  isInFlight(slot: number): boolean {
    return this.#state[slot] === IN_FLIGHT;
  }

  /** Whether the device has answered, and the answer has not been taken. */
  isDone(slot: number): boolean {
    return this.#state[slot] === DONE;
  }

  /** Whether the device has the request of a slot, and its caller no longer waits. */
  isLate(slot: number): boolean {
    return this.#state[slot] === LATE;
  }

  /** Whether the request of a slot was lost with the device. */
  isLost(slot: number): boolean {
    return this.#state[slot] === LOST;
  }

  /** Whether the caller polls. */
  isPolled(slot: number): boolean {
    return this.#waits[slot] === POLLED;
  }

  /** Whether the caller waits with a promise. */
  isAwaited(slot: number): boolean {
    return ((this.#waits[slot] as number) & AWAITED) !== 0;
  }

  /** Takes a free slot, of which there must be one, for a request that is begun. */
  take(): number {
    this.free -= 1;
    const slot = this.#free[this.free] as number;
    this.#state[slot] = BEGUN;
    return slot;
  }

  /** The request of a slot is submitted, to be polled for until another wait is chosen. */
  submit(slot: number): void {
    this.#state[slot] = IN_FLIGHT;
    this.#waits[slot] = POLLED;
  }

  /** The caller, who waited with a promise, polls. */
  poll(slot: number): void {
    this.watched -= (this.#waits[slot] as number) >> 1;
    this.#waits[slot] = POLLED;
  }

  /** The caller waits with a promise. */
  await(slot: number): void {
    this.#waits[slot] = AWAITED;
  }

  /** The caller waits with a promise that does not keep the event loop alive. */
  watch(slot: number): void {
    this.#waits[slot] = WATCHED;
    this.watched += 1;
  }

  /** The caller spins. */
  spin(slot: number): void {
    this.#waits[slot] = SPUN;
  }

  /** The device has answered. */
  finish(slot: number): void {
    this.#state[slot] = DONE;
  }

  /** The caller gives up a request that the device has. */
  giveUp(slot: number): void {
    this.#state[slot] = LATE;
    this.#waits[slot] = GIVEN_UP;
  }

  /** The device no longer works. */
  lose(slot: number): void {
    this.#state[slot] = LOST;
  }

  /** Frees a slot, which makes its token invalid. */
  release(slot: number): void {
    if (this.#inRing[slot] === 1) this.#leaveRing(slot);
    this.#state[slot] = FREE;
    this.#waits[slot] = POLLED;
    const next = (this.#generation[slot] as number) + 1;
    this.#generation[slot] = next === this.#generations ? 0 : next;
    this.#free[this.free] = slot;
    this.free += 1;
  }

  /** The token of the request that a slot holds. */
  token(slot: number): number {
    return (((this.#generation[slot] as number) << this.#slotBits) | slot) * this.#lanes + this.#lane;
  }

  /** The slot that a token names, or -1: its request was submitted to be polled for, and is neither completed nor given up. */
  slotOf(token: number): number {
    // For callers without types: a bigint cannot be mixed with numbers.
    if (typeof token !== 'number') return -1;
    const local = this.#lanes === 1 ? token : (token - this.#lane) / this.#lanes;
    const slot = local & ((1 << this.#slotBits) - 1);
    if (slot >= this.size || this.#waits[slot] !== POLLED) return -1;
    // A value that is no integer, or too large, does not compare equal.
    if ((((this.#generation[slot] as number) << this.#slotBits) | slot) !== local) return -1;
    const state = this.#state[slot];
    return state === IN_FLIGHT || state === DONE || state === LOST ? slot : -1;
  }

  /** A request that is polled for is done. */
  pushDone(slot: number): void {
    this.#inRing[slot] = 1;
    const place = this.#doneHead + this.done;
    this.#doneRing[place >= this.size ? place - this.size : place] = slot;
    this.done += 1;
  }

  /** Returns the slot that has been done for the longest time; there must be one. It stays done. */
  takeDone(): number {
    const slot = this.#doneRing[this.#doneHead] as number;
    this.#inRing[slot] = 0;
    this.#doneHead = this.#doneHead + 1 === this.size ? 0 : this.#doneHead + 1;
    this.done -= 1;
    return slot;
  }

  /** Takes a slot that was completed by its token, or given up, out of the ring. Those before it move up. */
  #leaveRing(slot: number): void {
    const ring = this.#doneRing;
    const last = this.size - 1;
    let place = this.#doneHead;
    while (ring[place] !== slot) place = place === last ? 0 : place + 1;
    while (place !== this.#doneHead) {
      const before = place === 0 ? last : place - 1;
      ring[place] = ring[before] as number;
      place = before;
    }
    this.#doneHead = place === last ? 0 : place + 1;
    this.done -= 1;
    this.#inRing[slot] = 0;
  }
}
