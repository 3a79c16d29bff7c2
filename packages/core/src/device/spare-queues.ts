/** Queues of a device for which its driver has no use. */
import type { QueueOptions } from '../ring/virt-queue.ts';
import type { Transport } from './transport.ts';

/** Their size in descriptors. */
const SIZE = 16;

/** None are set up if there would be more than this. */
const MOST = 512;

/**
 * Sets up queues that the driver does not use, without buffers, as Linux does: crosvm accepts no other number of queues than its
 * device has, and cloud-hypervisor counts queues to find the interrupt of the last one.
 *
 * @param first the index of the first one
 * @param end the index behind the last one
 * @param create makes a queue: {@link Driver.createRequestQueue}
 */
export function setUpSpareQueues(
  transport: Transport,
  first: number,
  end: number,
  create: (options: QueueOptions) => unknown,
): void {
  if (end - first > MOST) return;
  for (let index = first; index < end; index += 1) {
    if (transport.maxQueueSize(index) > 0) create({ index, size: SIZE, tableLength: 0 });
  }
}
