/**
 * The channel on which the back end asks (BACKEND_REQ). A configuration that changed and an error of a vring are taken; all else
 * belongs to features that are not accepted, and is refused.
 */
import { VirtioError } from '@virtio/core';
import { closeDescriptor, type EventPoller, UnixSocket } from '@virtio/linux';
import { encodeMessage, type Message, MessageReader } from './message.ts';
import { BackendRequest, encode, HeaderFlag, U64 } from './protocol.ts';

/** How many requests are taken in one go: a back end that asks without end does not stop the event loop. */
const BATCH = 32;

/** Listens to the back end. */
export class BackendChannel implements Disposable {
  readonly #own: UnixSocket;
  #theirs: UnixSocket | undefined;
  readonly #poller: EventPoller;
  readonly #replies: boolean;
  readonly #onConfigChange: () => void;
  readonly #reader = new MessageReader();
  #reply: Uint8Array | undefined;
  #scheduled: NodeJS.Immediate | undefined;
  #closed = false;

  /**
   * @param replies whether `REPLY_ACK` was negotiated
   * @param onConfigChange the configuration has changed
   */
  constructor(poller: EventPoller, replies: boolean, onConfigChange: () => void) {
    [this.#own, this.#theirs] = UnixSocket.pair();
    this.#poller = poller;
    this.#replies = replies;
    this.#onConfigChange = onConfigChange;
    poller.watch(this.#own.fd, this.pump, true);
  }

  /** The descriptor that we keep, -1 when the channel is closed. */
  get fd(): number {
    return this.#closed ? -1 : this.#own.fd;
  }

  /** The descriptor for the back end, until {@link BackendChannel.handedOver}. */
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
      for (let n = 0; n < BATCH;) {
        if (this.#closed || !this.#flush()) return;
        const received = this.#own.receive(this.#reader.needed);
        if (received === undefined) return;
        if (received.bytes.length === 0) {
          this.#close();
          return;
        }
        const message = this.#reader.push(received.bytes, received.descriptors);
        if (message === undefined) continue;
        n += 1;
        this.#handle(message);
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

  /** Sends the answer that is due. The next request is not taken before it went out. */
  #flush(): boolean {
    if (this.#reply === undefined) return true;
    const sent = this.#own.send(this.#reply);
    if (sent < this.#reply.length) {
      if (sent < 0) this.#close();
      else this.#reply = this.#reply.subarray(sent);
      return false;
    }
    this.#reply = undefined;
    return true;
  }

  #handle(message: Message): void {
    for (const fd of message.descriptors.splice(0)) closeDescriptor(fd);
    const known = message.request === BackendRequest.CONFIG_CHANGE_MSG;
    if (this.#replies && (message.flags & HeaderFlag.NEED_REPLY) !== 0) {
      const payload = encode(U64, { value: known ? 0n : 1n });
      this.#reply = encodeMessage(message.request, payload, HeaderFlag.REPLY);
      this.#flush();
    }
    if (known) this.#onConfigChange();
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
