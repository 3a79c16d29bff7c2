/**
 * The base of drivers whose device sends unasked, or is sent to without an answer. Apart from {@link Driver}, so that programs whose
 * drivers only ask do not carry these queues.
 */
import { ReceiveQueue, type ReceiveQueueOptions } from '../queues/receive-queue.ts';
import { TransmitQueue, type TransmitQueueOptions } from '../queues/transmit-queue.ts';
import { Driver } from './driver.ts';
import type { DriverEvents } from './driver-spec.ts';

/** A {@link Driver} that can have receive and transmit queues beside its queues of requests. */
export abstract class BufferDriver<
  Name extends string,
  EventMap extends DriverEvents = DriverEvents,
> extends Driver<Name, EventMap> {
  /** Makes a queue for what the device sends unasked. */
  protected createReceiveQueue(options: ReceiveQueueOptions): ReceiveQueue {
    return this.createDriverQueue(options, (parts) => new ReceiveQueue(parts, options));
  }

  /** Makes a queue with buffers to be sent. */
  protected createTransmitQueue(options: TransmitQueueOptions): TransmitQueue {
    return this.createDriverQueue(options, (parts) => new TransmitQueue(parts, options));
  }
}
