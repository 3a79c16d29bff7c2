/**
 * Chains of whole buffers on a virtqueue: convenient for experiments, tests and devices where speed does not matter. Drivers use
 * request, receive and transmit queues instead.
 */
import { requireBytes } from '../check.ts';
import { VirtioError } from '../errors.ts';
import { spin, type SpinOptions } from '../queues/spin.ts';
import type { VirtQueue } from './virt-queue.ts';

/** A chain and the buffers that it shares. */
interface SharedChain {
  readonly readable: readonly Uint8Array[];
  readonly writable: readonly Uint8Array[];
  readonly addresses: readonly number[];
  /** The bytes of each buffer when it was shared. */
  readonly lengths: readonly number[];
}

const existing = new WeakMap<VirtQueue, BufferChains>();

/**
 * Adds chains of buffers to a queue, and takes them back. It must be the only user of the queue.
 *
 * @example
 * ```ts
 * import { BufferChains, createQueue, FeatureTable, type Hal, type Transport } from '@virtio/core';
 *
 * const RngFeatures = new FeatureTable('RngFeatures', {});
 *
 * export function entropy(transport: Transport, hal: Hal): Uint8Array {
 *   const features = transport.beginInit({ table: RngFeatures, supported: ['INDIRECT_DESC', 'EVENT_IDX', 'RING_PACKED'] });
 *   using queue = createQueue(transport, hal, features, { index: 0, size: 8 });
 *   transport.finishInit();
 *   const bytes = new Uint8Array(64);
 *   const length = BufferChains.of(queue).addNotifyWaitPop([], [bytes]);
 *   transport.reset();
 *   return bytes.subarray(0, length);
 * }
 * ```
 */
export class BufferChains {
  /** The virtqueue. */
  readonly queue: VirtQueue;

  readonly #chains: (SharedChain | undefined)[];
  /** By token of the ring: the chain's number. */
  readonly #numberOf: Uint16Array;
  /** The chains that the device has used and that have not been taken yet, oldest first, with their lengths. */
  readonly #used: { readonly number: number; readonly length: number }[] = [];

  /** The chains of a queue: each call for a queue returns the same. */
  static of(queue: VirtQueue): BufferChains {
    const chains = existing.get(queue) ?? new BufferChains(queue);
    existing.set(queue, chains);
    return chains;
  }

  private constructor(queue: VirtQueue) {
    this.queue = queue;
    this.#chains = new Array<undefined>(queue.size).fill(undefined);
    this.#numberOf = new Uint16Array(queue.size);
  }

  /**
   * Adds a chain of buffers: shares them with the device, submits and publishes. {@link BufferChains.popUsed} ends it.
   *
   * @param readable the buffers that the device reads
   * @param writable the buffers that the device writes
   * @returns the number of the chain
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`; nothing was added then
   */
  add(readable: readonly Uint8Array[], writable: readonly Uint8Array[]): number {
    const { queue } = this;
    for (const buffer of [...readable, ...writable]) requireBytes(queue.transport, buffer);
    if ([...readable, ...writable].some(({ length }) => length === 0)) {
      throw new VirtioError('INVALID_PARAM', `queue ${queue.index}: a buffer is empty; leave it out`);
    }
    const number = this.#chains.indexOf(undefined);
    if (number < 0) {
      throw new VirtioError(
        'QUEUE_FULL',
        `queue ${queue.index}: all chains are used and not taken yet; call popUsed()`,
      );
    }
    queue.begin(readable.length + writable.length);
    const chain = {
      readable: [...readable],
      writable: [...writable],
      addresses: [] as number[],
      lengths: [...readable, ...writable].map(({ length }) => length),
    };
    try {
      for (const buffer of chain.readable) {
        const address = queue.hal.share(buffer, 'driver-to-device', queue.accessPlatform);
        chain.addresses.push(address);
        queue.pushReadable(address, buffer.length);
      }
      for (const buffer of chain.writable) {
        const address = queue.hal.share(buffer, 'device-to-driver', queue.accessPlatform);
        chain.addresses.push(address);
        queue.pushWritable(address, buffer.length);
      }
    } catch (error) {
      queue.rewind();
      this.#unshare(chain, false);
      throw error;
    }
    this.#numberOf[queue.submit()] = number;
    this.#chains[number] = chain;
    queue.publish();
    return number;
  }

  /**
   * The chain that the device has used next, or -1.
   *
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`
   */
  peekUsed(): number {
    if (this.#used.length === 0) {
      const token = this.queue.pop();
      if (token < 0) return -1;
      this.#used.push({ number: this.#numberOf[token] as number, length: this.queue.usedLength });
    }
    return this.#used[0]?.number ?? -1;
  }

  /**
   * Takes a chain that the device has used.
   *
   * @param number the chain, which must be the next used one
   * @returns the bytes that the device wrote
   * @throws {@link VirtioError} `NOT_READY` if nothing has been used, `WRONG_TOKEN` if another chain is next; nothing
   * was taken then
   */
  popUsed(number: number): number {
    const next = this.peekUsed();
    if (next === -1) {
      throw new VirtioError(
        'NOT_READY',
        `queue ${this.queue.index}: the device has not used chain ${number} yet`,
      );
    }
    if (next !== number) {
      throw new VirtioError(
        'WRONG_TOKEN',
        `queue ${this.queue.index}: chain ${next} is the next used one, not ${number}`,
      );
    }
    const length = this.#used.shift()?.length ?? 0;
    const chain = this.#chains[number];
    this.#chains[number] = undefined;
    if (chain !== undefined) this.#unshare(chain, true);
    return length;
  }

  /**
   * Adds a chain, notifies the device, spins until it has used the chain and takes it. There must be no other chain in flight.
   *
   * @returns the bytes that the device wrote
   * @throws {@link VirtioError} as {@link BufferChains.add} and {@link BufferChains.popUsed}, `NOT_READY` after the time allowed
   */
  addNotifyWaitPop(
    readable: readonly Uint8Array[],
    writable: readonly Uint8Array[],
    options?: SpinOptions,
  ): number {
    const number = this.add(readable, writable);
    this.queue.kick();
    spin(this.queue.transport, () => this.peekUsed() !== -1, options, 'the used chain');
    return this.popUsed(number);
  }

  /** Unshares the buffers that the device had. Call it after a reset of the device. */
  forget(): void {
    for (const chain of this.#chains) if (chain !== undefined) this.#unshare(chain, false);
    this.#chains.fill(undefined);
    this.#used.length = 0;
  }

  /**
   * A buffer whose contents are not needed, or whose memory its caller has transferred or resized, is unshared as if the device
   * had not written it, so that nothing is copied.
   */
  #unshare({ readable, writable, addresses, lengths }: SharedChain, used: boolean): void {
    const { hal, accessPlatform } = this.queue;
    addresses.forEach((address, i) => {
      const written = i >= readable.length;
      const buffer = written ? writable[i - readable.length] : readable[i];
      if (buffer === undefined) return;
      const counts = written && used && buffer.length === lengths[i];
      hal.unshare(address, buffer, counts ? 'device-to-driver' : 'driver-to-device', accessPlatform);
    });
  }
}
