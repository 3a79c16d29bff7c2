/** What a correct queue does, in the plainest words: which chains there are, and who has them. */

/** A chain as it was pushed. */
export interface ModelChain {
  /** Address, length and 1 for a writable one, of each buffer in turn. */
  readonly buffers: readonly number[];
  readonly writable: number;
  /** The descriptors of the ring that it takes. */
  readonly descriptors: number;
}

/** A chain that the device has used, as the driver must see it. */
export interface Completion {
  readonly token: number;
  readonly length: number;
}

/** The model of a correct queue. */
export class Model {
  readonly size: number;
  /** Chains that were submitted, by token, oldest first. */
  readonly staged = new Map<number, ModelChain>();
  /** Chains that were published and not popped. */
  readonly published = new Map<number, ModelChain>();
  /** Those of them that the device has not used. */
  readonly unused = new Set<number>();
  /** What the device has used and the driver has not popped, oldest first. */
  readonly completed: Completion[] = [];
  free: number;

  constructor(size: number) {
    this.size = size;
    this.free = size;
  }

  submit(token: number, chain: ModelChain): void {
    if (this.published.has(token) || this.staged.has(token)) {
      throw new Error(`token ${token} is in use already`);
    }
    this.staged.set(token, chain);
    this.free -= chain.descriptors;
  }

  publish(): void {
    for (const [token, chain] of this.staged) {
      this.published.set(token, chain);
      this.unused.add(token);
    }
    this.staged.clear();
  }

  complete(token: number, length: number): void {
    this.unused.delete(token);
    this.completed.push({ token, length });
  }

  /** The driver popped a chain, which must be in flight. */
  pop(token: number): ModelChain {
    const chain = this.published.get(token);
    if (chain === undefined) throw new Error(`pop() is ${token}, which is not in flight`);
    this.published.delete(token);
    this.unused.delete(token);
    this.free += chain.descriptors;
    return chain;
  }

  clear(): void {
    this.staged.clear();
    this.published.clear();
    this.unused.clear();
    this.completed.length = 0;
    this.free = this.size;
  }
}
