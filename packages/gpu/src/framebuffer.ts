/**
 * A picture in the guest's memory and its copy on the host. Drawing only changes the memory; a flush copies the changes and shows them.
 */
import { requireInteger, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import type { Backing } from './backing.ts';
import {
  resourceAttachBacking,
  resourceCreate2d,
  resourceDetachBacking,
  resourceFlush,
  resourceUnref,
  setScanout,
  transferToHost2d,
} from './display-commands.ts';
import type { Rect } from './command.ts';
import type { SubmitCommandOptions } from './command-queue.ts';
import { GpuError } from './gpu-error.ts';
import { type GpuState, requireScanout, wasNotSent } from './gpu-state.ts';
import {
  convertRgba,
  PixelFormat,
  type PixelFormatNumber,
  type PixelShifts,
  pixelShifts,
  requireImageData,
  rgbaWords,
} from './pixel-format.ts';
import { BYTES_PER_PIXEL } from './protocol.ts';
import { ask, runSteps, runStepsSync, type Steps } from './steps.ts';

/** Options of a new framebuffer. */
export interface FramebufferOptions {
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** One of {@link PixelFormat} (default `B8G8R8X8_UNORM`, which every device has). */
  readonly format?: PixelFormatNumber;
  /**
   * The largest size of one piece of DMA memory in bytes: a multiple of 4096 (default: as large as the platform has). With more than
   * one piece, each flush copies the changes once more.
   */
  readonly maxPiece?: number;
}

/** A picture in bytes R, G, B, A, row by row: the shape of the Web's `ImageData`. */
export interface RgbaImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** The largest size of a framebuffer in bytes: what arrays in all engines hold. */
export const MAX_FRAMEBUFFER: number = 2 ** 31 - 4096;
const MAX_PIECE = 2 ** 31;
const PAGE = 4096;

/** A picture in the guest's memory, and a 2D resource on the host. */
export class Framebuffer implements Disposable, AsyncDisposable {
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** One of {@link PixelFormat}. */
  readonly format: PixelFormatNumber;
  /** The bytes from one row to the next: four times the width. */
  readonly stride: number;
  /** The id of the resource on the host. */
  readonly resourceId: number;
  /**
   * All pixels row by row, as bytes in the order of {@link Framebuffer.format}. If it is DMA memory, in one piece, it is empty after the
   * framebuffer was destroyed.
   */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same memory as little-endian 32-bit words, one for each pixel; see {@link packPixel}. */
  readonly pixels: Uint32Array<ArrayBuffer>;

  readonly #state: GpuState;
  readonly #backing: Backing;
  readonly #shifts: PixelShifts;
  readonly #whole: Rect;
  readonly #epoch: number;
  #destroyed = false;

  /** @internal use {@link VirtioGpu.createFramebuffer} or {@link VirtioGpu.setUpFramebuffer} */
  constructor(
    state: GpuState,
    resourceId: number,
    backing: Backing,
    width: number,
    height: number,
    format: PixelFormatNumber,
  ) {
    this.#state = state;
    this.#backing = backing;
    this.#shifts = pixelShifts(format) as PixelShifts;
    this.#whole = { x: 0, y: 0, width, height };
    this.#epoch = state.epoch;
    this.width = width;
    this.height = height;
    this.format = format;
    this.stride = width * BYTES_PER_PIXEL;
    this.resourceId = resourceId;
    const { bytes } = backing;
    this.bytes = bytes;
    this.pixels = new Uint32Array(bytes.buffer, bytes.byteOffset, width * height);
  }

  /** @internal Makes a framebuffer. */
  static *create(state: GpuState, options: FramebufferOptions): Steps<Framebuffer> {
    const { transport } = state.owner;
    const { format = PixelFormat.B8G8R8X8_UNORM } = options;
    const width = requireInteger(transport, 'width', options.width, 1, MAX_FRAMEBUFFER / BYTES_PER_PIXEL);
    const height = requireInteger(transport, 'height', options.height, 1, MAX_FRAMEBUFFER / BYTES_PER_PIXEL);
    const maxPiece = requireInteger(transport, 'maxPiece', options.maxPiece ?? MAX_PIECE, PAGE, MAX_PIECE);
    if (maxPiece % PAGE !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: maxPiece must be a multiple of ${PAGE}, not ${maxPiece}`,
      );
    }
    const size = width * height * BYTES_PER_PIXEL;
    if (size > MAX_FRAMEBUFFER) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a framebuffer of ${width} by ${height} pixels has ${size} bytes; ${MAX_FRAMEBUFFER} is the limit`,
      );
    }
    const id = state.takeId();
    const { epoch } = state;
    let backing: Backing | undefined;
    try {
      // The command is built first, as it checks the format.
      const create = resourceCreate2d({ resourceId: id, format, width, height });
      backing = state.allocate(size, maxPiece);
      yield* ask(create);
      yield* ask(resourceAttachBacking(id, backing.entries));
    } catch (error) {
      if (backing === undefined) state.giveId(id);
      else state.abandon(id, backing, epoch, error);
      throw error;
    }
    return new Framebuffer(state, id, backing, width, height, format);
  }

  /** Whether the resource exists on the host: false after {@link Framebuffer.destroy} or a reset of the device. */
  get live(): boolean {
    return !this.#destroyed && this.#epoch === this.#state.epoch;
  }

  /**
   * Copies a picture into the framebuffer's memory, clipped to the framebuffer. It is shown by the next flush.
   *
   * @param x the position of its left edge; may be negative, as may `y`
   * @throws {@link VirtioError} `INVALID_PARAM` if `data` has fewer bytes than its size needs, or other elements than bytes;
   * `DISPOSED` if the framebuffer was destroyed
   */
  drawImage(image: RgbaImage, x = 0, y = 0): void {
    const { transport } = this.#state.owner;
    const { width, height, data } = image;
    requireInteger(transport, "the image's width", width, 0, MAX_FRAMEBUFFER);
    requireInteger(transport, "the image's height", height, 0, MAX_FRAMEBUFFER);
    requireImageData(transport, data);
    requireInteger(transport, 'x', x, -MAX_FRAMEBUFFER, MAX_FRAMEBUFFER);
    requireInteger(transport, 'y', y, -MAX_FRAMEBUFFER, MAX_FRAMEBUFFER);
    if (data.length < width * height * BYTES_PER_PIXEL) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: an image of ${width} by ${height} pixels must have ${width * height * BYTES_PER_PIXEL} bytes R, G, B, A, ` +
          `not ${data.length}`,
      );
    }
    // Not every platform can empty views of memory that was given back.
    if (this.#backing.isFree) throw this.#gone();
    const left = Math.max(0, x);
    const count = Math.min(this.width, x + width) - left;
    if (count <= 0) return;
    const bottom = Math.min(this.height, y + height);
    const words = rgbaWords(data, width * height);
    for (let row = Math.max(0, y); row < bottom; row += 1) {
      const from = (row - y) * width + left - x;
      convertRgba(words, from, this.pixels, row * this.width + left, count, this.#shifts);
    }
  }

  /**
   * Copies drawn pixels to the host and updates all scanouts that show the framebuffer.
   *
   * @param rects the parts that have changed (default: everything); only these are copied
   * @throws {@link VirtioError} `INVALID_PARAM` for a rectangle that is not inside, {@link GpuError}, `UNSUPPORTED`, `ABORTED`,
   * `DISPOSED`, `DEVICE_RESET`, or why the device no longer works
   * @see VIRTIO 1.4, 5.7.6.2
   */
  async flush(rects: Rect | readonly Rect[] = this.#whole, options?: WaitOptions): Promise<void> {
    const { requests } = this.#state.control;
    // All are copied before any is sent: while room is looked for, a listener may change the array, or destroy the framebuffer.
    const own = (isRect(rects) ? [rects] : rects).map(({ x, y, width, height }) => ({ x, y, width, height }));
    this.#check(own);
    requests.checkWaitable(options);
    for (const rect of own) this.#publish(rect);
    await Promise.all(
      own.flatMap((rect) => [this.#send(rect, true, options), this.#send(rect, false, options)]),
    );
  }

  /** The same as {@link Framebuffer.flush}, spinning. Allocates nothing. */
  flushSync(rects: Rect | readonly Rect[] = this.#whole, options?: SpinOptions): void {
    this.#check(rects);
    this.#state.control.requests.checkSpin(options);
    if (isRect(rects)) {
      this.#flushSync(rects, options);
      return;
    }
    for (const rect of rects) {
      // A listener may have changed it, or destroyed the framebuffer, while the one before was awaited.
      this.#check(rect);
      this.#flushSync(rect, options);
    }
  }

  /**
   * Submits the copy of a rectangle to the host, without showing it. Complete it with `gpu.complete(token)`.
   *
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, and as {@link Framebuffer.flush} does
   */
  submitTransfer(rect: Rect = this.#whole, options?: Pick<SubmitCommandOptions, 'kick'>): number {
    this.#check(rect);
    this.#publish(rect);
    return this.#submit(rect, true, options);
  }

  /**
   * Submits the display of a rectangle that was copied. Commands are carried out in order, so this may be called directly after
   * {@link Framebuffer.submitTransfer}.
   *
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, and as {@link Framebuffer.flush} does
   */
  submitResourceFlush(rect: Rect = this.#whole, options?: Pick<SubmitCommandOptions, 'kick'>): number {
    this.#check(rect);
    return this.#submit(rect, false, options);
  }

  /**
   * Shows the framebuffer, as it was flushed last, on a scanout, instead of what was shown there. With two framebuffers this is page
   * flipping.
   *
   * @param rect the part to show (default: everything)
   * @throws {@link VirtioError} as {@link Framebuffer.flush} does
   * @see VIRTIO 1.4, 5.7.6.3
   */
  async show(scanout = 0, rect: Rect = this.#whole, options?: WaitOptions): Promise<void> {
    await runSteps(this.#state.control, this.showSteps(scanout, rect), options);
  }

  /** The same as {@link Framebuffer.show}, spinning. */
  showSync(scanout = 0, rect: Rect = this.#whole, options?: SpinOptions): void {
    runStepsSync(this.#state.control, this.showSteps(scanout, rect), options);
  }

  /**
   * Removes the framebuffer from all scanouts, destroys its resource, and frees its memory once the device no longer uses it.
   * A second call does nothing. If the caller cancels, it is destroyed all the same, as soon as the device answers.
   *
   * @throws {@link VirtioError} if the device does not answer; the memory is kept until it is reset. `QUEUE_FULL`, of the synchronous
   * form: call it again when there is room
   */
  async destroy(options?: WaitOptions): Promise<void> {
    if (this.#destroyed) return;
    await runSteps(this.#state.control, this.destroySteps(), options);
  }

  /** The same as {@link Framebuffer.destroy}, spinning. */
  destroySync(options?: SpinOptions): void {
    if (this.#destroyed) return;
    runStepsSync(this.#state.control, this.destroySteps(), options);
  }

  /** The same as {@link Framebuffer.destroySync}; nothing is sent to a device that no longer works. */
  [Symbol.dispose](): void {
    if (this.#state.owner.failure === undefined) this.destroySync();
  }

  /** The same as {@link Framebuffer.destroy}; nothing is sent to a device that no longer works. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.owner.failure === undefined) await this.destroy();
  }

  /** @internal */
  *showSteps(scanout: number, { x, y, width, height }: Rect): Steps<void> {
    // The rectangle is the caller's; it may change it between the two commands.
    const rect = { x, y, width, height };
    this.#check(rect);
    requireScanout(this.#state.owner, scanout);
    const { shown } = this.#state;
    const before = shown[scanout];
    // Said before the device answers: who gives up waiting must not destroy what may be shown without switching it off.
    const mine = { framebuffer: this };
    shown[scanout] = mine;
    try {
      yield* ask(setScanout(scanout, this.resourceId, rect));
    } catch (error) {
      if (error instanceof GpuError && shown[scanout] === mine) shown[scanout] = before;
      throw error;
    }
    // Without it some devices go on showing what they showed.
    yield* ask(resourceFlush(this.resourceId, rect));
  }

  /** @internal Copies everything to the host. */
  *transferSteps(): Steps<void> {
    this.#publish(this.#whole);
    yield* ask(transferToHost2d(this.resourceId, this.#whole, 0));
  }

  /** @internal Abandons a framebuffer that was not set up completely. */
  abandon(reason: unknown): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const { shown } = this.#state;
    for (let scanout = 0; scanout < shown.length; scanout += 1) {
      if (shown[scanout]?.framebuffer === this) shown[scanout] = undefined;
    }
    this.#state.abandon(this.resourceId, this.#backing, this.#epoch, reason);
  }

  /** @internal */
  *destroySteps(): Steps<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const state = this.#state;
    if (this.#epoch !== state.epoch) {
      state.free(this.#backing);
      return;
    }
    try {
      for (let scanout = 0; scanout < state.shown.length; scanout += 1) {
        const mine = state.shown[scanout];
        if (mine?.framebuffer !== this) continue;
        state.shown[scanout] = undefined;
        try {
          yield* tolerant(ask(setScanout(scanout, 0, { x: 0, y: 0, width: 0, height: 0 })));
        } catch (error) {
          if (wasNotSent(error)) state.shown[scanout] ??= mine;
          throw error;
        }
      }
      for (let scanout = 0; scanout < state.setUp.length; scanout += 1) {
        if (state.setUp[scanout] === this) state.setUp[scanout] = undefined;
      }
      yield* tolerant(ask(resourceDetachBacking(this.resourceId)));
      yield* tolerant(ask(resourceUnref(this.resourceId)));
    } catch (error) {
      if (this.#epoch !== state.epoch) state.free(this.#backing);
      else if (wasNotSent(error)) this.#destroyed = false;
      else state.keepUntilReset(this.#backing);
      throw error;
    }
    state.free(this.#backing);
    if (this.#epoch === state.epoch) state.giveId(this.resourceId);
  }

  /** Refuses a rectangle outside of the framebuffer, and a framebuffer that was destroyed. */
  #check(rects: Rect | readonly Rect[]): void {
    const { failure } = this.#state.owner;
    if (failure !== undefined) throw failure;
    if (this.#destroyed) throw this.#gone();
    if (this.#epoch !== this.#state.epoch) {
      throw this.#state.lost(`the framebuffer of resource ${this.resourceId}`);
    }
    if (isRect(rects)) this.#checkRect(rects);
    else for (const rect of rects) this.#checkRect(rect);
  }

  #gone(): VirtioError {
    const { transport, failure } = this.#state.owner;
    if (failure?.code === 'DISPOSED') return failure;
    return new VirtioError(
      'DISPOSED',
      `${transport.who()}: the framebuffer of resource ${this.resourceId} was destroyed; make a new one`,
    );
  }

  #checkRect({ x, y, width, height }: Rect): void {
    const { transport } = this.#state.owner;
    requireInteger(transport, 'x', x, 0, this.width - 1);
    requireInteger(transport, 'y', y, 0, this.height - 1);
    requireInteger(transport, 'width', width, 1, this.width - x);
    requireInteger(transport, 'height', height, 1, this.height - y);
  }

  /** Copies a rectangle to the memory that the device sees. */
  #publish({ x, y, width, height }: Rect): void {
    const backing = this.#backing;
    if (backing.direct) return;
    if (width === this.width) {
      backing.publish(y * this.stride, height * this.stride);
      return;
    }
    const from = y * this.stride + x * BYTES_PER_PIXEL;
    for (let row = 0; row < height; row += 1) {
      backing.publish(from + row * this.stride, width * BYTES_PER_PIXEL);
    }
  }

  /** @param rect must not change while the command waits for room */
  #send(rect: Rect, transfer: boolean, options: WaitOptions | undefined): Promise<unknown> {
    const { requests } = this.#state.control;
    try {
      const slot = requests.crowded ? -1 : this.#start(rect, transfer, false);
      if (slot >= 0) return requests.settled(slot, options);
      return requests.whenRoom(2, () => this.#start(rect, transfer, false), options);
    } catch (error) {
      const reason = error as Error;
      return Promise.reject(reason);
    }
  }

  #flushSync(rect: Rect, options: SpinOptions | undefined): void {
    const { requests } = this.#state.control;
    this.#publish(rect);
    const transfer = this.#start(rect, true, true);
    let flush: number;
    try {
      flush = this.#start(rect, false, true);
    } catch (error) {
      // No room for the second: the first goes alone. It is given up before the device may answer.
      requests.cancel(requests.token(transfer));
      requests.kick();
      throw error;
    }
    requests.waitSyncBoth(transfer, flush, options);
  }

  #submit(rect: Rect, transfer: boolean, options: Pick<SubmitCommandOptions, 'kick'> | undefined): number {
    const { requests } = this.#state.control;
    const token = requests.token(this.#start(rect, transfer, true));
    if (options?.kick !== false) requests.kick();
    return token;
  }

  #start(rect: Rect, transfer: boolean, must: boolean): number {
    const { control } = this.#state;
    if (!transfer) return control.startFlush(this.resourceId, rect, must);
    const offset = rect.y * this.stride + rect.x * BYTES_PER_PIXEL;
    return control.startTransfer(this.resourceId, rect, offset, must);
  }
}

function isRect(rects: Rect | readonly Rect[]): rects is Rect {
  return !Array.isArray(rects);
}

/** Continues if the device refuses a step, as there is nothing to undo then; and if the caller cancelled. */
function* tolerant(steps: Steps<void>): Steps<void> {
  try {
    yield* steps;
  } catch (error) {
    if (!(error instanceof GpuError) && !VirtioError.is(error, 'ABORTED')) throw error;
  }
}
