/** Makes a virtqueue of the format that was negotiated. */
import { requireInteger } from '../check.ts';
import { VirtioError } from '../errors.ts';
import type { FeatureSet } from '../device/features.ts';
import type { Hal } from '../memory/hal.ts';
import { PackedQueue } from './packed-queue.ts';
import { SplitQueue, splitQueueSize } from './split-queue.ts';
import type { Transport } from '../device/transport.ts';
import { DEFAULT_QUEUE_SIZE, MAX_QUEUE_SIZE, type QueueOptions, type VirtQueue } from './virt-queue.ts';

/** Transports select queues by 16 bits. */
const MAX_INDEX = 0xffff;

/**
 * Makes a virtqueue and gives it to the device. Call it between {@link Transport.beginInit} and {@link Transport.finishInit}.
 *
 * @param features what was negotiated: decides on the format (`RING_PACKED`), `INDIRECT_DESC`, `EVENT_IDX`, `IN_ORDER`
 * @throws {@link VirtioError} `UNSUPPORTED` if the device has no such queue, `ALREADY_USED` if it is set up already,
 * `INVALID_PARAM` for an index, a size (1 to 32768) or a length of tables that is none, `DMA_ERROR`
 * @see {@link BufferChains} for an example
 */
export function createQueue<Name extends string>(
  transport: Transport,
  hal: Hal,
  features: FeatureSet<Name>,
  options: QueueOptions,
): VirtQueue {
  const { size: wanted = DEFAULT_QUEUE_SIZE, tableLength = 0 } = options;
  const index = requireInteger(
    transport,
    'the index of the queue',
    options.index,
    0,
    Number.MAX_SAFE_INTEGER,
  );
  requireInteger(transport, `the size of queue ${index} (queueSize)`, wanted, 1, MAX_QUEUE_SIZE);
  requireInteger(transport, `tableLength of queue ${index}`, tableLength, 0, MAX_QUEUE_SIZE);
  const max = index > MAX_INDEX ? 0 : Math.min(transport.maxQueueSize(index), MAX_QUEUE_SIZE);
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
