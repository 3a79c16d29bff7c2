/**
 * The option by which a driver reserves queues for other threads. It imports the code for that, so that a program without threads
 * does not contain it.
 */
import { type Named, requireInteger } from '../check.ts';
import { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import { show } from '../show.ts';
import { LentMember, type LentParts, LentQueues } from './lent-queues.ts';

/** How many queues, or pairs of queues, a driver reserves for other threads; made by {@link forThreads}. */
export interface ThreadQueues {
  readonly count: number;
  /** @internal Queues that one thread drives together. */
  lend(parts: LentParts): LentQueues;
  /** @internal The second and later ones of them. */
  member(queue: VirtQueue): LentMember;
}

/** More than a device can have. */
const MOST = 65_535;

/**
 * Reserves queues for other threads, as an option of `VirtioBlk` (`threadQueues`) or `VirtioNet` (`threadPairs`).
 *
 * @param count the number of other threads that get queues
 * @throws {@link VirtioError} `INVALID_PARAM`
 *
 * @example
 * ```ts
 * import { VirtioBlk } from '@virtio/blk';
 * import { forThreads, type Hal, type Transport } from '@virtio/core';
 *
 * export function openForFour(transport: Transport, hal: Hal): VirtioBlk {
 *   return new VirtioBlk(transport, hal, { queues: 1, threadQueues: forThreads(3) });
 * }
 * ```
 */
export function forThreads(count: number): ThreadQueues {
  return {
    count: requireInteger('forThreads', 'count', count, 0, MOST),
    lend: (parts) => new LentQueues(parts),
    member: (queue) => new LentMember(queue),
  };
}

/**
 * How many queues an option reserves for other threads; 0 if it was not given.
 *
 * @param named the device for the message
 * @param name the option for the message
 * @param max the greatest number that is accepted
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireThreads(
  named: Named,
  name: string,
  value: ThreadQueues | undefined,
  max: number,
): number {
  if (value === undefined) return 0;
  // For callers without types: a plain number would reserve nothing.
  if (typeof value !== 'object' || typeof (value as Partial<ThreadQueues> | null)?.lend !== 'function') {
    throw new VirtioError(
      'INVALID_PARAM',
      `${typeof named === 'string' ? named : named.who()}: ${name} is ${show(value)}; pass the result of forThreads(count) of @virtio/core`,
    );
  }
  return requireInteger(named, `${name}: the count`, value.count, 0, max);
}
