/**
 * The base of drivers that receive data which they did not request, or send data that is not answered. It is separate from
 * {@link Driver}, so that programs whose drivers only make requests do not include the code of these queues.
 */
import { ReceiveQueue, type ReceiveQueueOptions } from '../queues/receive-queue.ts';
import { TransmitQueue, type TransmitQueueOptions } from '../queues/transmit-queue.ts';
import { Driver } from './driver.ts';
import type { DriverEvents } from './driver-spec.ts';

/** A {@link Driver} that can have receive and transmit queues in addition to request queues. */
export abstract class BufferDriver<
  Name extends string,
  EventMap extends DriverEvents = DriverEvents,
> extends Driver<Name, EventMap> {
  /** Makes a queue for data that the device sends without a request. */
  protected createReceiveQueue(options: ReceiveQueueOptions): ReceiveQueue {
    return this.createDriverQueue(options, (parts) => new ReceiveQueue(parts, options));
  }

  /** Makes a queue for buffers that the driver sends. */
  protected createTransmitQueue(options: TransmitQueueOptions): TransmitQueue {
    return this.createDriverQueue(options, (parts) => new TransmitQueue(parts, options));
  }
}
