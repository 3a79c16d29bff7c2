/**
 * The control block: memory that the owner of a device shares with the thread that drives some of its queues. It holds which rings
 * are in use, whether the device works, and a copy of the configuration space.
 *
 * One word, `CLAIM`, holds how often the device was reset and which set of rings the other thread uses. The owner counts a reset
 * there and gives the device the other set; the thread then switches to that set. Both use a compare-and-exchange of the whole
 * word, so neither waits for the other, and a thread that does not know of a reset yet writes to rings that the device no longer
 * has.
 *
 * There are two copies of the configuration, so that the thread reads none that is being written: the owner writes the one that is not
 * current, then makes it so.
 *
 * The owner clears the new rings after it has counted the reset and before it sets the state to live: the thread may claim them in
 * between, but must not write to them before that.
 */
import { VirtioError, type VirtioErrorCode } from '../errors.ts';

// Words that the owner writes.
const EVENT = 0;
const STATE = 1;
const CONFIG = 2;
const CONFIG_SIZE = 7;
// Words that both write.
const CLAIM = 3;
const THREAD = 4;
// Words that the other thread writes.
const REPORT = 5;
const LIES = 6;
const WORDS = 8;

/** The device is being reset. */
const DOWN = 0;
const LIVE = 1;
/** The device has failed: this number plus the index of the error code in the table. */
const FAILED = 2;
const CODES: readonly VirtioErrorCode[] = [
  'DEVICE_NEEDS_RESET',
  'DEVICE_REMOVED',
  'DEVICE_MISBEHAVED',
  'DISPOSED',
  'NOT_READY',
  'FEATURES_REFUSED',
];

// Whether a thread has the queues.
const WAITING = 0;
const OPEN = 1;
const CLOSED = 2;

type WaitAsync = (
  words: Int32Array,
  index: number,
  value: number,
) => { readonly async: boolean; readonly value: unknown };

/** Calls `changed` after each change of a word by another thread, until it returns false. Keeps no event loop alive. */
function watch(words: Int32Array<SharedArrayBuffer>, index: number, changed: () => boolean): void {
  // An engine may lack it; a thread then finds changes when it polls.
  const { waitAsync } = Atomics as unknown as { readonly waitAsync?: WaitAsync };
  if (waitAsync === undefined) return;
  const next = (seen: number): void => {
    const { async, value } = waitAsync(words, index, seen);
    void Promise.resolve(async ? value : undefined).then(() => {
      const now = Atomics.load(words, index);
      let more = true;
      try {
        more = changed();
      } finally {
        // An error that it throws becomes an unhandled rejection; the watching goes on.
        if (more) next(now);
      }
    });
  };
  next(Atomics.load(words, index));
}

/** The state of the device, as the other thread sees it. */
export type ControlState = 'down' | 'live' | VirtioErrorCode;

/** Both sides' view of the block. */
export class ControlBlock {
  /** The memory, to be posted to the other thread. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #configs: readonly [Uint8Array<SharedArrayBuffer>, Uint8Array<SharedArrayBuffer>];

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS);
    const size = this.#words[CONFIG_SIZE] as number;
    this.#configs = [new Uint8Array(buffer, WORDS * 4, size), new Uint8Array(buffer, WORDS * 4 + size, size)];
  }

  /** Makes a block for a configuration of `configSize` bytes. The set of rings that is used first has the number 0. */
  static create(configSize: number): ControlBlock {
    const words = new Int32Array(new SharedArrayBuffer(WORDS * 4 + Math.ceil((2 * configSize) / 4) * 4));
    words[CONFIG_SIZE] = configSize;
    // As if a thread used the other set.
    words[CLAIM] = 1;
    return new ControlBlock(words.buffer);
  }

  // The owner's side.

  /** Counts a reset. Returns the set of rings to use after it: the one that the other thread does not use. */
  nextRings(): 0 | 1 {
    for (;;) {
      const claim = Atomics.load(this.#words, CLAIM);
      const next = (claim + 2) & 0x7fffffff;
      if (Atomics.compareExchange(this.#words, CLAIM, claim, next) === claim) {
        return (claim & 1) === 0 ? 1 : 0;
      }
    }
  }

  /** Sets the state of the device and wakes the other thread. */
  tell(state: 'down' | 'live' | VirtioError): void {
    const code = state instanceof VirtioError ? Math.max(0, CODES.indexOf(state.code)) : 0;
    Atomics.store(this.#words, STATE, state === 'down' ? DOWN : state === 'live' ? LIVE : FAILED + code);
    this.#announce();
  }

  /** Replaces the copy of the configuration. */
  writeConfig(bytes: Uint8Array): void {
    this.#copy(this.configGeneration + 1).set(bytes);
    Atomics.add(this.#words, CONFIG, 1);
    this.#announce();
  }

  /** Whether a thread has the queues now. */
  get isOpen(): boolean {
    return Atomics.load(this.#words, THREAD) === OPEN;
  }

  /** Whether a thread had the queues and has given them back. */
  get isClosed(): boolean {
    return Atomics.load(this.#words, THREAD) === CLOSED;
  }

  /** Lets another thread open the queues. */
  offer(): void {
    Atomics.store(this.#words, THREAD, WAITING);
  }

  /** Prevents the queues from being opened. Returns whether a thread has them, had them, or neither. */
  withdraw(): 'open' | 'closed' | 'unopened' {
    const thread = Atomics.compareExchange(this.#words, THREAD, WAITING, CLOSED);
    return thread === OPEN ? 'open' : thread === CLOSED ? 'closed' : 'unopened';
  }

  /** Whether the other thread has reported since the last reset, and since the last call, that the device misbehaved. */
  takeLie(): boolean {
    return Atomics.exchange(this.#words, LIES, 0) === this.resets + 1;
  }

  /** Calls `reported` after each report of the other thread's, until it returns false. */
  watchReports(reported: () => boolean): void {
    watch(this.#words, REPORT, reported);
  }

  /** Causes one last call of `reported`, which can return false. */
  stopWatching(): void {
    this.#report();
  }

  // The other thread's side.

  /** Counts the changes by the owner. */
  get events(): number {
    return Atomics.load(this.#words, EVENT);
  }

  /** The state of the device. */
  get state(): ControlState {
    const state = Atomics.load(this.#words, STATE);
    return state === DOWN
      ? 'down'
      : state === LIVE
        ? 'live'
        : (CODES[state - FAILED] ?? 'DEVICE_NEEDS_RESET');
  }

  /** How often the device has been reset. */
  get resets(): number {
    return Atomics.load(this.#words, CLAIM) >>> 1;
  }

  /**
   * Switches to the current rings, which the thread uses from then on.
   *
   * @returns the set, and the number of resets before it
   */
  claim(): { readonly rings: 0 | 1; readonly resets: number } {
    for (;;) {
      const claim = Atomics.load(this.#words, CLAIM);
      if (Atomics.compareExchange(this.#words, CLAIM, claim, claim ^ 1) === claim) {
        return { rings: (claim & 1) === 0 ? 1 : 0, resets: claim >>> 1 };
      }
    }
  }

  /** Takes the queues for this thread. Returns false if another thread has or had them. */
  open(): boolean {
    return Atomics.compareExchange(this.#words, THREAD, WAITING, OPEN) === WAITING;
  }

  /** Gives the queues back. */
  close(): void {
    Atomics.store(this.#words, THREAD, CLOSED);
    this.#report();
  }

  /** Reports that the device misbehaved; `resets` is how often it was reset before. */
  lied(resets: number): void {
    Atomics.store(this.#words, LIES, resets + 1);
    this.#report();
  }

  /** The bytes of the configuration. */
  get configSize(): number {
    return this.#configs[0].length;
  }

  /** Changes with the configuration. */
  get configGeneration(): number {
    return Atomics.load(this.#words, CONFIG);
  }

  /** Reads bytes of the configuration, of which none is newer than the others. */
  readConfig(offset: number, width: 1 | 2 | 4): number {
    for (;;) {
      const generation = this.configGeneration;
      const copy = this.#copy(generation);
      let value = 0;
      for (let i = 0; i < width; i += 1) value += Atomics.load(copy, offset + i) * 2 ** (8 * i);
      if (this.configGeneration === generation) return value;
    }
  }

  #copy(generation: number): Uint8Array<SharedArrayBuffer> {
    return this.#configs[(generation & 1) as 0 | 1];
  }

  /** Calls `changed` after each change by the owner, until it returns false. */
  watchEvents(changed: () => boolean): void {
    watch(this.#words, EVENT, changed);
  }

  /** Causes one last call of `changed`, which can return false. */
  stopListening(): void {
    Atomics.notify(this.#words, EVENT);
  }

  #announce(): void {
    Atomics.add(this.#words, EVENT, 1);
    Atomics.notify(this.#words, EVENT);
  }

  #report(): void {
    Atomics.add(this.#words, REPORT, 1);
    Atomics.notify(this.#words, REPORT);
  }
}
