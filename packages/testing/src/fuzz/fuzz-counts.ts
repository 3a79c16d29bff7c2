/** What the fuzzer of drivers saw, for people: a run without a reset or a lie proves little. */

/** What a run of the fuzzer saw. */
export interface FuzzCounts {
  /** Random steps. */
  steps: number;
  /** Drivers that were made and disposed. */
  lives: number;
  /** Calls of the driver from within the device, a listener, or a call that spins. */
  inside: number;
  /** Times that the device acted between two accesses of the driver to its rings. */
  moments: number;
  /** Accesses of the device to the driver's memory, each of them checked. */
  accesses: number;
  /** Checks that an honest device and its driver have lost nothing. */
  checks: number;
  /** What was done, by name. */
  readonly actions: Record<string, number>;
  /** How calls ended: `ok`, or the code of the error. */
  readonly ends: Record<string, number>;
}

/** Makes counts that are all zero. */
export function emptyFuzzCounts(): FuzzCounts {
  return { steps: 0, lives: 0, inside: 0, moments: 0, accesses: 0, checks: 0, actions: {}, ends: {} };
}

/** Adds one to a count. */
export function increment(counts: Record<string, number>, name: string): void {
  counts[name] = (counts[name] ?? 0) + 1;
}
