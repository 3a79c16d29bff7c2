/** The notifications of a device: taken from its event queue, told to listeners, and kept until they are asked for. */
import {
  type ReceiveQueue,
  requireWaitable,
  type SpinOptions,
  type Transport,
  type WaitOptions,
} from '@virtio/core';
import { type ItemCounts, parseNotification, type SoundNotification } from './notifications.ts';
import { SoundEventLayout } from './protocol.ts';

/** The number of notifications that are kept; if more arrive, the oldest are dropped. */
const MAX_NOTIFICATIONS = 256;

/** What a {@link NotificationQueue} needs from the driver. */
export interface NotificationQueueParts {
  readonly transport: Transport;
  /** The numbers of items, to check the numbers in events. */
  readonly counts: () => ItemCounts;
  /** Tells the listeners. */
  readonly tell: (notification: SoundNotification) => void;
  /** Throws why the device no longer works. */
  readonly checkUsable: () => void;
  /** Reports that the device broke the specification and nothing was at risk. */
  readonly quirk: (message: string) => void;
}

/** The notifications that were not taken yet, the oldest first. */
export class NotificationQueue {
  /** How many were dropped because they were not taken. */
  lost = 0;

  readonly #parts: NotificationQueueParts;
  readonly #kept: SoundNotification[] = [];
  #events: ReceiveQueue | undefined;
  #received = 0;

  constructor(parts: NotificationQueueParts) {
    this.#parts = parts;
  }

  /** Sets the event queue. */
  attach(events: ReceiveQueue): void {
    this.#events = events;
  }

  /** The device was reset. */
  forget(): void {
    this.#kept.length = 0;
  }

  /** Takes the oldest notification, or `undefined`. */
  pop(): SoundNotification | undefined {
    const { checkUsable } = this.#parts;
    checkUsable();
    this.#queue.drain();
    const notification = this.#kept.shift();
    // The device may have lied just now.
    if (notification === undefined) checkUsable();
    return notification;
  }

  /** Waits for the next notification. */
  async next(options?: WaitOptions): Promise<SoundNotification> {
    const turn = this.#queue.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no notification.
      requireWaitable(this.#parts.transport, options);
      const notification = this.pop();
      if (notification !== undefined) return notification;
      await this.#queue.wait(options);
    }
  }

  /** Waits for the next notification, spinning. */
  nextSync(options?: SpinOptions): SoundNotification {
    const found: { notification?: SoundNotification | undefined } = {};
    this.#queue.spin(() => (found.notification = this.pop()) !== undefined, options, 'a notification');
    if (found.notification === undefined) throw new TypeError('the wait ended without a notification');
    return found.notification;
  }

  /** Takes what the device has sent; returns whether that was a notification. */
  receive(): boolean {
    const before = this.#received;
    this.#queue.poll((bytes) => {
      this.#take(bytes);
    });
    return this.#received !== before;
  }

  #take(bytes: Uint8Array): void {
    const { counts, quirk, tell } = this.#parts;
    if (bytes.length < SoundEventLayout.size) {
      quirk(`an event has ${bytes.length} bytes instead of ${SoundEventLayout.size}; it was ignored`);
      return;
    }
    const { code, data } = SoundEventLayout.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    const notification = parseNotification(code, data, counts());
    if (notification === undefined) {
      quirk(
        `event 0x${code.toString(16)} with data 0x${data.toString(16)} is unknown, or for an unknown item; it was ignored`,
      );
      return;
    }
    this.#received += 1;
    if (this.#kept.length === MAX_NOTIFICATIONS) {
      this.#kept.shift();
      this.lost += 1;
    }
    this.#kept.push(notification);
    tell(notification);
  }

  get #queue(): ReceiveQueue {
    if (this.#events === undefined) throw new TypeError('the event queue is not there yet');
    return this.#events;
  }
}
