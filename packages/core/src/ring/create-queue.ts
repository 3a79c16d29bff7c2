/** Makes a virtqueue of the format that was negotiated. */
import { VirtioError } from '../errors.ts';
import type { FeatureSet } from '../device/features.ts';
import type { Hal } from '../memory/hal.ts';
import { PackedQueue } from './packed-queue.ts';
import { SplitQueue, splitQueueSize } from './split-queue.ts';
import type { Transport } from '../device/transport.ts';
import { DEFAULT_QUEUE_SIZE, MAX_QUEUE_SIZE, type QueueOptions, type VirtQueue } from './virt-queue.ts';

/**
 * Makes a virtqueue and gives it to the device. Call it between {@link Transport.beginInit} and {@link Transport.finishInit}.
 *
 * @param features what was negotiated: decides on the format (`RING_PACKED`), `INDIRECT_DESC`, `EVENT_IDX`, `IN_ORDER`
 * @throws {@link VirtioError} `UNSUPPORTED` if the device has no such queue, `ALREADY_USED` if it is set up already,
 * `INVALID_PARAM` for a size outside 1 to 32768, `DMA_ERROR`
 * @see {@link BufferChains} for an example
 */
export function createQueue<Name extends string>(
  transport: Transport,
  hal: Hal,
  features: FeatureSet<Name>,
  options: QueueOptions,
): VirtQueue {
  const { index, size: wanted = DEFAULT_QUEUE_SIZE } = options;
  if (!Number.isInteger(wanted) || wanted < 1 || wanted > MAX_QUEUE_SIZE) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: queue ${index} was to have ${wanted} descriptors; give a size from 1 to ${MAX_QUEUE_SIZE}`,
    );
  }
  const max = Math.min(transport.maxQueueSize(index), MAX_QUEUE_SIZE);
  if (max < 1) throw new VirtioError('UNSUPPORTED', `${transport.who()} has no queue ${index}`);
  if (transport.queueUsed(index)) {
    throw new VirtioError(
      'ALREADY_USED',
      `${transport.who()}: queue ${index} is set up already; reset the device first`,
    );
  }
  const set = features as FeatureSet<never>;
  const queue = set.has('RING_PACKED')
    ? new PackedQueue(transport, hal, set, Math.min(wanted, max), options)
    : new SplitQueue(
        transport,
        hal,
        set,
        splitQueueSize(wanted, max, transport.requiresLegacyLayout()),
        options,
      );
  transport.watchQueue(queue);
  return queue;
}
