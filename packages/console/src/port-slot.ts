/**
 * What stays of a port when it comes and goes: its two queues. They are set up with the device; their buffers are allocated when
 * the device adds a port there for the first time, and stay in the queues when it is removed.
 */
import type { ReceiveQueue, TransmitQueue } from '@virtio/core';
import type { ConsolePort, PortState } from './console-port.ts';
import type { Receiver } from './receiver.ts';

/** A port, while the device has it. */
export interface PortEntry {
  readonly port: ConsolePort;
  readonly state: PortState;
  readonly receiver: Receiver;
}

/** The queues of a port, whether the device has the port now or not. */
export class PortSlot {
  readonly id: number;
  /** Who waits for something to read, or for the far side, waits here. */
  readonly receive: ReceiveQueue;
  /** Who waits for room to write, or for the far side, waits here. */
  readonly transmit: TransmitQueue;
  /** The port, while the device has it. */
  entry: PortEntry | undefined;

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
