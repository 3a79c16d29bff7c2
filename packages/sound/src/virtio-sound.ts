/**
 * The driver of sound devices. A device has four queues: control requests, events, and one for the periods of each direction, which all
 * streams share. `control` has the control requests; the streams that the driver opens play and capture.
 */
import {
  BufferDriver,
  DeviceType,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type ReceiveQueue,
  type RequestQueue,
  requireBytes,
  requireInteger,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import { CaptureStream } from './capture-stream.ts';
import { streamCommand } from './commands.ts';
import { ControlQueue } from './control-queue.ts';
import type { PcmFormatName } from './formats.ts';
import type { AudioDirection, StreamInfo } from './info.ts';
import type { SoundCounts } from './items.ts';
import { NotificationQueue } from './notification-queue.ts';
import type { SoundNotification } from './notifications.ts';
import { checkPeriods, parametersOf } from './pcm-parameters.ts';
import { type PcmStream, type PcmStreamParts, releaseSteps } from './pcm-stream.ts';
import { PeriodQueue, type Transferred } from './period-queue.ts';
import { PlaybackStream } from './playback-stream.ts';
import {
  type PcmFeatureName,
  SoundConfigLayout,
  SoundEventLayout,
  type SoundFeatureName,
  SoundFeatures,
  SoundQueue,
} from './protocol.ts';
import { SoundControl } from './sound-control.ts';
import { SlotMemory } from './slot-memory.ts';
import { ask, type Steps } from './steps.ts';

/** Options of {@link VirtioSound}. */
export interface SoundOptions extends DriverOptions<SoundFeatureName> {
  /** The size of each queue in descriptors (default 64, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
  /** Whether to use control elements, if the device has them (default true). */
  readonly controls?: boolean;
}

/** The events of {@link VirtioSound}. */
export interface SoundEvents extends DriverEvents {
  /** An event of the device. */
  notification: SoundNotification;
  /** A stream ran out of periods, as the device reports or the driver finds. The value is its number. */
  xrun: number;
}

/** Options of {@link VirtioSound.openPlayback} and {@link VirtioSound.openCapture}. */
export interface OpenOptions {
  /** The number of the stream (default: the first one of the direction that is not open). */
  readonly stream?: number;
  /** The sample format (default S16). */
  readonly format?: PcmFormatName;
  /** The frame rate in Hz (default 48,000). */
  readonly rate?: number;
  /** The number of channels (default 2). */
  readonly channels?: number;
  /** The size of a period in bytes (default: 20 ms). */
  readonly periodBytes?: number;
  /** The size of the whole buffer in bytes, a multiple of `periodBytes` up to 65,536 periods (default: 5 periods). */
  readonly bufferBytes?: number;
  /** The stream's features to use (default: EVT_XRUNS and MSG_POLLING, if it has them). */
  readonly features?: readonly PcmFeatureName[];
}

const DEFAULT_QUEUE_SIZE = 64;

/**
 * The driver of a sound device.
 *
 * @see VIRTIO 1.4, 5.14
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioSound } from '@virtio/sound';
 *
 * export async function play(transport: Transport, hal: Hal, samples: Int16Array): Promise<void> {
 *   using sound = new VirtioSound(transport, hal);
 *   const stream = await sound.openPlayback({ format: 'S16', rate: 44_100, channels: 2 });
 *   await stream.write(samples);
 *   await stream.close();
 * }
 * ```
 */
export class VirtioSound extends BufferDriver<SoundFeatureName, SoundEvents> {
  /** The device type: sound. */
  static readonly deviceType = DeviceType.Sound;

  /** The control requests: jacks, streams, channel maps, control elements. */
  readonly control: SoundControl;

  readonly #commands: ControlQueue;
  readonly #notifications: NotificationQueue;
  readonly #tx: PeriodQueue;
  readonly #rx: PeriodQueue;
  readonly #streams = new Map<number, PcmStream>();
  /** Streams that are being opened. */
  readonly #opening = new Set<number>();
  #resets = 0;

  /**
   * Takes the device over.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a sound device, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED` if a queue is
   * missing, `CONFIG_SPACE_TOO_SMALL`
   */
  constructor(transport: Transport, hal: Hal, options: SoundOptions = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE, controls = true } = options;
    requireInteger(transport, 'queueSize', queueSize, 4, 32_768);
    super(
      transport,
      hal,
      { deviceType: DeviceType.Sound, table: SoundFeatures, supported: controls ? ['CTLS'] : [] },
      options,
    );
    const allocate = (bytes: number) => this.allocate(bytes, 'both');
    const quirk = (queue: number) => (message: string) => this.quirk(queue, message);
    const parts = { transport, allocate, report: (error: VirtioError) => this.fail(error) };
    this.#tx = new PeriodQueue({ ...parts, capture: false, quirk: quirk(SoundQueue.TX) });
    this.#rx = new PeriodQueue({ ...parts, capture: true, quirk: quirk(SoundQueue.RX) });
    this.#notifications = new NotificationQueue({
      transport,
      counts: () => this.control,
      tell: (notification) => this.#tell(notification),
      checkUsable: () => this.checkUsable(),
      quirk: quirk(SoundQueue.EVENT),
    });
    const { requests, counts } = this.setUp(() => {
      const control: RequestQueue = this.createRequestQueue({ index: SoundQueue.CONTROL, size: queueSize });
      const events: ReceiveQueue = this.createReceiveQueue({
        index: SoundQueue.EVENT,
        size: queueSize,
        bufferSize: SoundEventLayout.size,
        receive: () => this.#notifications.receive(),
        always: true,
      });
      this.#notifications.attach(events);
      this.#tx.attach(
        this.createRequestQueue<Transferred | undefined>({ index: SoundQueue.TX, size: queueSize }, this.#tx),
      );
      this.#rx.attach(
        this.createRequestQueue<Transferred | undefined>({ index: SoundQueue.RX, size: queueSize }, this.#rx),
      );
      return { requests: control, counts: this.#readCounts() };
    });
    this.#commands = new ControlQueue({
      transport,
      requests,
      memory: new SlotMemory(allocate),
      quirk: quirk(SoundQueue.CONTROL),
      // Calls that wait for room look again: a stream that was stopped takes periods when it is started, by whomever.
      moved: (id) => this.#streams.get(id)?.look(),
    });
    this.control = new SoundControl(transport, this.#commands, counts);
    this.start();
  }

  // Streams.

  /**
   * Opens a playback stream: sets its parameters and prepares it.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for options that the stream does not support, `ALREADY_USED` if it, or every stream, is open,
   * `UNSUPPORTED`, `IO_ERROR` if the device refuses, `ABORTED`, or why the device no longer works
   */
  openPlayback(options?: OpenOptions, wait?: WaitOptions): Promise<PlaybackStream> {
    return this.control.run(
      this.#open('output', options, (parts) => new PlaybackStream(parts)),
      wait,
    );
  }

  /** As {@link VirtioSound.openPlayback}, spinning. */
  openPlaybackSync(options?: OpenOptions, spin?: SpinOptions): PlaybackStream {
    return this.control.runSync(
      this.#open('output', options, (parts) => new PlaybackStream(parts)),
      spin,
    );
  }

  /**
   * Opens a capture stream: sets its parameters and prepares it. It starts when it is first read.
   *
   * @throws {@link VirtioError} as {@link VirtioSound.openPlayback}
   */
  openCapture(options?: OpenOptions, wait?: WaitOptions): Promise<CaptureStream> {
    return this.control.run(
      this.#open('input', options, (parts) => new CaptureStream(parts)),
      wait,
    );
  }

  /** As {@link VirtioSound.openCapture}, spinning. */
  openCaptureSync(options?: OpenOptions, spin?: SpinOptions): CaptureStream {
    return this.control.runSync(
      this.#open('input', options, (parts) => new CaptureStream(parts)),
      spin,
    );
  }

  // Single I/O messages, for those who drive a stream by `control` themselves.

  /**
   * Transfers a buffer of a stream: plays it, or fills it with captured frames. It should have the size of a period. Waits until the
   * device has used it, which it does while the stream runs.
   *
   * @param direction the direction of the stream, which selects the queue
   * @throws {@link VirtioError} `INVALID_PARAM` if there is no such stream, `IO_ERROR` if the device failed, `ABORTED`, or why the device no
   * longer works
   */
  async transfer(
    direction: AudioDirection,
    stream: number,
    buffer: Uint8Array,
    options?: WaitOptions,
  ): Promise<Transferred> {
    this.#checkTransfer(stream, buffer);
    return this.#queue(direction).transfer(stream, buffer, options);
  }

  /** As {@link VirtioSound.transfer}, spinning; `NOT_READY` after `timeoutMs`. */
  transferSync(
    direction: AudioDirection,
    stream: number,
    buffer: Uint8Array,
    options?: SpinOptions,
  ): Transferred {
    this.#checkTransfer(stream, buffer);
    return this.#queue(direction).transferSync(stream, buffer, options);
  }

  /**
   * Transfers a buffer without waiting.
   *
   * @returns the token of the transfer
   * @throws {@link VirtioError} `INVALID_PARAM`, `QUEUE_FULL`, or why the device no longer works
   */
  submitTransfer(
    direction: AudioDirection,
    stream: number,
    buffer: Uint8Array,
    options?: SubmitOptions,
  ): number {
    this.#checkTransfer(stream, buffer);
    return this.#queue(direction).submitTransfer(stream, buffer, options);
  }

  /** The token of the next submitted transfer of a direction that the device has used, or -1. */
  pollTransfer(direction: AudioDirection): number {
    return this.#queue(direction).pollTransfer();
  }

  /**
   * Completes a transfer that was submitted: its buffer belongs to the caller again.
   *
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `IO_ERROR` if the device failed
   */
  completeTransfer(direction: AudioDirection, token: number): Transferred {
    return this.#queue(direction).completeTransfer(token);
  }

  /** Cancels a transfer. Its buffer, if it lies in DMA memory, belongs to the device until the device has used it. */
  cancelTransfer(direction: AudioDirection, token: number): void {
    this.#queue(direction).cancelTransfer(token);
  }

  /** Notifies the device of transfers that were submitted with `kick: false`. */
  kickTransfers(direction: AudioDirection): void {
    this.#queue(direction).kick();
  }

  // Notifications.

  /** How many notifications were dropped because they were not taken: 256 are kept. */
  get lostNotifications(): number {
    return this.#notifications.lost;
  }

  /** Takes the oldest notification, or `undefined`. Listeners to `notification` get all of them, too. */
  popNotification(): SoundNotification | undefined {
    return this.#notifications.pop();
  }

  /** Waits for the next notification. */
  nextNotification(options?: WaitOptions): Promise<SoundNotification> {
    return this.#notifications.next(options);
  }

  /** As {@link VirtioSound.nextNotification}, spinning; `NOT_READY` after `timeoutMs`. */
  nextNotificationSync(options?: SpinOptions): SoundNotification {
    return this.#notifications.nextSync(options);
  }

  protected override onFailure(error: VirtioError): void {
    this.#tx.fail(error);
    this.#rx.fail(error);
  }

  protected override onQueueReset({ index }: VirtQueue): void {
    if (index === SoundQueue.CONTROL) this.#commands.lose();
    const direction = index === SoundQueue.TX ? 'output' : index === SoundQueue.RX ? 'input' : undefined;
    if (direction === undefined) return;
    const lost = new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()}: queue ${index} was reset, and the periods of all its streams are lost; open them again`,
    );
    const queue = this.#queue(direction);
    queue.forget();
    queue.fail(lost);
    for (const stream of [...this.#streams.values()]) {
      if (stream.info.direction === direction) stream.end(lost);
    }
  }

  protected override onReset(): void {
    this.#resets += 1;
    const lost = new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()} was reset while the stream was open, so it has no parameters any more; open it again`,
    );
    this.#tx.forget();
    this.#tx.fail(lost);
    this.#rx.forget();
    this.#rx.fail(lost);
    for (const stream of [...this.#streams.values()]) stream.end(lost);
    this.#streams.clear();
    this.#opening.clear();
    this.#notifications.forget();
    this.#commands.forget();
    this.control.forget(this.#readCounts());
  }

  protected override onDispose(): void {
    this.#tx.forget();
    this.#rx.forget();
  }

  #readCounts(): SoundCounts {
    const { jacks, streams, chmaps, controls } = SoundConfigLayout.fields;
    const read = (field: typeof jacks): number => this.transport.readConfigSpace(field);
    return {
      jacks: read(jacks),
      streams: read(streams),
      channelMaps: read(chmaps),
      // 5.14.5.1: not read without CTLS; devices from before 1.4 do not have it.
      controls: this.features.has('CTLS') ? read(controls) : 0,
    };
  }

  #tell(notification: SoundNotification): void {
    if (notification.type === 'control' && notification.changed.includes('INFO')) {
      this.control.forgetControl(notification.control);
    }
    if (notification.type === 'xrun') {
      const resets = this.#resets;
      const stream = this.#streams.get(notification.stream);
      if (stream === undefined) this.emit('xrun', notification.stream);
      else stream.countXrun();
      // A listener has reset the driver, or disposed it.
      if (this.#resets !== resets || this.failure?.code === 'DISPOSED') return;
    }
    this.emit('notification', notification);
  }

  *#open<S extends PcmStream>(
    direction: AudioDirection,
    options: OpenOptions = {},
    make: (parts: PcmStreamParts) => S,
  ): Steps<S> {
    const info = yield* this.#choose(direction, options.stream);
    const { id } = info;
    if (this.#streams.has(id) || this.#opening.has(id)) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.transport.who()}: stream ${id} is open already; close it first, or use another`,
      );
    }
    const parameters = parametersOf(info, options);
    checkPeriods(this.transport.who(), parameters);
    const resets = this.#resets;
    this.#opening.add(id);
    try {
      const wasUnknown = this.control.streamState(id) === 'unknown';
      // Whoever had it before.
      yield* releaseSteps(id, this.#commands);
      this.#checkReset(id, resets);
      try {
        yield* this.control.parametersSteps(id, parameters);
      } catch (error) {
        if (!wasUnknown || !VirtioError.is(error, 'IO_ERROR')) throw error;
        this.#checkReset(id, resets);
        // The device may not have stopped it when it was told to.
        this.#commands.conclude(id, 'unknown');
        yield* releaseSteps(id, this.#commands);
        this.#checkReset(id, resets);
        yield* this.control.parametersSteps(id, parameters);
      }
      this.#checkReset(id, resets);
      yield* ask(streamCommand(id, 'PREPARE'));
      this.#checkReset(id, resets);
    } finally {
      // A reset has forgotten it, and it may be being opened anew.
      if (this.#resets === resets) this.#opening.delete(id);
    }
    const stream = make({
      transport: this.transport,
      commands: this.#commands,
      periods: this.#queue(direction),
      info,
      parameters,
      closed: () => {
        if (this.#streams.get(id) === stream) this.#streams.delete(id);
      },
      xrun: () => this.emit('xrun', id),
      quirk: (message) => this.quirk(direction === 'output' ? SoundQueue.TX : SoundQueue.RX, message),
    });
    this.#streams.set(id, stream);
    return stream;
  }

  *#choose(direction: AudioDirection, wanted: number | undefined): Steps<StreamInfo> {
    if (wanted !== undefined) {
      const info = yield* this.control.streamSteps(wanted);
      if (info.direction === direction) return info;
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()}: stream ${wanted} is an ${info.direction}, not an ${direction}`,
      );
    }
    let open = 0;
    for (let id = 0; id < this.control.streams; id += 1) {
      const info = yield* this.control.streamSteps(id);
      if (info.direction !== direction) continue;
      if (!this.#streams.has(id) && !this.#opening.has(id)) return info;
      open += 1;
    }
    throw open > 0
      ? new VirtioError(
          'ALREADY_USED',
          `${this.transport.who()}: all streams of direction ${direction} are open (${open}); close one first`,
        )
      : new VirtioError('UNSUPPORTED', `${this.transport.who()} has no stream of direction ${direction}`);
  }

  /** Throws if the device was reset between an answer and the code that waited for it. */
  #checkReset(id: number, resets: number): void {
    if (this.#resets === resets) return;
    throw new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()} was reset while stream ${id} was being opened; open it again`,
    );
  }

  #queue(direction: AudioDirection): PeriodQueue {
    // Callers without types may give something else.
    const queues: Readonly<Record<string, PeriodQueue>> = { output: this.#tx, input: this.#rx };
    const queue = Object.hasOwn(queues, direction) ? queues[direction] : undefined;
    if (queue !== undefined) return queue;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: the direction must be 'output' or 'input', not ${direction}`,
    );
  }

  #checkTransfer(stream: number, buffer: Uint8Array): void {
    this.control.streamState(stream);
    requireBytes(this.transport, buffer);
    requireInteger(this.transport, "the buffer's length", buffer.length, 1, 0x1000_0000);
  }
}
