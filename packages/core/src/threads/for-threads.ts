/** The option by which a driver sets queues aside for other threads. It brings the code for that with it: who has no threads imports none. */
import { requireInteger } from '../check.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import { LentMember, type LentParts, LentQueues } from './lent-queues.ts';

/** How many queues, or pairs of queues, a driver sets aside for other threads: {@link forThreads} makes it. */
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
 * Sets queues aside for other threads, as an option of `VirtioBlk` (`threadQueues`) or `VirtioNet` (`threadPairs`).
 *
 * @param count how many threads shall have queues
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
