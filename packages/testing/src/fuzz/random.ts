/** A small generator of random numbers that a seed reproduces: xoshiro128**, which needs only 32-bit arithmetic. */
export class Random {
  readonly #s: Uint32Array;

  constructor(seed: number) {
    // SplitMix32 spreads the seed over the state.
    let x = seed >>> 0;
    this.#s = Uint32Array.from({ length: 4 }, () => {
      x = (x + 0x9e3779b9) >>> 0;
      let z = x;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    });
  }

  /** 32 random bits. */
  bits(): number {
    const s = this.#s;
    const [s0, s1, s2, s3] = s as unknown as [number, number, number, number];
    const product = Math.imul(s1, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    s[2] = s2 ^ s0;
    s[3] = s3 ^ s1;
    s[1] = s1 ^ (s2 ^ s0);
    s[0] = s0 ^ (s3 ^ s1);
    s[2] = s2 ^ s0 ^ (s1 << 9);
    const t = s3 ^ s1;
    s[3] = (t << 11) | (t >>> 21);
    return result;
  }

  /** An integer from 0 to `below` - 1. */
  below(below: number): number {
    return this.bits() % below;
  }

  /** Returns true once in `n` times on average. */
  oneIn(n: number): boolean {
    return n > 0 && this.below(n) === 0;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}
