/**
 * The control queues of a device with several ports.
 *
 * Messages to the device go one at a time, and before the next one all messages from the device are taken and their
 * buffers given back: QEMU answers a message with up to three of its own and drops those for which it has no buffer.
 */
import { type ReceiveQueue, type Transport, type TransmitQueue, VirtioError } from '@virtio/core';
import { ConsoleControl } from './protocol.ts';

/**
 * The bytes of a buffer for messages from the device: a name may be so long, less the 8 bytes of the header. As many as Linux
 * has; QEMU claims to have written more if a name is longer.
 */
export const CONTROL_BUFFER = 4096;

/** A message from the device. */
export interface ControlMessage {
  /** The port. */
  readonly id: number;
  /** One of {@link ControlEvent}. */
  readonly event: number;
  readonly value: number;
  /** What follows the header, valid only while the message is handled. */
  readonly rest: Uint8Array;
}

interface Outgoing {
  readonly id: number;
  readonly event: number;
  readonly value: number;
}

/** Messages to and from the device. */
export class ControlLink {
  /** The queue from the device. */
  readonly receive: ReceiveQueue;
  /** The queue to the device, with one buffer. */
  readonly transmit: TransmitQueue;

  readonly #transport: Transport;
  readonly #handle: (message: ControlMessage) => void;
  readonly #outgoing: Outgoing[] = [];
  /** The message that the device has. */
  #sent: Outgoing | undefined;
  #receiving = false;

  /** @param handle is called with each message from the device */
  constructor(
    transport: Transport,
    receive: ReceiveQueue,
    transmit: TransmitQueue,
    handle: (message: ControlMessage) => void,
  ) {
    this.#transport = transport;
    this.receive = receive;
    this.transmit = transmit;
    this.#handle = handle;
  }

  /**
   * Queues a message to the device. One that repeats the last queued message of its kind for its port is left out, so that a device that
   * asks repeatedly, and takes no answer, cannot exhaust memory.
   */
  send(id: number, event: number, value: number): void {
    const last = this.#outgoing.findLast((message) => message.id === id && message.event === event);
    if (last?.value !== value) this.#outgoing.push({ id, event, value });
    this.next();
  }

  /** Drops the messages about a port that are not sent yet. */
  forget(id: number): void {
    const kept = this.#outgoing.filter((message) => message.id !== id);
    this.#outgoing.splice(0, Infinity, ...kept);
  }

  /**
   * Takes what the device has sent, and sends the next message.
   *
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`
   */
  take(): void {
    this.#receiving = true;
    try {
      this.receive.poll(this.#received);
    } finally {
      this.#receiving = false;
    }
    this.next();
  }

  /** After a reset of the device: nothing is queued. */
  reset(): void {
    this.#outgoing.length = 0;
    this.#sent = undefined;
  }

  /** The device has used the last message. */
  used(): void {
    this.#sent = undefined;
    this.next();
  }

  /** The queue to the device was reset alone: sends the message that it may have lost again. All of them may be repeated. */
  resend(): void {
    if (this.#sent !== undefined) this.#outgoing.unshift(this.#sent);
    this.next();
  }

  /** Sends the next message if the device has used the one before. */
  next(): void {
    if (this.#receiving || this.#outgoing.length === 0 || this.transmit.failure !== undefined) return;
    const number = this.transmit.take();
    if (number < 0) return;
    const message = this.#outgoing.shift() as Outgoing;
    this.#sent = message;
    const buffer = this.transmit.buffer(number);
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    ConsoleControl.write(view, 0, { ...message });
    // One descriptor, as a legacy device wants it [5.3.6.4].
    this.transmit.send(number, ConsoleControl.size);
    this.transmit.kick();
  }

  readonly #received = (bytes: Uint8Array): void => {
    if (bytes.length < ConsoleControl.size) {
      throw this.#transport.fail(
        new VirtioError(
          'DEVICE_MISBEHAVED',
          `${this.#transport.who()} sent a control message of ${bytes.length} bytes; it has ${ConsoleControl.size} or more. ` +
            'It is not trusted any more: reset or dispose its driver',
        ),
      );
    }
    const header = ConsoleControl.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    this.#handle({ ...header, rest: bytes.subarray(ConsoleControl.size) });
  };
}
