/**
 * The description of a driver under test: how to make it, how to make one request in each form that it has, and what its device
 * answers. The contract and the fuzzer know nothing else of a driver.
 *
 * Everything that goes to the device or comes from it carries a mark, a small number: this shows whether an answer reached its
 * own request, and whether anything was lost, sent twice or mixed up.
 */
import type { AbortSignalLike, Hal, Quirk, VirtioError, VirtioErrorCode } from '@virtio/core';
import type { Chain } from '../chain.ts';
import type { FakeDevice } from '../fake-device.ts';
import type { FakeTransport } from '../fake-transport.ts';

/** The largest mark; the smallest is 1. */
export const MAX_MARK = 1000;

/** What the contract needs of a driver; every subclass of `Driver` of `@virtio/core` has it. */
export interface ContractDriver extends Disposable {
  readonly failure: VirtioError | undefined;
  on(event: 'failure', listener: (error: VirtioError) => void): () => void;
  on(event: 'used', listener: (queue: number) => void): () => void;
  on(event: 'quirk', listener: (quirk: Quirk) => void): () => void;
  reset(): void;
  pollEvents(): void;
  resetQueue?(index: number): void;
}

/** Options of a promise form, as drivers take them. */
export interface Cancel {
  readonly signal?: AbortSignalLike;
}

/** Options of a synchronous form, as drivers take them. */
export interface Limit {
  readonly timeoutMs?: number;
}

/**
 * One request for the contract to make, with its own buffers. Leave out the forms that the driver does not have.
 *
 * @typeParam D the driver
 */
export interface Call<D> {
  /** Makes the request in the promise form. */
  promise?(driver: D, options: Cancel): Promise<unknown>;
  /** Makes the request in the synchronous form. */
  sync?(driver: D, options: Limit): unknown;
  /** Submits the request in the non-blocking form and makes it available to the device; returns the token. */
  submit?(driver: D): number;
  /**
   * Checks that the answer to this very request arrived.
   *
   * @param result what the form returned: the promise's value, or that of `complete`
   * @throws Error if not
   */
  verify(result: unknown): void;
  /** The caller's buffers that the device writes: they may change only if the request succeeds. */
  readonly buffers?: readonly Uint8Array[];
  /** If the driver takes arrays of buffers: empties the one that was given to it. The request itself must go on. */
  spoil?(): void;
}

/** The non-blocking form: what belongs to it apart from {@link Call.submit}. */
export interface Polling<D> {
  /** Returns the token of the next answered request, or -1. */
  poll(driver: D): number;
  /** Completes a request that is done; returns its result. */
  complete(driver: D, token: number): unknown;
  /** Cancels a request. */
  cancel?(driver: D, token: number): void;
}

/** Requests that the device answers. */
export interface Requests<D> {
  /** Their name for messages, if the driver has several kinds. */
  readonly name?: string;
  /** The index of the queue that they go to. */
  readonly queue: number;
  /** The most descriptors that one request takes. */
  readonly descriptors: number;
  /**
   * Prepares a request.
   *
   * @param mark 1 to {@link MAX_MARK}; must be visible to the device
   */
  call(mark: number): Call<D>;
  /**
   * Returns the mark of the request that the device sees; -1 if it is not of this kind. Must not affect {@link Requests.answer}.
   */
  markOf(chain: Chain): number;
  /** Writes the right answer to a chain. The caller completes the chain. */
  answer(chain: Chain, mark: number): void;
  /**
   * Whether the driver checks a part of the answer that is in the caller's buffers, so that a bad answer may change them. The
   * buffers of a request that was given up must not change.
   */
  readonly judgedInBuffers?: boolean;
  /** The non-blocking form, if the driver has one. */
  readonly polling?: Polling<D>;
}

/** What the device sends without a request, through a receive queue of the driver. Leave out the forms that the driver does not have. */
export interface Receive<D> {
  /** Its name for messages, if the driver has several kinds. */
  readonly name?: string;
  /** The index of the queue. */
  readonly queue: number;
  /** Makes the device send a message with a mark; returns false if the driver has no buffer for it. */
  send(device: FakeDevice, mark: number): boolean;
  /** Takes the next message, if there is one; returns its mark, or -1. Does not wait. */
  take(driver: D): number;
  /** Waits for the next message and takes it; returns its mark. */
  readonly promise?: (driver: D, options: Cancel) => Promise<number>;
  /** The same, spinning. */
  readonly sync?: (driver: D, options: Limit) => number;
}

/** What the driver sends without an answer, through a transmit queue. Leave out the forms that the driver does not have. */
export interface Transmit<D> {
  /** Its name for messages, if the driver has several kinds. */
  readonly name?: string;
  /** The index of the queue. */
  readonly queue: number;
  /** Sends a message if there is room now; returns whether it did. */
  readonly offer?: (driver: D, mark: number) => boolean;
  /** Sends a message as soon as there is room. */
  readonly promise?: (driver: D, mark: number, options: Cancel) => Promise<unknown>;
  /** The same, spinning. */
  readonly sync?: (driver: D, mark: number, options: Limit) => unknown;
  /** Returns the mark of the message in a chain; -1 if it is not of this kind. */
  markOf(chain: Chain): number;
}

/**
 * A request that the driver makes of its own accord, because of what the device has said. As no caller waits for the answer, it
 * must not keep the event loop alive.
 */
export interface OwnRequest {
  /** Its name for messages, if the driver has several kinds. */
  readonly name?: string;
  /** The index of the queue that it goes to. */
  readonly queue: number;
  /** Lets the device say what makes the driver ask once. */
  provoke(device: FakeDevice): void;
  /** Whether a chain is the request. Must not affect {@link OwnRequest.answer}. */
  matches(chain: Chain): boolean;
  /** Writes the right answer. The caller completes the chain. */
  answer(chain: Chain, device: FakeDevice): void;
}

/** What the contract requires of the device that it tests with. */
export interface DeviceSetting {
  /** The features of its rings, to be added to its own. */
  readonly ring: bigint;
  /** The largest size of its queues. Queues that are not tested may be larger. */
  readonly queueSize: number;
}

/** A driver under test. */
export interface Subject<D extends ContractDriver> {
  /** The name of the driver. */
  readonly name: string;
  /**
   * Makes the device. The contract installs the handlers of {@link Requests.queue} and {@link Transmit.queue}; set up here what
   * else the driver needs (configuration, other queues, messages of the device).
   */
  device(setting: DeviceSetting): FakeDevice;
  /** Makes the driver. */
  open(transport: FakeTransport, hal: Hal): D;
  /**
   * Does what is necessary before requests are possible, such as opening a port. Called after `open` and after each reset.
   *
   * @param turn runs one turn of promises and interrupts
   */
  ready?(driver: D, device: FakeDevice, turn: () => Promise<void>): Promise<void> | void;
  /**
   * The errors with which calls may end between a reset and {@link Subject.ready} (default `DEVICE_RESET`), as the reset lost
   * what was made ready.
   */
  readonly unready?: readonly VirtioErrorCode[];
  /** The errors, besides `DEVICE_MISBEHAVED`, with which calls may end after the device has lied: of what stands on the driver. */
  readonly misled?: readonly VirtioErrorCode[];
  /**
   * Whether a reset of any queue undoes what {@link Subject.ready} has done, and so ends requests in flight on the other queues.
   */
  readonly queuesAreOne?: boolean;
  /**
   * Handles a chain of the queues below that is of no kind below, such as a control message among data. It is completed afterwards.
   */
  other?(chain: Chain, device: FakeDevice): void;
  readonly requests?: readonly Requests<D>[];
  readonly receive?: readonly Receive<D>[];
  readonly transmit?: readonly Transmit<D>[];
  readonly own?: readonly OwnRequest[];
}
