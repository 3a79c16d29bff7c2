/** A virtqueue as the back end sees it: size, addresses, and the eventfds by which the two sides notify each other. */
import type { QueueSignals } from '@virtio/core';
import { closeDescriptor, duplicate, type EventPoller, eventfd, signalEventfd } from '@virtio/linux';
import { encode, U64, VringAddress, VringState } from './protocol.ts';
import type { Session } from './session.ts';

/** The size and addresses of a vring. */
export interface VringPlace {
  readonly index: number;
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
  /** How many chains the back end has not used yet, as the driver's ring shows it. */
  readonly unused: () => number;
}

/** Handlers of the back end's signals. */
export interface VringSignals {
  /** Called for used buffers; without it the eventfd is ignored. */
  readonly onCall: (() => void) | undefined;
  /** Called when the back end cannot go on with the vring. */
  readonly onError: () => void;
}

/** The eventfds of a queue, which stay the same when the queue is set up again: another thread may have them. */
export class VringLines implements Disposable {
  /** Signalled by the front end. */
  readonly kick: number;
  /**
   * Signalled by the back end. It exists even if nothing waits for it: back ends built on libvhost-user always signal once, and end
   * if they cannot.
   */
  readonly call: number;
  /** Whether another thread waits for the calls. */
  lent = false;

  constructor() {
    [this.kick, this.call] = pairOf(eventfd, eventfd);
  }

  [Symbol.dispose](): void {
    closeDescriptor(this.kick);
    closeDescriptor(this.call);
  }
}

/** Opens two descriptors, or none. */
function pairOf(first: () => number, second: () => number): [number, number] {
  const one = first();
  try {
    return [one, second()];
  } catch (error) {
    closeDescriptor(one);
    throw error;
  }
}

/** One vring. */
export class Vring implements Disposable {
  readonly place: VringPlace;
  readonly #poller: EventPoller;
  readonly #lines: VringLines;
  readonly #error: number;
  #watched = false;
  #closed = false;

  constructor(place: VringPlace, poller: EventPoller, lines: VringLines, { onCall, onError }: VringSignals) {
    this.place = place;
    this.#poller = poller;
    this.#lines = lines;
    this.#error = eventfd();
    try {
      poller.watch(this.#error, onError);
      if (onCall === undefined || lines.lent) return;
      poller.watch(lines.call, onCall);
      this.#watched = true;
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Returns the eventfds for another thread, which then owns them; calls are no longer handled here. */
  lend(): QueueSignals {
    const [kick, call] = pairOf(
      () => duplicate(this.#lines.kick),
      () => duplicate(this.#lines.call),
    );
    this.#unwatch();
    this.#lines.lent = true;
    return {
      doorbell: { kind: 'descriptor', descriptor: kick },
      interrupt: call,
      close: () => {
        closeDescriptor(kick);
        closeDescriptor(call);
      },
    };
  }

  /** Whether another thread drives it. */
  get lent(): boolean {
    return this.#lines.lent;
  }

  /** Notifies the back end of new available buffers. */
  kick(): void {
    if (!this.#closed) signalEventfd(this.#lines.kick);
  }

  /**
   * Sends the vring to a back end, which serves it as soon as it is kicked and, with features of the protocol, enabled.
   *
   * @param base where the back end begins
   */
  tell(session: Session, base: number): void {
    const { index, size, descriptors, driverArea, deviceArea } = this.place;
    const of = ` of queue ${index}`;
    session.tell('SET_VRING_NUM', encode(VringState, { index, num: size }), [], `SET_VRING_NUM ${size}${of}`);
    session.tell('SET_VRING_BASE', encode(VringState, { index, num: base }), [], `SET_VRING_BASE${of}`);
    const addresses = {
      index,
      descriptor: BigInt(descriptors),
      available: BigInt(driverArea),
      used: BigInt(deviceArea),
    };
    session.tell('SET_VRING_ADDR', encode(VringAddress, addresses), [], `SET_VRING_ADDR${of}`);
    this.#tellDescriptor(session, 'SET_VRING_ERR', this.#error);
    this.#tellDescriptor(session, 'SET_VRING_CALL', this.#lines.call);
    this.#tellDescriptor(session, 'SET_VRING_KICK', this.#lines.kick);
  }

  /** Enables the vring, for a back end with features of the protocol. */
  enable(session: Session): void {
    const { index } = this.place;
    session.tell(
      'SET_VRING_ENABLE',
      encode(VringState, { index, num: 1 }),
      [],
      `SET_VRING_ENABLE of queue ${index}`,
    );
  }

  /** Closes what belongs to the vring alone. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.unwatch(this.#error);
    closeDescriptor(this.#error);
    this.#unwatch();
  }

  #unwatch(): void {
    if (!this.#watched) return;
    this.#watched = false;
    this.#poller.unwatch(this.#lines.call);
  }

  #tellDescriptor(
    session: Session,
    name: 'SET_VRING_ERR' | 'SET_VRING_CALL' | 'SET_VRING_KICK',
    fd: number,
  ): void {
    const { index } = this.place;
    session.tell(name, encode(U64, { value: BigInt(index) }), [fd], `${name} of queue ${index}`);
  }
}
