/** The image of a cursor on the host, and its position. */
import { requireInteger, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import type { SubmitCommandOptions } from './command-queue.ts';
import {
  resourceAttachBacking,
  resourceCreate2d,
  resourceDetachBacking,
  resourceUnref,
  transferToHost2d,
} from './display-commands.ts';
import type { RgbaImage } from './framebuffer.ts';
import { GpuError } from './gpu-error.ts';
import { CURSOR_BYTES, type GpuState, requireScanout, wasNotSent } from './gpu-state.ts';
import {
  convertPremultiplied,
  PixelFormat,
  type PixelShifts,
  pixelShifts,
  requireImageData,
} from './pixel-format.ts';
import { BYTES_PER_PIXEL, CURSOR_SIZE, GpuCommandType } from './protocol.ts';
import { ask, runSteps, runStepsSync, type Steps } from './steps.ts';

/** Options of a new cursor. */
export interface CursorOptions {
  /** The image: up to 64 by 64 pixels. A smaller one is put into the upper left corner of a transparent image of that size. */
  readonly image: RgbaImage;
  /** The hot spot: the pixel of the image that points (default 0, 0). */
  readonly hotX?: number;
  readonly hotY?: number;
}

/** The position of a cursor. */
export interface CursorPosition {
  /** The scanout (default 0). */
  readonly scanout?: number;
  /** The position of its hot spot, in pixels of the display. */
  readonly x: number;
  readonly y: number;
}

/** Positions have 32 bits; Linux sends negative ones if a cursor extends over the left or upper edge. */
const MIN_POSITION = -(2 ** 31);
const MAX_POSITION = 2 ** 32 - 1;

/** A cursor image on the host. */
export class Cursor implements Disposable, AsyncDisposable {
  /** The id of the resource on the host. */
  readonly resourceId: number;
  /** The hot spot: the pixel of the image that points. */
  readonly hotX: number;
  readonly hotY: number;

  readonly #state: GpuState;
  readonly #epoch: number;
  #destroyed = false;
  /** It is being hidden where it is shown, to be destroyed then. */
  #ending = false;

  /** @internal use {@link VirtioGpu.createCursor} */
  constructor(state: GpuState, resourceId: number, hotX: number, hotY: number) {
    this.#state = state;
    this.#epoch = state.epoch;
    this.resourceId = resourceId;
    this.hotX = hotX;
    this.hotY = hotY;
  }

  /** @internal Makes a cursor. Once the host has the image, the guest needs no memory for it. */
  static *create(state: GpuState, options: CursorOptions): Steps<Cursor> {
    const { transport } = state.owner;
    const { image, hotX = 0, hotY = 0 } = options;
    const width = requireInteger(transport, "the cursor's width", image.width, 1, CURSOR_SIZE);
    const height = requireInteger(transport, "the cursor's height", image.height, 1, CURSOR_SIZE);
    requireInteger(transport, 'hotX', hotX, 0, CURSOR_SIZE - 1);
    requireInteger(transport, 'hotY', hotY, 0, CURSOR_SIZE - 1);
    requireImageData(transport, image.data);
    if (image.data.length < width * height * BYTES_PER_PIXEL) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a cursor of ${width} by ${height} pixels must have ${width * height * BYTES_PER_PIXEL} bytes R, G, B, A, ` +
          `not ${image.data.length}`,
      );
    }
    const format = PixelFormat.B8G8R8A8_UNORM;
    const { epoch } = state;
    const backing = state.allocate(CURSOR_BYTES, CURSOR_BYTES);
    const id = state.takeId();
    try {
      const { bytes } = backing;
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, CURSOR_BYTES / BYTES_PER_PIXEL);
      const shifts = pixelShifts(format) as PixelShifts;
      for (let row = 0; row < height; row += 1) {
        convertPremultiplied(
          image.data,
          row * width * BYTES_PER_PIXEL,
          words,
          row * CURSOR_SIZE,
          width,
          shifts,
        );
      }
      if (!backing.direct) backing.publish(0, CURSOR_BYTES);
      const whole = { x: 0, y: 0, width: CURSOR_SIZE, height: CURSOR_SIZE };
      yield* ask(resourceCreate2d({ resourceId: id, format, width: CURSOR_SIZE, height: CURSOR_SIZE }));
      yield* ask(resourceAttachBacking(id, backing.entries));
      // 5.7.6.6: the fence of the transfer has to be there before the image is used.
      yield* ask(transferToHost2d(id, whole, 0));
      yield* ask(resourceDetachBacking(id));
    } catch (error) {
      state.abandon(id, backing, epoch, error);
      throw error;
    }
    state.free(backing);
    return new Cursor(state, id, hotX, hotY);
  }

  /** Whether the image exists on the host: false after {@link Cursor.destroy} or a reset of the device. */
  get live(): boolean {
    return !this.#destroyed && this.#epoch === this.#state.epoch;
  }

  /**
   * Shows this cursor on a scanout, at a position.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, {@link GpuError}, `UNSUPPORTED`, `ABORTED`, `DISPOSED`, `DEVICE_RESET`, or why the
   * device no longer works
   * @see VIRTIO 1.4, 5.7.6.10
   */
  show(position: CursorPosition, options?: WaitOptions): Promise<void> {
    return sendCursor(this.#state, this, position, options);
  }

  /** The same as {@link Cursor.show}, spinning. */
  showSync(position: CursorPosition, options?: SpinOptions): void {
    sendCursorSync(this.#state, this, position, options);
  }

  /**
   * The same as {@link Cursor.show} without waiting; complete it with `gpu.complete(token)`.
   *
   * @returns a token
   */
  submitShow(position: CursorPosition, options?: Pick<SubmitCommandOptions, 'kick'>): number {
    return submitCursor(this.#state, this, position, options);
  }

  /**
   * Hides the cursor where it is shown, and destroys its image on the host. A second call does nothing, unless the first was cancelled while
   * the cursor was being hidden.
   */
  async destroy(options?: WaitOptions): Promise<void> {
    if (this.#destroyed || this.#ending) return;
    this.#ending = true;
    try {
      for (const scanout of this.#scanouts()) {
        await sendCursor(this.#state, undefined, this.#at(scanout), options).catch(unlessRefused);
      }
      await runSteps(this.#state.control, this.#destroySteps(), options);
    } finally {
      this.#ending = false;
    }
  }

  /** The same as {@link Cursor.destroy}, spinning. */
  destroySync(options?: SpinOptions): void {
    if (this.#destroyed || this.#ending) return;
    this.#ending = true;
    try {
      for (const scanout of this.#scanouts()) {
        try {
          sendCursorSync(this.#state, undefined, this.#at(scanout), options);
        } catch (error) {
          unlessRefused(error);
        }
      }
      runStepsSync(this.#state.control, this.#destroySteps(), options);
    } finally {
      this.#ending = false;
    }
  }

  /** The same as {@link Cursor.destroySync}; nothing is sent to a device that no longer works. */
  [Symbol.dispose](): void {
    if (this.#state.owner.failure === undefined) this.destroySync();
  }

  /** The same as {@link Cursor.destroy}; nothing is sent to a device that no longer works. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.owner.failure === undefined) await this.destroy();
  }

  /** @internal Refuses an image that was destroyed. */
  check(): void {
    const { transport } = this.#state.owner;
    if (this.#destroyed || this.#ending) {
      throw new VirtioError(
        'DISPOSED',
        `${transport.who()}: the cursor of resource ${this.resourceId} was destroyed; make a new one`,
      );
    }
    if (this.#epoch !== this.#state.epoch) {
      throw this.#state.lost(`the cursor of resource ${this.resourceId}`);
    }
  }

  #isOver(): boolean {
    return this.#destroyed || this.#epoch !== this.#state.epoch;
  }

  /** The scanouts whose cursor this is, each found when it is asked for: another may be shown there while one is awaited. */
  *#scanouts(): Generator<number, void> {
    const { cursors } = this.#state;
    for (let scanout = 0; scanout < cursors.length; scanout += 1) {
      if (cursors[scanout]?.cursor === this) yield scanout;
    }
  }

  #at(scanout: number): CursorPosition {
    const { x, y } = this.#state.cursorOf(scanout);
    return { scanout, x, y };
  }

  *#destroySteps(): Steps<void> {
    if (this.#isOver()) {
      this.#destroyed = true;
      return;
    }
    this.#destroyed = true;
    try {
      yield* ask(resourceUnref(this.resourceId));
    } catch (error) {
      if (wasNotSent(error)) this.#destroyed = false;
      // Who has cancelled was told; the device has answered by now.
      if (!VirtioError.is(error, 'ABORTED')) unlessRefused(error);
    }
    if (this.#epoch === this.#state.epoch) this.#state.giveId(this.resourceId);
  }
}

/** Continues if the device refuses a step of the destruction, as nothing is to be undone then. */
function unlessRefused(error: unknown): void {
  if (!(error instanceof GpuError)) throw error;
}

/** A change of a scanout's cursor: `undefined` hides it, `'move'` keeps its image. */
export type CursorChange = Cursor | undefined | 'move';

/** Changes a scanout's cursor and waits until the device has done so. */
export function sendCursor(
  state: GpuState,
  change: CursorChange,
  position: CursorPosition,
  options?: WaitOptions,
): Promise<void> {
  try {
    const { requests } = state.cursorQueue;
    const { x, y, scanout } = checkCursor(state, change, position);
    requests.checkWaitable(options);
    const slot = requests.crowded ? -1 : startCursor(state, change, scanout, x, y, false);
    const answer =
      slot >= 0
        ? requests.settled(slot, options)
        : requests.whenRoom(2, () => startCursor(state, change, scanout, x, y, false), options);
    return answer as Promise<void>;
  } catch (error) {
    const reason = error as Error;
    return Promise.reject(reason);
  }
}

/** The same, spinning. */
export function sendCursorSync(
  state: GpuState,
  change: CursorChange,
  position: CursorPosition,
  options?: SpinOptions,
): void {
  const { requests } = state.cursorQueue;
  requests.checkSpin(options);
  const { x, y, scanout } = checkCursor(state, change, position);
  requests.waitSync(startCursor(state, change, scanout, x, y, true), options);
}

/** The same without waiting. */
export function submitCursor(
  state: GpuState,
  change: CursorChange,
  position: CursorPosition,
  options?: Pick<SubmitCommandOptions, 'kick'>,
): number {
  const { requests } = state.cursorQueue;
  const { x, y, scanout } = checkCursor(state, change, position);
  const token = requests.token(startCursor(state, change, scanout, x, y, true));
  if (options?.kick !== false) requests.kick();
  return token;
}

function checkCursor(
  state: GpuState,
  change: CursorChange,
  { scanout = 0, x, y }: CursorPosition,
): { readonly scanout: number; readonly x: number; readonly y: number } {
  const { transport, failure } = state.owner;
  if (failure !== undefined) throw failure;
  requireScanout(state.owner, scanout);
  requireInteger(transport, 'x', x, MIN_POSITION, MAX_POSITION);
  requireInteger(transport, 'y', y, MIN_POSITION, MAX_POSITION);
  if (change instanceof Cursor) change.check();
  return { scanout, x, y };
}

function startCursor(
  state: GpuState,
  change: CursorChange,
  scanout: number,
  x: number,
  y: number,
  must: boolean,
): number {
  const place = state.cursorOf(scanout);
  const cursor = change === 'move' ? place.cursor : change;
  // It may have been destroyed while this waited for room.
  if (change instanceof Cursor) change.check();
  const type = change === 'move' ? GpuCommandType.MOVE_CURSOR : GpuCommandType.UPDATE_CURSOR;
  // A move has the image's id, too: QEMU hides a cursor that is moved without one.
  const id = cursor?.resourceId ?? 0;
  const slot = state.cursorQueue.startCursor(
    type,
    scanout,
    x,
    y,
    id,
    cursor?.hotX ?? 0,
    cursor?.hotY ?? 0,
    must,
  );
  if (slot < 0) return slot;
  place.cursor = cursor;
  place.x = x;
  place.y = y;
  return slot;
}
