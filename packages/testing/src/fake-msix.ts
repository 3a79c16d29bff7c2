/** The MSI-X table and pending bits of a PCI function. Messages arrive after the access that caused them, in a microtask. */
import { PBA_OFFSET } from './pci-structures.ts';
import type { Width } from './register-model.ts';

const MASKED = 1;
/** The words of an entry: address low, address high, data, vector control. */
const WORDS = 4;

/** An entry of the table. */
export interface MsixEntry {
  readonly address: number;
  readonly data: number;
  readonly masked: boolean;
}

/** The control register of the capability. */
export interface MsixControl {
  readonly enabled: boolean;
  /** Whether all vectors are masked. */
  readonly masked: boolean;
}

/** The MSI-X table of a function. */
export class FakeMsix {
  readonly #table: Uint32Array;
  readonly #pending = new Set<number>();
  readonly #due = new Set<number>();
  readonly #control: () => MsixControl;
  readonly #deliver: (vector: number) => void;
  #scheduled = false;

  /**
   * @param vectors the number of entries, all masked at first
   * @param control reads the capability
   * @param deliver called for each message; several of one vector at once arrive as one
   */
  constructor(vectors: number, control: () => MsixControl, deliver: (vector: number) => void) {
    this.#table = new Uint32Array(vectors * WORDS);
    this.#control = control;
    this.#deliver = deliver;
    for (let vector = 0; vector < vectors; vector += 1) this.#table[vector * WORDS + 3] = MASKED;
  }

  /** Unmasks all vectors. */
  unmask(): void {
    for (let at = 3; at < this.#table.length; at += WORDS) this.#table[at] = 0;
    this.flush();
  }

  entry(vector: number): MsixEntry {
    const [low = 0, high = 0, data = 0, control = 0] = this.#table.subarray(vector * WORDS);
    return { address: high * 2 ** 32 + low, data, masked: (control & MASKED) !== 0 };
  }

  /** Reads the table or the pending bits. */
  load(offset: number): number {
    const word = this.#table[offset / 4];
    if (word !== undefined) return word;
    let bits = 0;
    for (const vector of this.#pending) {
      if (vector >>> 5 === (offset - PBA_OFFSET) / 4) bits |= 1 << (vector & 31);
    }
    return bits;
  }

  /**
   * Writes the table.
   *
   * @returns whether there is such a register with that width
   */
  store(offset: number, width: Width, value: number): boolean {
    if (width !== 4 || offset / 4 >= this.#table.length) return false;
    this.#table[offset / 4] = value;
    this.flush();
    return true;
  }

  /** Raises an event that is mapped to this vector. */
  raise(vector: number): void {
    this.#pending.add(vector);
    this.flush();
  }

  /** Clears all pending bits. */
  clear(): void {
    this.#pending.clear();
  }

  /** Sends pending messages that are not masked. */
  flush(): void {
    const { enabled, masked } = this.#control();
    if (!enabled || masked) return;
    for (const vector of this.#pending) {
      if (this.entry(vector).masked) continue;
      this.#pending.delete(vector);
      this.#due.add(vector);
    }
    if (this.#due.size === 0 || this.#scheduled) return;
    this.#scheduled = true;
    void Promise.resolve().then(() => {
      this.#scheduled = false;
      const due = [...this.#due];
      this.#due.clear();
      for (const vector of due) this.#deliver(vector);
    });
  }
}
