/**
 * What it takes to drive a queue of another thread's device, as plain data that can be posted: where the rings are, how the device
 * is notified and how it interrupts, and the block of memory by which the two threads tell each other of resets and failures.
 */
import type { DmaRegion, Hal } from '../memory/hal.ts';
import type { InterruptSource } from '../device/interrupts.ts';

/** Memory as plain data, that another thread finds by its address. */
export interface PostedMemory {
  /** The address in this process, or whatever the platform finds it by. */
  readonly pointer: number;
  /** The address for the device. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

/** How a device is notified of a queue from another thread. */
export type Doorbell =
  | {
      /** A register in mapped memory. */
      readonly kind: 'register';
      readonly memory: PostedMemory;
      /** What is written, in 16 or 32 bits as the memory is long. */
      readonly value: number;
      /** Whether the upper half of 32 bits tells where the next buffer will be [2.9]. */
      readonly data: boolean;
    }
  | {
      /** A descriptor of the operating system, as an eventfd; the thread that opens the plan owns it. */
      readonly kind: 'descriptor';
      readonly descriptor: number;
    };

/** What a transport says of a queue that goes to another thread; see {@link Transport.lendQueue}. */
export interface QueueSignals {
  /** Where the device is notified: a register of mapped memory is given as its bytes. */
  readonly doorbell:
    | {
        readonly kind: 'register';
        readonly register: Uint8Array<ArrayBuffer>;
        readonly value: number;
        readonly data: boolean;
      }
    | { readonly kind: 'descriptor'; readonly descriptor: number };
  /** The descriptor that interrupts of the queue signal, for the other thread to own; `undefined`: it has to poll. */
  readonly interrupt: number | undefined;
  /** Closes the descriptors, where there is no thread to do that. */
  readonly close?: () => void;
}

/** One queue of a {@link QueuePlan}. */
export interface PlannedQueue {
  /** The index of the queue at the device. */
  readonly index: number;
  /** Its size in descriptors. */
  readonly size: number;
  /** Two sets of memory for the rings. A reset changes from one to the other, as a thread that knows nothing yet may still write. */
  readonly rings: readonly [readonly PostedMemory[], readonly PostedMemory[]];
  readonly doorbell: Doorbell;
  readonly interrupt: number | undefined;
}

/** All that another thread needs to drive queues of a device: plain data to be posted, opened there once. */
export interface QueuePlan {
  /** The type of the device. */
  readonly deviceType: number;
  /** The device, for messages. */
  readonly name: string;
  /** What was negotiated, without what the other thread cannot use. */
  readonly features: bigint;
  /** Whether the rings have the legacy layout. */
  readonly legacy: boolean;
  readonly queues: readonly PlannedQueue[];
  /** Memory that the device reaches, for buffers of the other thread. */
  readonly memory: PostedMemory;
  /** Options that its driver must have. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The block of memory by which the threads tell each other of resets and failures. */
  readonly control: SharedArrayBuffer;
}

/** A {@link Hal} whose memory other threads can use. */
export interface PostingHal extends Hal {
  /**
   * Describes mapped memory (DMA memory, or registers) so that another thread can use it. It stays mapped for as long as it is not
   * given back, also when the Hal is disposed.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for other memory
   */
  post(bytes: Uint8Array): PostedMemory;
}

/** What a thread needs of its platform to drive the queues of a plan. */
export interface QueuePlatform {
  /** DMA memory of the thread's own: that of the plan. */
  readonly hal: Hal;
  /** How the device interrupts this thread, if it does, by the index of the queue in the plan. Changes and removal are told otherwise. */
  readonly interrupts: InterruptSource | undefined;
  /** The memory that was posted. */
  attach(memory: PostedMemory): DmaRegion;
  /**
   * Notifies the device.
   *
   * @param queue the index of the queue in the plan
   */
  notify(queue: number, next: number): void;
  /** Gives back what the thread has of its platform. */
  close(): void;
}
