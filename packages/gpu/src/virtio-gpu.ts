/**
 * The driver of GPU devices.
 *
 * There are two levels. Displays, framebuffers and cursors are for pictures on a screen. Below them, every command of the control
 * queue is a value that can be sent in three ways, for programs with a renderer of their own.
 */
import {
  DeviceType,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  requireInteger,
  type SharedMemory,
  type SpinOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  commandMemory,
  CommandQueue,
  CONTROL_ANSWER_ROOM,
  CURSOR_ANSWER_ROOM,
  type RequestOptions,
  type RequestSyncOptions,
  type SubmitCommandOptions,
} from './command-queue.ts';
import type { GpuCommand } from './command.ts';
import {
  Cursor,
  type CursorOptions,
  type CursorPosition,
  sendCursor,
  sendCursorSync,
  submitCursor,
} from './cursor.ts';
import { DeviceLimits } from './device-limits.ts';
import { type Display, getDisplayInfo, getEdid, setScanout } from './display-commands.ts';
import { DisplayEvents } from './display-events.ts';
import { type Edid, parseEdid } from './edid.ts';
import { Framebuffer, type FramebufferOptions, MAX_FRAMEBUFFER } from './framebuffer.ts';
import { GpuState, requireScanout } from './gpu-state.ts';
import {
  BYTES_PER_PIXEL,
  CONTROL_QUEUE,
  CURSOR_QUEUE,
  GpuFeature,
  type GpuFeatureName,
  GpuFeatures,
  type GpuFeatureSet,
} from './protocol.ts';
import { ask, runSteps, runStepsSync, type Steps } from './steps.ts';

/** Options of {@link VirtioGpu}. */
export interface GpuOptions extends DriverOptions<GpuFeatureName> {
  /** The size of the control queue in descriptors, two or three for each command (default 64, or what the device allows). */
  readonly queueSize?: number;
}

/** The events of {@link VirtioGpu}. */
export interface GpuEvents extends DriverEvents {
  /**
   * The displays have changed; the value describes all of them. Framebuffers do not change, and continue to be shown.
   */
  display: readonly Display[];
}

/** Options of {@link VirtioGpu.setUpFramebuffer}. */
export interface SetUpOptions extends Partial<FramebufferOptions> {
  /** The scanout that shows it (default 0). */
  readonly scanout?: number;
}

declare const RESULT: unique symbol;

/** The token of a command that was submitted, whose result is a `T`. */
export type GpuToken<T> = number & { readonly [RESULT]?: T };

const DEFAULT_QUEUE_SIZE = 64;
const CURSOR_QUEUE_SIZE = 16;

/** The size that the specification proposes if no display reports its own. @see VIRTIO 1.4, 5.7.5 */
const FALLBACK = { width: 1024, height: 768 } as const;

const NOTHING = { x: 0, y: 0, width: 0, height: 0 } as const;

/**
 * The driver of a GPU device.
 *
 * @see VIRTIO 1.4, 5.7
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioGpu } from '@virtio/gpu';
 *
 * export async function blueScreen(transport: Transport, hal: Hal): Promise<void> {
 *   using gpu = new VirtioGpu(transport, hal);
 *   const screen = await gpu.setUpFramebuffer();
 *   screen.pixels.fill(0x000000ff);
 *   await screen.flush();
 * }
 * ```
 */
export class VirtioGpu extends Driver<GpuFeatureName, GpuEvents> {
  /** The device type: GPU. */
  static readonly deviceType = DeviceType.Gpu;

  readonly #state: GpuState;
  readonly #control: CommandQueue;
  readonly #cursor: CommandQueue;
  readonly #limits: DeviceLimits;
  readonly #displayEvents: DisplayEvents;

  /**
   * Initializes the device. It shows nothing yet.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `UNSUPPORTED` if a queue is missing,
   * `CONFIG_SPACE_TOO_SMALL`, `CONFIG_SPACE_MISSING`, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: GpuOptions = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    super(
      transport,
      hal,
      {
        deviceType: DeviceType.Gpu,
        table: GpuFeatures,
        supported: Object.keys(GpuFeature) as GpuFeatureName[],
        choose: withoutOrphans,
      },
      options,
    );
    const quirk = (message: string): void => this.quirk(CONTROL_QUEUE, message);
    const limits = new DeviceLimits({ transport, has: (feature) => this.features.has(feature), quirk });
    this.#limits = limits;
    this.#displayEvents = new DisplayEvents({
      transport,
      // Nobody waits for the answer.
      ask: async () => this.#own(await this.#control.request(getDisplayInfo(), { holds: false })),
      askSync: (timeoutMs) => this.displaysSync({ timeoutMs }),
      tell: (displays) => this.emit('display', displays),
      works: () => this.failure === undefined,
      quirk,
    });
    const { control, cursor } = this.setUp(() => {
      this.#readConfig();
      return {
        control: this.#queue(CONTROL_QUEUE, queueSize, CONTROL_ANSWER_ROOM),
        // QEMU uses cursor commands without writing an answer.
        cursor: this.#queue(CURSOR_QUEUE, CURSOR_QUEUE_SIZE, CURSOR_ANSWER_ROOM),
      };
    });
    this.#control = control;
    this.#cursor = cursor;
    const failure = (): VirtioError | undefined => this.failure;
    this.#state = new GpuState(
      {
        transport,
        hal,
        get failure() {
          return failure();
        },
        get scanouts() {
          return limits.scanouts;
        },
        usesAccessPlatform: () => this.accessPlatform,
      },
      control,
      cursor,
    );
    this.start();
  }

  /** The number of scanouts of the device, at most 16. Their displays may be switched off. */
  get scanouts(): number {
    return this.#limits.scanouts;
  }

  /** The number of capability sets of the device: 0 without VIRGL. */
  get capsets(): number {
    return this.#limits.capsets;
  }

  /** The alignment of sizes and offsets of blobs, in bytes: 1 without BLOB_ALIGNMENT. */
  get blobAlignment(): number {
    return this.#limits.blobAlignment;
  }

  /** The memory in which blobs of the host are mapped, if the device has such a region. @see VIRTIO 1.4, 5.7.5 */
  get hostVisible(): SharedMemory | undefined {
    return this.#limits.hostVisible;
  }

  // Displays.

  /**
   * Asks for the display of each scanout.
   *
   * @throws {@link GpuError}, {@link VirtioError} `UNSUPPORTED` without interrupts, `ABORTED`, or why the device no longer works
   * @see VIRTIO 1.4, 5.7.6.8
   */
  async displays(options?: WaitOptions): Promise<readonly Display[]> {
    return this.#own(await this.#control.request(getDisplayInfo(), options));
  }

  /** The same as {@link VirtioGpu.displays}, spinning. Throws `NOT_READY` after the time allowed. */
  displaysSync(options?: SpinOptions): readonly Display[] {
    return this.#own(this.#control.requestSync(getDisplayInfo(), options));
  }

  /**
   * Asks for the EDID of a scanout.
   *
   * @returns `undefined` if the display has none
   * @throws {@link VirtioError} `UNSUPPORTED` if EDID was not negotiated, and as {@link VirtioGpu.displays} does
   */
  async edid(scanout = 0, options?: WaitOptions): Promise<Edid | undefined> {
    return this.#readEdid(scanout, await this.#control.request(getEdid(scanout), options));
  }

  /** The same as {@link VirtioGpu.edid}, spinning. */
  edidSync(scanout = 0, options?: SpinOptions): Edid | undefined {
    return this.#readEdid(scanout, this.#control.requestSync(getEdid(scanout), options));
  }

  // Framebuffers.

  /**
   * Makes a framebuffer and shows it on a scanout. The default size is that of the display (1024 by 768 if it has none, or a size larger
   * than a framebuffer can be). A framebuffer that was set up for the scanout before is destroyed once the new one is shown, so this also
   * changes the resolution.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR`, {@link GpuError}, `UNSUPPORTED`, `ABORTED`, or why the device no
   * longer works
   * @see VIRTIO 1.4, 5.7.6.1
   */
  async setUpFramebuffer(options: SetUpOptions = {}, wait?: WaitOptions): Promise<Framebuffer> {
    return runSteps(this.#control, this.#setUp(options), wait);
  }

  /** The same as {@link VirtioGpu.setUpFramebuffer}, spinning. */
  setUpFramebufferSync(options: SetUpOptions = {}, wait?: SpinOptions): Framebuffer {
    return runStepsSync(this.#control, this.#setUp(options), wait);
  }

  /**
   * Makes a framebuffer that is not shown yet. It exists until it is destroyed, or the driver is disposed.
   *
   * @throws {@link VirtioError} as {@link VirtioGpu.setUpFramebuffer} does
   */
  async createFramebuffer(options: FramebufferOptions, wait?: WaitOptions): Promise<Framebuffer> {
    this.checkUsable();
    return runSteps(this.#control, Framebuffer.create(this.#state, options), wait);
  }

  /** The same as {@link VirtioGpu.createFramebuffer}, spinning. */
  createFramebufferSync(options: FramebufferOptions, wait?: SpinOptions): Framebuffer {
    this.checkUsable();
    return runStepsSync(this.#control, Framebuffer.create(this.#state, options), wait);
  }

  /**
   * Switches a scanout off. A framebuffer that was shown there is kept.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, and as {@link VirtioGpu.displays} does
   */
  async disableScanout(scanout: number, options?: WaitOptions): Promise<void> {
    requireScanout(this, scanout);
    const before = this.#state.shown[scanout];
    await this.#control.request(setScanout(scanout, 0, NOTHING), options);
    // Another may have been shown there in the meantime, or the same one again.
    if (this.#state.shown[scanout] === before) this.#state.shown[scanout] = undefined;
  }

  /** The same as {@link VirtioGpu.disableScanout}, spinning. */
  disableScanoutSync(scanout: number, options?: SpinOptions): void {
    requireScanout(this, scanout);
    const before = this.#state.shown[scanout];
    this.#control.requestSync(setScanout(scanout, 0, NOTHING), options);
    if (this.#state.shown[scanout] === before) this.#state.shown[scanout] = undefined;
  }

  // Cursors.

  /**
   * Makes a cursor: copies its image to the host. It is not shown yet.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the image is larger than 64 by 64 pixels, or has too few bytes; else as
   * {@link VirtioGpu.setUpFramebuffer} does
   * @see VIRTIO 1.4, 5.7.6.6
   */
  async createCursor(options: CursorOptions, wait?: WaitOptions): Promise<Cursor> {
    this.checkUsable();
    return runSteps(this.#control, Cursor.create(this.#state, options), wait);
  }

  /** The same as {@link VirtioGpu.createCursor}, spinning. */
  createCursorSync(options: CursorOptions, wait?: SpinOptions): Cursor {
    this.checkUsable();
    return runStepsSync(this.#control, Cursor.create(this.#state, options), wait);
  }

  /**
   * Moves the cursor of a scanout.
   *
   * @throws {@link VirtioError} as {@link Cursor.show} does
   * @see VIRTIO 1.4, 5.7.6.10
   */
  moveCursor(position: CursorPosition, options?: WaitOptions): Promise<void> {
    return sendCursor(this.#state, 'move', position, options);
  }

  /** The same as {@link VirtioGpu.moveCursor}, spinning. */
  moveCursorSync(position: CursorPosition, options?: SpinOptions): void {
    sendCursorSync(this.#state, 'move', position, options);
  }

  /** The same as {@link VirtioGpu.moveCursor} without waiting. Returns a token for {@link VirtioGpu.complete}. */
  submitMoveCursor(position: CursorPosition, options?: Pick<SubmitCommandOptions, 'kick'>): GpuToken<void> {
    return submitCursor(this.#state, 'move', position, options);
  }

  /** Hides the cursor of a scanout. Its image stays on the host. */
  hideCursor(scanout = 0, options?: WaitOptions): Promise<void> {
    return sendCursor(this.#state, undefined, this.#placeOf(scanout), options);
  }

  /** The same as {@link VirtioGpu.hideCursor}, spinning. */
  hideCursorSync(scanout = 0, options?: SpinOptions): void {
    sendCursorSync(this.#state, undefined, this.#placeOf(scanout), options);
  }

  /** The same as {@link VirtioGpu.hideCursor} without waiting. Returns a token for {@link VirtioGpu.complete}. */
  submitHideCursor(scanout = 0, options?: Pick<SubmitCommandOptions, 'kick'>): GpuToken<void> {
    return submitCursor(this.#state, undefined, this.#placeOf(scanout), options);
  }

  // Commands.

  /** Reserves an id for a resource of the caller; the driver does not use it. Free it with {@link VirtioGpu.freeResourceId}. */
  nextResourceId(): number {
    return this.#state.takeId();
  }

  /** Frees the id of a resource that the caller has destroyed. */
  freeResourceId(id: number): void {
    requireInteger(this.transport, 'the id', id, 1, 0xffff_ffff);
    this.#state.giveId(id);
  }

  /**
   * Sends a command to the control queue and waits for its answer.
   *
   * @param command one of `Command`
   * @throws {@link GpuError} if the device refuses; {@link VirtioError} `UNSUPPORTED` without interrupts, or if the
   * command needs a feature that was not negotiated, `INVALID_PARAM`, `ABORTED`, or why the device no longer works
   *
   * @example
   * ```ts
   * import { Command, PixelFormat, type VirtioGpu } from '@virtio/gpu';
   *
   * export async function make(gpu: VirtioGpu, width: number, height: number): Promise<number> {
   *   const resourceId = gpu.nextResourceId();
   *   await gpu.request(Command.resourceCreate2d({ resourceId, format: PixelFormat.R8G8B8A8_UNORM, width, height }));
   *   return resourceId;
   * }
   * ```
   */
  async request<T>(command: GpuCommand<T>, options?: RequestOptions): Promise<T> {
    return this.#control.request(command, options);
  }

  /** The same as {@link VirtioGpu.request}, spinning. Throws `NOT_READY` after the time allowed. */
  requestSync<T>(command: GpuCommand<T>, options?: RequestSyncOptions): T {
    return this.#control.requestSync(command, options);
  }

  /**
   * The same as {@link VirtioGpu.request} without waiting.
   *
   * @returns a token, for {@link VirtioGpu.complete}
   * @throws {@link VirtioError} `QUEUE_FULL`, and as {@link VirtioGpu.request} does
   */
  submit<T>(command: GpuCommand<T>, options?: SubmitCommandOptions): GpuToken<T> {
    return this.#control.submit(command, options);
  }

  /** Notifies the device of commands that were submitted with `kick: false`. */
  kick(): void {
    this.#control.requests.kick();
    this.#cursor.requests.kick();
  }

  /**
   * The next submitted command, on either queue, that is done.
   *
   * @returns its token, once, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    const token = this.#control.requests.poll();
    return token >= 0 ? token : this.#cursor.requests.poll();
  }

  /**
   * Whether a submitted command is done, so that {@link VirtioGpu.complete} can complete it.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    return this.#queueOf(token).requests.isDone(token);
  }

  /**
   * Completes a command that is done.
   *
   * @returns its result
   * @throws {@link GpuError} if the device refused; {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, or why the
   * command was lost
   */
  complete<T>(token: GpuToken<T>): T {
    return this.#queueOf(token).requests.complete(token) as T;
  }

  /**
   * Cancels a command. The device carries it out all the same.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.#queueOf(token).requests.cancel(token);
  }

  protected override onConfigChange(): void {
    if (this.#displayEvents.take()) this.#displayEvents.ask();
  }

  protected override onReset(): void {
    this.#state.forget();
    this.#limits.blobs.clear();
    this.#readConfig();
  }

  protected override onDispose(): void {
    this.#state.dispose();
  }

  #queue(index: number, size: number, answerRoom: number): CommandQueue {
    const requests = this.createRequestQueue(
      { index, size },
      {
        judge: (slot, length) => (index === CONTROL_QUEUE ? this.#control : this.#cursor).judge(slot, length),
        result: () => undefined,
      },
      [index, 2],
    );
    const memory = this.allocate(commandMemory(requests.slots, answerRoom), 'both');
    return new CommandQueue(
      requests,
      memory,
      {
        transport: this.transport,
        limits: this.#limits,
        has: (feature) => this.features.has(feature),
        fail: (error) => this.fail(error),
        quirk: (queue, message) => this.quirk(queue, message),
      },
      answerRoom,
      index === CURSOR_QUEUE,
    );
  }

  /** Reads the configuration, which a reset may have changed. */
  #readConfig(): void {
    this.#limits.read();
    // What changed earlier is in the answers to all questions from now on.
    this.#displayEvents.take();
  }

  /** The displays of the device's scanouts, of the 16 in every answer. */
  #own(displays: readonly Display[]): readonly Display[] {
    return displays.slice(0, this.scanouts);
  }

  #readEdid(scanout: number, bytes: Uint8Array): Edid | undefined {
    try {
      const edid = parseEdid(bytes);
      if (!edid.checksumOk) {
        this.quirk(CONTROL_QUEUE, `gave an EDID of scanout ${scanout} with a wrong checksum`);
      }
      return edid;
    } catch (error) {
      if (!VirtioError.is(error, 'INVALID_DEVICE')) throw error;
      return undefined;
    }
  }

  *#setUp(options: SetUpOptions): Steps<Framebuffer> {
    this.checkUsable();
    const { scanout = 0, ...others } = options;
    const state = this.#state;
    requireScanout(this, scanout);
    let { width, height } = options;
    if (width === undefined || height === undefined) {
      const wanted = this.#sizeOf((yield* ask(getDisplayInfo()))[scanout]);
      width ??= wanted.width;
      height ??= wanted.height;
    }
    const framebuffer = yield* Framebuffer.create(state, { ...others, width, height });
    const { epoch } = state;
    try {
      yield* framebuffer.transferSteps();
      yield* framebuffer.showSteps(scanout, { x: 0, y: 0, width, height });
    } catch (error) {
      framebuffer.abandon(error);
      throw error;
    }
    const old = state.setUp[scanout];
    if (epoch === state.epoch) state.setUp[scanout] = framebuffer;
    if (old !== undefined) yield* old.destroySteps();
    return framebuffer;
  }

  /** The size of a display, or the fallback if it cannot be used. */
  #sizeOf(display: Display | undefined): { readonly width: number; readonly height: number } {
    if (display?.enabled !== true) return FALLBACK;
    const { scanout, width, height } = display;
    if (width > 0 && height > 0 && width * height * BYTES_PER_PIXEL <= MAX_FRAMEBUFFER) return display;
    this.quirk(
      CONTROL_QUEUE,
      `has a display of ${width} by ${height} pixels at scanout ${scanout}; ${FALLBACK.width} by ${FALLBACK.height} are used`,
    );
    return FALLBACK;
  }

  #placeOf(scanout: number): CursorPosition {
    const place = this.#state.cursors[scanout];
    return { scanout, x: place?.x ?? 0, y: place?.y ?? 0 };
  }

  #queueOf(token: number): CommandQueue {
    // What is no token is refused by the first; of a bigint there is no remainder by a number.
    return typeof token === 'number' && token % 2 === CURSOR_QUEUE ? this.#cursor : this.#control;
  }
}

/** 2.2.1: a feature is not accepted without the features that it requires. */
function withoutOrphans(accepted: GpuFeatureSet): GpuFeatureSet {
  let { bits } = accepted;
  if (!accepted.has('VIRGL')) bits &= ~GpuFeatures.mask('CONTEXT_INIT');
  if (!accepted.has('RESOURCE_BLOB')) bits &= ~GpuFeatures.mask('BLOB_ALIGNMENT');
  return GpuFeatures.fromBits(bits);
}
