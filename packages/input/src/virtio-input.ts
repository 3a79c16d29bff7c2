/**
 * The driver of input devices: keyboards, mice, tablets, touch screens.
 *
 * The device has a few dozen buffers for events and, when they run out, drops events without a word [5.8.6.2]. So the
 * driver moves events to a larger ring of its own whenever it looks, and gives the buffers back at once. If it finds that
 * the device had too few buffers left for one more update, it says so in the stream, in the way in which Linux does:
 * with SYN_DROPPED.
 */
import {
  BufferDriver,
  decodeUtf8,
  DeviceType,
  type DriverOptions,
  type Hal,
  type ReceiveQueue,
  type Request,
  type RequestQueue,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { Bitmap } from './bitmap.ts';
import { EventType, Led, Sync } from './event-codes.ts';
import { EventRing, LOST_MARK } from './event-ring.ts';
import {
  EVENT_QUEUE,
  InputAbsInfo,
  InputConfig,
  InputConfigSelect,
  InputDevIds,
  InputEventLayout,
  InputFeatures,
  STATUS_QUEUE,
} from './protocol.ts';

/** Options of {@link VirtioInput}. */
export interface InputOptions extends DriverOptions {
  /** The size of both queues in descriptors (default 256), as far as the device allows it. */
  readonly queueSize?: number;
  /** How many events the driver keeps until they are taken (default 1024, at least 16). Beyond that the device has to wait. */
  readonly bufferedEvents?: number;
}

/** An event, as in Linux's evdev interface. */
export interface InputEvent {
  /** See {@link EventType}. */
  readonly type: number;
  /** See {@link Key}, {@link Rel}, {@link Abs} and so on, by type. */
  readonly code: number;
  /** For a key 1 if pressed, 0 if released, 2 if repeated; for an axis its position or movement. Signed. */
  readonly value: number;
}

/** The identifiers of a device. */
export interface InputIds {
  /** See {@link Bus}. */
  readonly bustype: number;
  /** The number of its vendor on that bus, e.g. as in a USB descriptor. */
  readonly vendor: number;
  /** The vendor's number for it. */
  readonly product: number;
  /** Its version, as the vendor defines it. */
  readonly version: number;
}

/** The range of an absolute axis. */
export interface AbsInfo {
  /** The lowest value. */
  readonly min: number;
  /** The highest value. */
  readonly max: number;
  /** Changes up to this are noise. */
  readonly fuzz: number;
  /** Values up to this far from the middle count as 0. */
  readonly flat: number;
  /** Units per millimetre; for rotations per radian. */
  readonly res: number;
}

const DEFAULT_BUFFERED = 1024;
const MIN_BUFFERED = 16;
const MAX_BUFFERED = 2 ** 24;
const MAX_DATA = 128;
/** How many events an update is expected to have at most, until there is a longer one. */
const LIKELY_UPDATE = 8;
const { offset: EVENT, size: EVENT_SIZE } = InputEventLayout;

/** Event types that fit `subsel` and that Linux numbers: 0 to 31. */
const EVENT_TYPES = 32;

/**
 * An input device.
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { eventCodeName, EventType, VirtioInput } from '@virtio/input';
 *
 * export async function printKeys(transport: Transport, hal: Hal): Promise<void> {
 *   using input = new VirtioInput(transport, hal);
 *   console.log(input.name());
 *   for await (const { type, code, value } of input) {
 *     if (type === EventType.EV_KEY) console.log(eventCodeName(type, code), value === 0 ? 'up' : 'down');
 *   }
 * }
 * ```
 *
 * @see VIRTIO 1.4, 5.8
 */
export class VirtioInput extends BufferDriver<never> implements AsyncIterable<InputEvent> {
  /** The device type: input. */
  static readonly deviceType = DeviceType.Input;

  readonly #ring: EventRing;
  readonly #events: ReceiveQueue;
  readonly #status: RequestQueue;
  readonly #statusView: DataView;
  readonly #statusAddress: number;
  /** A mark for lost events is due, but there was no room for it. */
  #owesMark = false;
  /** The events of the update that is coming in, and of the longest one that is expected. */
  #current = 0;
  #longest = 1;
  /** Buffers that were given back and that the device does not know of yet. */
  #reposted = 0;
  #lostMarks = 0;

  /**
   * Initializes the device, which can send events from then on.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `UNSUPPORTED` if a queue is missing, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: InputOptions = {}) {
    const { bufferedEvents = DEFAULT_BUFFERED, queueSize } = options;
    requireInteger(transport, 'bufferedEvents', bufferedEvents, MIN_BUFFERED, MAX_BUFFERED);
    super(transport, hal, { deviceType: DeviceType.Input, table: InputFeatures, supported: [] }, options);
    this.#ring = new EventRing(bufferedEvents);
    const size = queueSize === undefined ? {} : { size: queueSize };
    const { events, status, statusRegion } = this.setUp(() => {
      const events = this.createReceiveQueue({
        index: EVENT_QUEUE,
        ...size,
        tableLength: 0,
        bufferSize: EVENT_SIZE,
        receive: () => this.#receive(),
        restarted: () => {
          this.#restart();
        },
      });
      const status = this.createRequestQueue({ index: STATUS_QUEUE, ...size, tableLength: 0 });
      const statusRegion = this.allocate(status.slots * EVENT_SIZE, 'driver-to-device');
      return { events, status, statusRegion };
    });
    const { bytes, address } = statusRegion;
    this.#events = events;
    this.#status = status;
    this.#statusView = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#statusAddress = address;
    this.#expect(LIKELY_UPDATE);
    this.start();
  }

  /** How often events may have been lost: how many `SYN_DROPPED` were put into the stream. */
  get lost(): number {
    return this.#lostMarks;
  }

  /**
   * Asks the device for one part of its configuration.
   *
   * @param select one of {@link InputConfigSelect}
   * @param subsel the event type or the axis, 0 where there is no choice
   * @returns up to 128 bytes; none if the device has no such configuration
   * @throws {@link VirtioError} `INVALID_PARAM` unless both are 0 to 255, `INVALID_DEVICE` if the size that the device reports is
   * impossible, `NOT_READY` if the configuration changes all the time, `DISPOSED`
   * @see VIRTIO 1.4, 5.8.4
   */
  query(select: number, subsel = 0): Uint8Array {
    const { transport } = this;
    const { fields, offset } = InputConfig;
    const { failure } = this;
    if (failure?.code === 'DISPOSED' || failure?.code === 'DEVICE_REMOVED') throw failure;
    requireInteger(transport, 'select', select, 0, 0xff);
    requireInteger(transport, 'subsel', subsel, 0, 0xff);
    // 5.8.5.1: both are set, and nothing else is ever written.
    transport.writeConfigSpace(fields.select, select);
    transport.writeConfigSpace(fields.subsel, subsel);
    return transport.readConsistent(() => {
      const size = transport.readConfigSpace(fields.size);
      // Registers of a device that is gone read as ones, or as zeros.
      if (size === 0 || size > MAX_DATA) transport.checkAlive();
      if (size > MAX_DATA || offset.u + size > transport.configSize) {
        throw this.#invalid(select, subsel, size, `${MAX_DATA} or less`);
      }
      return Uint8Array.from({ length: size }, (_, i) => transport.readConfig(offset.u + i, 1));
    });
  }

  /** The device's name, empty if it has none. */
  name(): string {
    return this.#text(InputConfigSelect.ID_NAME);
  }

  /** The device's serial number, empty if it has none. */
  serial(): string {
    return this.#text(InputConfigSelect.ID_SERIAL);
  }

  /**
   * The device's identifiers, `undefined` if it has none.
   *
   * @throws {@link VirtioError} `INVALID_DEVICE`
   */
  ids(): InputIds | undefined {
    return this.#structure(InputDevIds, InputConfigSelect.ID_DEVIDS, 0);
  }

  /** The device's properties: a set of {@link Property}. */
  properties(): Bitmap {
    return new Bitmap(this.query(InputConfigSelect.PROP_BITS));
  }

  /** The types of events that the device can send or take: a list of {@link EventType}. */
  eventTypes(): number[] {
    const types = Array.from({ length: EVENT_TYPES }, (_, type) => type);
    return types.filter((type) => this.query(InputConfigSelect.EV_BITS, type).length > 0);
  }

  /** The codes that the device has for a type of events: of {@link Key} for `EV_KEY`, and so on. Empty if it does not have that type. */
  eventCodes(type: number): Bitmap {
    return new Bitmap(this.query(InputConfigSelect.EV_BITS, type));
  }

  /**
   * The range of an absolute axis, `undefined` if the device does not have it.
   *
   * @param axis one of {@link Abs}
   * @throws {@link VirtioError} `INVALID_DEVICE`
   */
  absInfo(axis: number): AbsInfo | undefined {
    return this.#structure(InputAbsInfo, InputConfigSelect.ABS_INFO, axis);
  }

  /**
   * Takes the next event, if there is one.
   *
   * `EV_SYN` with `SYN_DROPPED` says that events may have been lost; discard the known state of keys and axes. The events
   * after the `SYN_REPORT` that follows it are complete again.
   *
   * @throws {@link VirtioError} why the device no longer works, once all events are taken
   */
  popEvent(): InputEvent | undefined {
    if (!this.#next()) return undefined;
    const { type, code, value } = this.#ring;
    return { type, code, value };
  }

  /**
   * Calls `handler` with each event that there is. Allocates nothing.
   *
   * @returns how many events there were
   * @throws {@link VirtioError} why the device no longer works, once all events are taken
   */
  takeEvents(handler: (type: number, code: number, value: number) => void): number {
    this.#events.drain();
    // What comes in meanwhile is for the next call, so that a device cannot keep this one going for ever.
    const count = this.#ring.count;
    if (count === 0) this.checkUsable();
    for (let left = count; left > 0 && this.#ring.shift(); left -= 1) {
      handler(this.#ring.type, this.#ring.code, this.#ring.value);
    }
    return count;
  }

  /**
   * Spins until there is an event, and takes it.
   *
   * @throws {@link VirtioError} `NOT_READY` if there is none in the time allowed, or why the device no longer works
   */
  nextEventSync(options?: SpinOptions): InputEvent {
    let event: InputEvent | undefined;
    this.#events.spin(() => (event ??= this.popEvent()) !== undefined, options, 'an event');
    return event as InputEvent;
  }

  /**
   * Waits for an event, and takes it.
   *
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works
   */
  async nextEvent(options?: WaitOptions): Promise<InputEvent> {
    const turn = this.#events.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no event.
      if (options?.signal !== undefined) requireWaitable(this.transport, options);
      const event = this.popEvent();
      if (event !== undefined) return event;
      await this.#events.wait(options);
    }
  }

  /** All events as they arrive, without an end. Leave the loop to stop; errors are those of {@link VirtioInput.nextEvent}. */
  async *events(options?: WaitOptions): AsyncGenerator<InputEvent, undefined> {
    for (;;) yield await this.nextEvent(options);
  }

  /** The same as {@link VirtioInput.events}. */
  [Symbol.asyncIterator](): AsyncGenerator<InputEvent, undefined> {
    return this.events();
  }

  /**
   * Sends an event to the device, such as the state of an LED, and waits until it has used it. Waits for room if there is none.
   *
   * @param type one of {@link EventType}
   * @param options a signal that cancels the wait; the device may get the event all the same
   * @throws {@link VirtioError} `INVALID_PARAM`, `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works
   */
  async sendStatus(type: number, code: number, value: number, options?: WaitOptions): Promise<void> {
    await this.#status.request(this.#statusRequest(type, code, value), options);
  }

  /** The synchronous form of {@link VirtioInput.sendStatus}. Throws `QUEUE_FULL`, and `NOT_READY` after `timeoutMs`. */
  sendStatusSync(type: number, code: number, value: number, options?: SpinOptions): void {
    this.#status.requestSync(this.#statusRequest(type, code, value), options);
  }

  /**
   * The non-blocking form of {@link VirtioInput.sendStatus}.
   *
   * @returns a token for {@link VirtioInput.poll} and {@link VirtioInput.complete}
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, or why the device no longer works
   */
  submitSendStatus(type: number, code: number, value: number, options?: SubmitOptions): number {
    return this.#status.submitRequest(this.#statusRequest(type, code, value), options);
  }

  /**
   * Switches an LED.
   *
   * @param led Linux's name of it
   * @throws {@link VirtioError} `INVALID_PARAM` if there is no such name, and as {@link VirtioInput.sendStatus} does
   *
   * @example
   * ```ts
   * import type { VirtioInput } from '@virtio/input';
   *
   * export const capsLock = (keyboard: VirtioInput, on: boolean): Promise<void> => keyboard.setLed('LED_CAPSL', on);
   * ```
   */
  async setLed(led: keyof typeof Led, on: boolean, options?: WaitOptions): Promise<void> {
    await this.sendStatus(EventType.EV_LED, this.#codeOf(led), on ? 1 : 0, options);
  }

  /** The synchronous form of {@link VirtioInput.setLed}. */
  setLedSync(led: keyof typeof Led, on: boolean, options?: SpinOptions): void {
    this.sendStatusSync(EventType.EV_LED, this.#codeOf(led), on ? 1 : 0, options);
  }

  /** The non-blocking form of {@link VirtioInput.setLed}. */
  submitSetLed(led: keyof typeof Led, on: boolean, options?: SubmitOptions): number {
    return this.submitSendStatus(EventType.EV_LED, this.#codeOf(led), on ? 1 : 0, options);
  }

  /** Notifies the device of events that were submitted with `kick: false`. */
  kick(): void {
    this.#status.kick();
  }

  /** The token of the next event that the device has used, each once, or -1. Throws why the device no longer works. */
  poll(): number {
    return this.#status.poll();
  }

  /**
   * Completes an event that was submitted.
   *
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, or why the device no longer works
   */
  complete(token: number): void {
    this.#status.complete(token);
  }

  /** Cancels an event that was submitted; the device may get it all the same. Throws `WRONG_TOKEN`. */
  cancel(token: number): void {
    this.#status.cancel(token);
  }

  #codeOf(led: keyof typeof Led): number {
    if (Object.hasOwn(Led, led)) return Led[led];
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: there is no LED ${led}; the names are ${Object.keys(Led).join(', ')}`,
    );
  }

  /** The queue is empty: what the device sent meanwhile is lost. */
  #restart(): void {
    this.#current = 0;
    this.#reposted = 0;
    this.#markLost();
  }

  /** Takes the next event into the fields of the ring. */
  #next(): boolean {
    if (this.#ring.shift()) return true;
    this.#events.drain();
    if (this.#ring.shift()) return true;
    this.checkUsable();
    return false;
  }

  /** Moves events from the device's buffers to the ring, as many as it takes. */
  #receive(): boolean {
    this.#take();
    return this.#ring.count > 0;
  }

  #take(): void {
    const events = this.#events;
    if (this.#owesMark) this.#markLost();
    // Places for the mark stay free.
    while (this.#ring.room > LOST_MARK) {
      const buffer = events.pop();
      if (buffer < 0) {
        this.#flush();
        return;
      }
      if (events.usedLength < EVENT_SIZE) throw this.#short(events.usedLength);
      const bytes = events.buffer(buffer);
      this.#push(
        (bytes[EVENT.type] as number) | ((bytes[EVENT.type + 1] as number) << 8),
        (bytes[EVENT.code] as number) | ((bytes[EVENT.code + 1] as number) << 8),
        (bytes[EVENT.value] as number) |
          ((bytes[EVENT.value + 1] as number) << 8) |
          ((bytes[EVENT.value + 2] as number) << 16) |
          ((bytes[EVENT.value + 3] as number) << 24),
      );
      events.repost(buffer);
      this.#reposted += 1;
    }
  }

  /**
   * All that the device has sent is taken: gives the buffers back. Only here, as here it is known how few the device had
   * left; and so that a device which fills them at once cannot keep the loop going.
   */
  #flush(): void {
    if (this.#reposted === 0) return;
    this.#reposted = 0;
    // 5.8.6.2: an update that finds too few buffers is dropped.
    if (this.#events.queue.inFlight < this.#longest) this.#markLost();
    this.#events.kick();
  }

  #push(type: number, code: number, value: number): void {
    this.#ring.push(type, code, value);
    this.#current += 1;
    if (type !== EventType.EV_SYN || code !== Sync.SYN_REPORT) return;
    // A device that never ends an update does not make every look at the queue count as a loss.
    if (this.#current > this.#longest) this.#expect(this.#current);
    this.#current = 0;
  }

  #expect(length: number): void {
    this.#longest = Math.max(1, Math.min(length, this.#events.buffers >> 1));
  }

  #markLost(): void {
    this.#owesMark = this.#ring.room < LOST_MARK;
    if (this.#owesMark) return;
    this.#ring.markLost();
    this.#lostMarks += 1;
  }

  #statusRequest(type: number, code: number, value: number): Request<void> {
    const { transport } = this;
    requireInteger(transport, 'type', type, 0, 0xffff);
    requireInteger(transport, 'code', code, 0, 0xffff);
    requireInteger(transport, 'value', value, -(2 ** 31), 2 ** 32 - 1);
    return {
      buffers: 1,
      fill: (slot) => {
        const at = slot * EVENT_SIZE;
        this.#statusView.setUint16(at + EVENT.type, type, true);
        this.#statusView.setUint16(at + EVENT.code, code, true);
        this.#statusView.setInt32(at + EVENT.value, value, true);
        this.#status.queue.pushReadable(this.#statusAddress + at, EVENT_SIZE);
      },
      result: () => undefined,
    };
  }

  /** 5.8.4: texts have no NUL at the end; QEMU's have one. */
  #text(select: number): string {
    const bytes = this.query(select);
    const end = bytes.indexOf(0);
    return decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end));
  }

  #structure<T>(layout: StructureLayout<T>, select: number, subsel: number): T | undefined {
    const bytes = this.query(select, subsel);
    if (bytes.length === 0) return undefined;
    // Linux takes longer ones as well; what follows is not known here.
    if (bytes.length < layout.size) {
      throw this.#invalid(select, subsel, bytes.length, `${layout.size} or more`);
    }
    return layout.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  #invalid(select: number, subsel: number, size: number, wanted: string): VirtioError {
    return new VirtioError(
      'INVALID_DEVICE',
      `${this.transport.who()}: configuration ${select}/${subsel} has ${size} bytes, which should be ${wanted}`,
    );
  }

  #short(length: number): VirtioError {
    return this.transport.fail(
      new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.transport.who()} sent an event of ${length} bytes; an event has ${EVENT_SIZE}. It is not trusted any more: ` +
          'reset or dispose its driver',
      ),
    );
  }
}

interface StructureLayout<T> {
  readonly size: number;
  read(view: DataView, at?: number): T;
}
