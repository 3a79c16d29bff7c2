/** What the parts of a connection need from its manager, and the type of messages. */
import type { SpinOptions } from '@virtio/core';
import type { Waiting } from './wait-line.ts';

/** What a connection needs from its manager. */
export interface ConnectionPort {
  readonly waiting: Waiting;
  drain(): void;
  /** A turn for other work, if one is due. */
  fairTurn(): Promise<void> | undefined;
  /** Sends the packets that are due before data. */
  beforeSend(): void;
  /** Wakes writers when there is room for packets. */
  awaitRoom(): void;
  spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void;
}

/** A message of a seqpacket socket. */
export interface VsockMessage {
  readonly data: Uint8Array<ArrayBuffer>;
  /** Whether it ends a record. */
  readonly endOfRecord: boolean;
}

/** Options of a message to send. */
export interface MessageOptions {
  /** Whether it ends a record (default false). */
  readonly endOfRecord?: boolean;
}
