/** What the parts of a connection need of its manager, and what a message is. */
import type { SpinOptions } from '@virtio/core';
import type { Waiting } from './wait-line.ts';

/** What a connection needs of its manager. */
export interface ConnectionPort {
  readonly waiting: Waiting;
  drain(): void;
  /** Sends what is due first, so that data keep their place behind it. */
  beforeSend(): void;
  /** Wakes those who write when there is room for packets. */
  awaitRoom(): void;
  spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void;
}

/** A message of a seqpacket socket. */
export interface VsockMessage {
  readonly data: Uint8Array<ArrayBuffer>;
  /** Whether it ends a record. */
  readonly endOfRecord: boolean;
}

/** Options of a message that is sent. */
export interface MessageOptions {
  /** Whether it ends a record (default false). */
  readonly endOfRecord?: boolean;
}
