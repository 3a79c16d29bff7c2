/**
 * A second socket, made by the front end, on which the back end sends requests and the front end answers. Nothing blocks; a request
 * is read only after the answer to the one before was sent.
 */
import { VirtioError } from '@virtio/core';
import { closeDescriptor, type EventPoller, UnixSocket } from '@virtio/linux';
import type { Aside } from './channel.ts';
import type { Message, MessageReader } from './message.ts';

/** How many reads of the socket are done at once: a back end that never stops sending must not block the event loop. */
const BATCH = 64;

/**
 * Handles a message. The back end waits for the answer, if the message has one: answer before you send the back end a request.
 * Descriptors that the handler does not take are closed. A {@link VirtioError} ends the channel.
 */
export type MessageHandler = (message: Message, answer: (bytes: Uint8Array) => void) => void;

/** The front end's side of the socket. */
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
   * @param reader assembles the messages
   */
  constructor(poller: EventPoller, reader: MessageReader, handle: MessageHandler) {
    [this.#own, this.#theirs] = UnixSocket.pair();
    this.#poller = poller;
    this.#reader = reader;
    this.#handle = handle;
    try {
      poller.watch(this.#own.fd, this.pump, true);
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  /** The descriptor of the front end's side; -1 when the channel is closed. */
  get fd(): number {
    return this.#closed ? -1 : this.#own.fd;
  }

  /** The descriptor for the back end, until {@link SideChannel.handedOver}. */
  get theirs(): number {
    return this.#theirs?.fd ?? -1;
  }

  /** Closes the back end's descriptor here, as the back end has received it. */
  handedOver(): void {
    this.#theirs?.[Symbol.dispose]();
    this.#theirs = undefined;
  }

  /** Handles the messages that have arrived. */
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
      // The channel carries notices only: an invalid message ends it, not the device.
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

  /** Sends the pending answer. The next request is not read before it was sent. */
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
