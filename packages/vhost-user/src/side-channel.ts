/**
 * A socket of our own making on which the back end asks and we answer, beside the main one. Nothing blocks; a request is taken only
 * after the answer to the one before it went out.
 */
import { VirtioError } from '@virtio/core';
import { closeDescriptor, type EventPoller, UnixSocket } from '@virtio/linux';
import type { Aside } from './channel.ts';
import type { Message, MessageReader } from './message.ts';

/** How often the socket is read in one go: a back end that asks without end does not stop the event loop. */
const BATCH = 64;

/**
 * Takes a message. What waits for the answer, if it has one, is the back end: answer before anything that asks it. Descriptors that the
 * handler leaves are closed. A {@link VirtioError} ends the channel.
 */
export type MessageHandler = (message: Message, answer: (bytes: Uint8Array) => void) => void;

/** Listens to the back end. */
export class SideChannel implements Aside, Disposable {
  readonly #own: UnixSocket;
  #theirs: UnixSocket | undefined;
  readonly #poller: EventPoller;
  readonly #reader: MessageReader;
  readonly #handle: MessageHandler;
  #reply: Uint8Array | undefined;
  #scheduled: NodeJS.Immediate | undefined;
  #closed = false;

  /**
   * @param reader puts the messages together
   */
  constructor(poller: EventPoller, reader: MessageReader, handle: MessageHandler) {
    [this.#own, this.#theirs] = UnixSocket.pair();
    this.#poller = poller;
    this.#reader = reader;
    this.#handle = handle;
    poller.watch(this.#own.fd, this.pump, true);
  }

  /** The descriptor that we keep, -1 when the channel is closed. */
  get fd(): number {
    return this.#closed ? -1 : this.#own.fd;
  }

  /** The descriptor for the back end, until {@link SideChannel.handedOver}. */
  get theirs(): number {
    return this.#theirs?.fd ?? -1;
  }

  /** The back end has its end now. */
  handedOver(): void {
    this.#theirs?.[Symbol.dispose]();
    this.#theirs = undefined;
  }

  /** Takes what has come. */
  readonly pump = (): void => {
    try {
      for (let n = 0; n < BATCH; n += 1) {
        if (this.#closed || !this.#flush()) return;
        const received = this.#own.receive(this.#reader.needed);
        if (received === undefined) return;
        if (received.bytes.length === 0) {
          this.#close();
          return;
        }
        const message = this.#reader.push(received.bytes, received.descriptors);
        if (message !== undefined) this.#take(message);
      }
    } catch (error) {
      // The channel is for news only: what cannot be understood is the end of it, not of the device.
      if (!VirtioError.is(error)) throw error;
      this.#close();
      return;
    }
    this.#scheduled ??= setImmediate(this.#again);
  };

  [Symbol.dispose](): void {
    this.#close();
  }

  readonly #again = (): void => {
    this.#scheduled = undefined;
    this.pump();
  };

  #take(message: Message): void {
    try {
      this.#handle(message, this.#answer);
    } finally {
      for (const fd of message.descriptors.splice(0)) closeDescriptor(fd);
    }
  }

  readonly #answer = (bytes: Uint8Array): void => {
    this.#reply = bytes;
    this.#flush();
  };

  /** Sends the answer that is due. The next request is not taken before it went out. */
  #flush(): boolean {
    while (this.#reply !== undefined) {
      const sent = this.#own.send(this.#reply);
      if (sent < 0) this.#close();
      if (sent <= 0) return false;
      this.#reply = sent === this.#reply.length ? undefined : this.#reply.subarray(sent);
    }
    return true;
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#scheduled) clearImmediate(this.#scheduled);
    this.#poller.unwatch(this.#own.fd);
    this.handedOver();
    for (const fd of this.#reader.takeDescriptors()) closeDescriptor(fd);
    this.#own[Symbol.dispose]();
  }
}
