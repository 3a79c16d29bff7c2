/**
 * What stays of a port when it comes and goes: its two queues. They are set up with the device; their buffers are allocated when
 * the device adds a port there for the first time, and stay in the queues when it is removed.
 */
import type { ReceiveQueue, TransmitQueue } from '@virtio/core';

/** The queues of a port, whether the device has the port now or not; `Entry` is what there is of the port while it has it. */
export class PortSlot<Entry = unknown> {
  readonly id: number;
  /** Who waits for something to read, or for the far side, waits here. */
  readonly receive: ReceiveQueue;
  /** Who waits for room to write, or for the far side, waits here. */
  readonly transmit: TransmitQueue;
  /** The port, while the device has it. */
  entry: Entry | undefined;

  constructor(id: number, receive: ReceiveQueue, transmit: TransmitQueue) {
    this.id = id;
    this.receive = receive;
    this.transmit = transmit;
  }

  /** Lets all who wait look again. */
  wake(): void {
    this.receive.wake();
    this.transmit.wake();
  }
}
