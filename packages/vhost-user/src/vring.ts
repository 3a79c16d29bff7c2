/** A virtqueue as the back end is told of it: size, addresses, and the eventfds by which the two sides call each other. */
import { closeSync } from 'node:fs';
import { type EventPoller, eventfd, signalEventfd } from '@virtio/linux';
import { encode, U64, VringAddress, VringState } from './protocol.ts';
import type { Session } from './session.ts';

/** Where a vring is. */
export interface VringPlace {
  readonly index: number;
  readonly size: number;
  readonly descriptors: number;
  readonly driverArea: number;
  readonly deviceArea: number;
}

/** Who is told what the back end signals. */
export interface VringSignals {
  /** Used buffers; without it nobody looks at the eventfd. */
  readonly onCall: (() => void) | undefined;
  /** The back end cannot go on with the vring. */
  readonly onError: () => void;
}

/** One vring. */
export class Vring implements Disposable {
  readonly place: VringPlace;
  readonly #poller: EventPoller;
  readonly #kick: number;
  readonly #call: number;
  readonly #error: number;
  #closed = false;

  constructor(place: VringPlace, poller: EventPoller, { onCall, onError }: VringSignals) {
    this.place = place;
    this.#poller = poller;
    this.#kick = eventfd();
    this.#error = eventfd();
    poller.watch(this.#error, onError);
    // There is one also where nobody waits for it: back ends that stand on libvhost-user signal once in any case, and end where they
    // cannot.
    this.#call = eventfd();
    if (onCall !== undefined) poller.watch(this.#call, onCall);
  }

  /** Tells the back end that there are new buffers. */
  kick(): void {
    if (!this.#closed) signalEventfd(this.#kick);
  }

  /**
   * Tells a session all about the vring, which the back end then serves as soon as it is kicked and, if it has features of the
   * protocol, enabled.
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
    this.#tellDescriptor(session, 'SET_VRING_CALL', this.#call);
    this.#tellDescriptor(session, 'SET_VRING_KICK', this.#kick);
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

  /** Closes the eventfds. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.unwatch(this.#error);
    closeSync(this.#error);
    closeSync(this.#kick);
    this.#poller.unwatch(this.#call);
    closeSync(this.#call);
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
