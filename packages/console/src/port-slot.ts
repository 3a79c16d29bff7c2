/**
 * What stays of a port when it comes and goes: its two queues and the buffers in them. The queues are set up with the device;
 * buffers are allocated when the device adds a port there for the first time, and stay in the queues when it is removed.
 */
import {
  type DmaRegion,
  type Hal,
  OwningQueue,
  type Transport,
  type VirtioError,
  type VirtQueue,
  Waiters,
} from '@virtio/core';
import type { ConsolePort, PortState } from './console-port.ts';
import type { Receiver } from './receiver.ts';
import { Transmitter } from './transmitter.ts';

/** How the buffers of a port are. */
export interface BufferPlan {
  readonly count: number;
  readonly size: number;
  readonly accessPlatform: boolean;
  /** Allocates memory that lives as long as the driver. */
  readonly allocate: (bytes: number) => DmaRegion;
}

/** A port, while the device has it. */
export interface PortEntry {
  readonly port: ConsolePort;
  readonly state: PortState;
  readonly receiver: Receiver;
}

/** The queues of a port, whether the device has the port now or not. */
export class PortSlot {
  readonly id: number;
  readonly receiveQueue: VirtQueue;
  readonly transmitQueue: VirtQueue;
  /** Those who wait for something to read, or for the far side. */
  readonly readers: Waiters;
  /** Those who wait for room to write, or for the far side. */
  readonly writers: Waiters;
  /** The port, while the device has it. */
  entry: PortEntry | undefined;

  #receive: OwningQueue | undefined;
  #transmitter: Transmitter | undefined;

  constructor(
    id: number,
    transport: Transport,
    receiveQueue: VirtQueue,
    transmitQueue: VirtQueue,
    report: (error: VirtioError) => void,
  ) {
    this.id = id;
    this.receiveQueue = receiveQueue;
    this.transmitQueue = transmitQueue;
    this.readers = new Waiters(transport, receiveQueue, {
      drain: () => {
        if (this.entry === undefined) this.readers.settle();
        else this.entry.port.lookForData();
      },
      report,
    });
    this.writers = new Waiters(transport, transmitQueue, {
      drain: () => {
        if (this.entry === undefined) this.writers.settle();
        else this.entry.port.lookForRoom();
      },
      report,
    });
  }

  /** The buffers to receive with, once they are allocated. */
  get receive(): OwningQueue | undefined {
    return this.#receive;
  }

  /** The buffers to send with, once they are allocated. */
  get transmitter(): Transmitter | undefined {
    return this.#transmitter;
  }

  /**
   * Allocates the buffers if that has not happened.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  prepare(
    hal: Hal,
    { count, size, accessPlatform, allocate }: BufferPlan,
  ): {
    readonly receive: OwningQueue;
    readonly transmitter: Transmitter;
  } {
    const { receiveQueue, transmitQueue } = this;
    if (this.#transmitter === undefined) {
      const buffers = Math.min(count, transmitQueue.size);
      this.#transmitter = new Transmitter(transmitQueue, allocate(buffers * size), buffers, size);
    }
    this.#receive ??= new OwningQueue(receiveQueue, hal, {
      bufferSize: size,
      count: Math.min(count, receiveQueue.size),
      accessPlatform,
    });
    return { receive: this.#receive, transmitter: this.#transmitter };
  }

  /** Lets all who wait look again. */
  wake(): void {
    this.readers.wake();
    this.writers.wake();
  }

  /** Ends all waits. */
  fail(error: VirtioError): void {
    this.readers.fail(error);
    this.writers.fail(error);
  }
}
