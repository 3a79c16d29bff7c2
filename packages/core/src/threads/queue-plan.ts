/**
 * The plan with which a thread drives queues of another thread's device, as plain data that can be posted: where the rings are, how
 * the device is notified and how it interrupts, and the control block through which the two threads learn of resets and failures.
 */
import type { DmaRegion, Hal } from '../memory/hal.ts';
import type { InterruptSource } from '../device/interrupts.ts';

/** A description of memory as plain data, with which another thread can access it. */
export interface PostedMemory {
  /** The address in this process, or another number by which the platform finds it. */
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
      /** The value to write; the length of the memory says whether 16 or 32 bits. */
      readonly value: number;
      /** Whether the upper 16 of 32 bits hold where the next buffer will be [2.9]. */
      readonly data: boolean;
    }
  | {
      /** A descriptor of the operating system, such as an eventfd; the thread that opens the plan owns it. */
      readonly kind: 'descriptor';
      readonly descriptor: number;
    };

/** How a queue that is lent to another thread is notified and interrupts; see {@link Transport.lendQueue}. */
export interface QueueSignals {
  /** How the device is notified; a register in mapped memory is given as its bytes. */
  readonly doorbell:
    | {
        readonly kind: 'register';
        readonly register: Uint8Array<ArrayBuffer>;
        readonly value: number;
        readonly data: boolean;
      }
    | { readonly kind: 'descriptor'; readonly descriptor: number };
  /** The descriptor that the queue's interrupts signal, which the other thread then owns; `undefined` if that thread must poll. */
  readonly interrupt: number | undefined;
  /** Closes the descriptors, if no thread has taken them. */
  readonly close?: () => void;
}

/** One queue of a {@link QueuePlan}. */
export interface PlannedQueue {
  /** The index of the queue at the device. */
  readonly index: number;
  /** Its size in descriptors. */
  readonly size: number;
  /**
   * Two sets of memory for the rings. A reset switches to the other set, because a thread that does not know of it yet may still
   * write to the first.
   */
  readonly rings: readonly [readonly PostedMemory[], readonly PostedMemory[]];
  readonly doorbell: Doorbell;
  readonly interrupt: number | undefined;
}

/** All that another thread needs to drive queues of a device: plain data to be posted, which can be opened once. */
export interface QueuePlan {
  /** The type of the device. */
  readonly deviceType: number;
  /** The device, for messages. */
  readonly name: string;
  /** The negotiated features, without those that the other thread cannot use. */
  readonly features: bigint;
  /** Whether the rings have the legacy layout. */
  readonly legacy: boolean;
  readonly queues: readonly PlannedQueue[];
  /** DMA memory for buffers of the other thread. */
  readonly memory: PostedMemory;
  /** Options that the driver there must have. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The control block, through which the threads learn of resets and failures. */
  readonly control: SharedArrayBuffer;
}

/** A {@link Hal} whose memory other threads can use. */
export interface PostingHal extends Hal {
  /**
   * Describes mapped memory (DMA memory, or registers) so that another thread can use it. It stays mapped until it is given back,
   * even if the Hal is disposed.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for other memory
   */
  post(bytes: Uint8Array): PostedMemory;
}

/** What a thread needs of its platform to drive the queues of a plan. */
export interface QueuePlatform {
  /** The thread's own DMA memory: that of the plan. */
  readonly hal: Hal;
  /**
   * The interrupts of this thread's queues, if there are any, by the index of the queue in the plan. Changes of the configuration
   * and removal are reported through the control block.
   */
  readonly interrupts: InterruptSource | undefined;
  /** The memory that was posted. */
  attach(memory: PostedMemory): DmaRegion;
  /**
   * Notifies the device.
   *
   * @param queue the index of the queue in the plan
   */
  notify(queue: number, next: number): void;
  /**
   * Releases what the platform holds for the thread.
   *
   * @param opened whether the plan was opened here: its descriptors then belong to this thread. Otherwise they belong to another
   * thread that opened it, or still to the one that made it
   */
  close(opened: boolean): void;
}
