/** The driver's hand that builds chains: at once or bit by bit, to the end or not, now and then in ways that make no sense. */
import { type DmaRegion, VirtioError, type VirtQueue } from '@virtio/core';
import type { Random } from '@virtio/testing';
import type { Model } from './model.ts';
import { type EpisodeCounts, type EpisodeOptions, expect } from './options.ts';

/** A chain that is being built. */
interface OpenChain {
  readonly count: number;
  readonly readable: number;
  readonly abandonAt: number;
  readonly buffers: number[];
  writable: number;
}

/** The pages of the driver's buffers: the device never looks into them here. */
export const BUFFER_PAGES = 16;

/** Builds chains of buffers at random. */
export class Builder {
  readonly #options: EpisodeOptions;
  readonly #counts: EpisodeCounts;
  readonly #random: Random;
  readonly #queue: VirtQueue;
  readonly #model: Model;
  readonly #buffers: DmaRegion;
  #open: OpenChain | undefined;

  constructor(
    options: EpisodeOptions,
    counts: EpisodeCounts,
    random: Random,
    queue: VirtQueue,
    model: Model,
    buffers: DmaRegion,
  ) {
    this.#options = options;
    this.#counts = counts;
    this.#random = random;
    this.#queue = queue;
    this.#model = model;
    this.#buffers = buffers;
  }

  /** Whether a chain is being built. */
  get busy(): boolean {
    return this.#open !== undefined;
  }

  /** The queue was reset, and the chain with it. */
  forget(): void {
    this.#open = undefined;
  }

  /** Begins a chain or goes on with the one that was begun; ends it, abandons it, or leaves it for later. */
  build(): void {
    const chain = this.#open ?? this.#begin();
    if (chain === undefined) return;
    const { count, readable, abandonAt, buffers } = chain;
    const random = this.#random;
    const pauseAt = random.oneIn(4) ? random.below(count + 1) : -1;
    for (let i = buffers.length / 3; i < count; i += 1) {
      if (i === abandonAt) break;
      if (i === pauseAt) return;
      const length = 1 + random.below(4096);
      const address = this.#buffers.address + random.below(BUFFER_PAGES - 1) * 4096;
      if (i < readable) {
        this.#queue.pushReadable(address, length);
      } else {
        this.#queue.pushWritable(address, length);
        chain.writable += length;
      }
      buffers.push(address, length, i < readable ? 0 : 1);
    }
    this.#open = undefined;
    if (abandonAt >= 0) {
      this.#queue.rewind();
      this.#counts.rewound += 1;
    } else {
      const { writable } = chain;
      this.#model.submit(this.#queue.submit(), {
        buffers,
        writable,
        descriptors: this.#queue.descriptorsFor(count),
      });
      this.#counts.chains += 1;
    }
  }

  #begin(): OpenChain | undefined {
    const queue = this.#queue;
    const random = this.#random;
    const most = random.oneIn(8) ? (random.oneIn(8) ? queue.size : 32) : 4;
    const count = 1 + random.below(Math.min(most, queue.size));
    const { tableLength, features } = this.#options;
    const indirect =
      features.includes('INDIRECT_DESC') && count > 1 && count <= Math.min(tableLength, queue.size);
    expect(queue.descriptorsFor(count) === (indirect ? 1 : count), `descriptorsFor(${count})`);
    const room = this.#model.free >= (indirect ? 1 : count);
    expect(queue.tryBegin(count) === room, `tryBegin(${count}) should be ${room}`);
    if (!room) {
      this.#counts.full += 1;
      return undefined;
    }
    this.#open = {
      count,
      readable: random.below(count + 1),
      abandonAt: random.oneIn(10) ? random.below(count + 1) : -1,
      buffers: [],
      writable: 0,
    };
    return this.#open;
  }

  /** Calls that make no sense now are refused and change nothing. */
  misuse(): void {
    const queue = this.#queue;
    const refused = (call: () => unknown): void => {
      try {
        call();
      } catch (error) {
        if (VirtioError.is(error, 'INVALID_PARAM')) return;
        throw error;
      }
      throw new Error('a call that makes no sense was not refused');
    };
    if (this.#open) {
      refused(() => queue.tryBegin(1));
      if (this.#open.buffers.length < 3 * this.#open.count) refused(() => queue.submit());
      if (this.#open.writable > 0) {
        refused(() => {
          queue.pushReadable(this.#buffers.address, 1);
        });
      }
    } else {
      refused(() => queue.tryBegin(queue.size + 1));
      refused(() => queue.submit());
      refused(() => {
        queue.pushWritable(this.#buffers.address, 1);
      });
      queue.rewind();
    }
  }
}
