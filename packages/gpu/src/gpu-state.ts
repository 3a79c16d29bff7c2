/**
 * What a driver, its framebuffers and its cursors share: the queues, the ids of resources, memory that the device may use, and
 * what is shown where.
 */
import { type Hal, type Transport, VirtioError } from '@virtio/core';
import { Backing } from './backing.ts';
import type { CommandQueue } from './command-queue.ts';
import { resourceDetachBacking, resourceUnref } from './display-commands.ts';
import { GpuError } from './gpu-error.ts';
import { CURSOR_SIZE } from './protocol.ts';
import type { Steps } from './steps.ts';

/** How long an attempt to give a resource back may spin where there are no promises. */
const ABANDON_MS = 1000;

/** The cursor of a scanout. */
export interface CursorPlace {
  /** The `Cursor` that is shown, as far as a request names it. */
  cursor: { readonly resourceId: number; readonly hotX: number; readonly hotY: number } | undefined;
  x: number;
  y: number;
}

/** What the driver itself does for its state. */
export interface GpuOwner {
  readonly transport: Transport;
  readonly hal: Hal;
  readonly failure: VirtioError | undefined;
  readonly scanouts: number;
  usesAccessPlatform(): boolean;
}

/** The state of a driver. */
export class GpuState {
  readonly owner: GpuOwner;
  readonly control: CommandQueue;
  readonly cursorQueue: CommandQueue;
  /** By scanout: the `Framebuffer` that it shows. */
  readonly shown: (object | undefined)[] = [];
  /** By scanout: what was set up for it and is destroyed when the next is. */
  readonly setUp: ({ destroySteps(): Steps<void> } | undefined)[] = [];
  readonly cursors: CursorPlace[] = [];
  /** Changes with each reset, which takes all resources away. */
  epoch = 0;

  /** Memory that was handed out and not given back. */
  readonly #backings = new Set<Backing>();
  /** Memory that nobody uses any more but perhaps the device. */
  readonly #abandoned = new Set<Backing>();
  readonly #ids = new Set<number>();
  #lastId = 0;

  constructor(owner: GpuOwner, control: CommandQueue, cursorQueue: CommandQueue) {
    this.owner = owner;
    this.control = control;
    this.cursorQueue = cursorQueue;
  }

  /** An id that none of the driver's resources has. */
  takeId(): number {
    do this.#lastId = this.#lastId === 0xffff_ffff ? 1 : this.#lastId + 1;
    while (this.#ids.has(this.#lastId));
    this.#ids.add(this.#lastId);
    return this.#lastId;
  }

  /** The resource is gone. */
  giveId(id: number): void {
    this.#ids.delete(id);
  }

  /** Allocates memory behind a resource. */
  allocate(size: number, maxPiece: number): Backing {
    const { hal } = this.owner;
    const backing = Backing.allocate(hal, size, this.owner.usesAccessPlatform(), maxPiece);
    this.#backings.add(backing);
    return backing;
  }

  /** Gives memory back that the device no longer uses. */
  free(backing: Backing): void {
    this.#abandoned.delete(backing);
    if (this.#backings.delete(backing)) backing.free();
  }

  /** Keeps memory that the device may still use until it is reset. */
  keepUntilReset(backing: Backing): void {
    if (this.#backings.has(backing)) this.#abandoned.add(backing);
  }

  /**
   * Gives up a resource that was not made to the end: has the device destroy it, and frees its memory when it has.
   *
   * @param epoch when it was begun
   * @param reason why
   */
  abandon(id: number, backing: Backing, epoch: number, reason: unknown): void {
    const { failure, transport } = this.owner;
    if (epoch !== this.epoch) {
      this.free(backing);
      return;
    }
    this.keepUntilReset(backing);
    if (failure !== undefined) return;
    // After a time-out the device may still have a command that gives it the memory.
    const answered = !VirtioError.is(reason, 'NOT_READY');
    const done = (): void => {
      if (epoch !== this.epoch) return;
      this.free(backing);
      this.giveId(id);
    };
    const failed = (error: unknown): void => {
      // A device that does not know the resource does not use its memory.
      if (answered && error instanceof GpuError) done();
    };
    if (transport.interrupts !== undefined) {
      this.control.request(resourceDetachBacking(id)).catch(() => undefined);
      this.control.request(resourceUnref(id)).then(done, failed);
      return;
    }
    try {
      this.control.requestSync(resourceUnref(id), { timeoutMs: ABANDON_MS });
      done();
    } catch (error) {
      failed(error);
    }
  }

  /** The device was reset: it has no resource any more, and uses no memory. */
  forget(): void {
    this.epoch += 1;
    this.shown.fill(undefined);
    this.setUp.fill(undefined);
    for (const place of this.cursors) place.cursor = undefined;
    this.#ids.clear();
    for (const backing of [...this.#abandoned]) this.free(backing);
  }

  /** The driver is disposed. */
  dispose(): void {
    this.forget();
    for (const backing of [...this.#backings]) this.free(backing);
  }

  /** The place of a scanout's cursor. */
  cursorOf(scanout: number): CursorPlace {
    return (this.cursors[scanout] ??= { cursor: undefined, x: 0, y: 0 });
  }

  /** Why a framebuffer or a cursor of an earlier epoch cannot be used. */
  lost(what: string): VirtioError {
    return new VirtioError(
      'DEVICE_RESET',
      `${this.owner.transport.who()} was reset, which took ${what} away: make a new one`,
    );
  }
}

/** Bytes of a cursor's image. */
export const CURSOR_BYTES: number = CURSOR_SIZE * CURSOR_SIZE * 4;
