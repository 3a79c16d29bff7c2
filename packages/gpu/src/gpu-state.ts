/**
 * The state that a driver, its framebuffers and its cursors share: the queues, the ids of resources, memory that the device may use,
 * and what each scanout shows.
 */
import { type Hal, requireInteger, type Transport, VirtioError } from '@virtio/core';
import { Backing } from './backing.ts';
import type { CommandQueue } from './command-queue.ts';
import { resourceDetachBacking, resourceUnref } from './display-commands.ts';
import { GpuError } from './gpu-error.ts';
import { CURSOR_SIZE } from './protocol.ts';
import type { Steps } from './steps.ts';

/** How long the attempt to destroy a resource may spin without interrupts, in milliseconds. */
const ABANDON_MS = 1000;

/** The cursor of a scanout. */
export interface CursorPlace {
  /** The `Cursor` that is shown: the values that a request needs. */
  cursor: { readonly resourceId: number; readonly hotX: number; readonly hotY: number } | undefined;
  x: number;
  y: number;
}

/** What the state needs from its driver. */
export interface GpuOwner {
  readonly transport: Transport;
  readonly hal: Hal;
  readonly failure: VirtioError | undefined;
  readonly scanouts: number;
  usesAccessPlatform(): boolean;
}

/**
 * Checks the number of a scanout.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`; `UNSUPPORTED` if the device has none
 */
export function requireScanout(
  { transport, scanouts }: Pick<GpuOwner, 'transport' | 'scanouts'>,
  scanout: number,
): void {
  if (scanouts === 0) {
    throw new VirtioError(
      'UNSUPPORTED',
      `${transport.who()} has no scanouts, so it can show nothing: give the device a display, or use it for rendering alone`,
    );
  }
  requireInteger(transport, 'scanout', scanout, 0, scanouts - 1);
}

/** Whether a command was never sent, for want of room in the queue. */
export function wasNotSent(error: unknown): boolean {
  return VirtioError.is(error, 'QUEUE_FULL');
}

/** The state of a driver. */
export class GpuState {
  readonly owner: GpuOwner;
  readonly control: CommandQueue;
  readonly cursorQueue: CommandQueue;
  /** By scanout: the `Framebuffer` that it shows, in an object of the call that showed it. */
  readonly shown: ({ readonly framebuffer: object } | undefined)[] = [];
  /** By scanout: what was set up for it, and is destroyed when the next is set up. */
  readonly setUp: ({ destroySteps(): Steps<void> } | undefined)[] = [];
  readonly cursors: CursorPlace[] = [];
  /** Changes with each reset, which destroys all resources. */
  epoch = 0;

  /** Memory that was allocated and not freed. */
  readonly #backings = new Set<Backing>();
  /** Memory that only the device may still use. */
  readonly #abandoned = new Set<Backing>();
  /** Attempts to destroy resources that wait for room in the queue. */
  readonly #attempts: (() => void)[] = [];
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

  /** Frees the id of a resource that was destroyed. */
  giveId(id: number): void {
    this.#ids.delete(id);
  }

  /** Allocates the backing memory of a resource. */
  allocate(size: number, maxPiece: number): Backing {
    const { hal } = this.owner;
    for (const attempt of this.#attempts.splice(0)) attempt();
    const backing = Backing.allocate(hal, size, this.owner.usesAccessPlatform(), maxPiece);
    this.#backings.add(backing);
    return backing;
  }

  /** Frees memory that the device no longer uses. */
  free(backing: Backing): void {
    this.#abandoned.delete(backing);
    if (this.#backings.delete(backing)) backing.free();
  }

  /** Keeps memory that the device may still use until it is reset. */
  keepUntilReset(backing: Backing): void {
    if (this.#backings.has(backing)) this.#abandoned.add(backing);
  }

  /**
   * Abandons a resource that was not set up completely: asks the device to destroy it, and then frees its memory.
   *
   * @param epoch the epoch in which it was begun
   * @param reason the error that ended its set-up
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
      // Nobody waits for it.
      const answer = { holds: false };
      this.control.request(resourceDetachBacking(id), answer).catch(() => undefined);
      this.control.request(resourceUnref(id), answer).then(done, failed);
      return;
    }
    const attempt = (): void => {
      try {
        this.control.requestSync(resourceUnref(id), { timeoutMs: ABANDON_MS });
        done();
      } catch (error) {
        if (wasNotSent(error)) this.#attempts.push(attempt);
        else failed(error);
      }
    };
    attempt();
  }

  /** The device was reset: it has no resources, and uses no memory. */
  forget(): void {
    this.epoch += 1;
    this.shown.fill(undefined);
    this.setUp.fill(undefined);
    for (const place of this.cursors) place.cursor = undefined;
    this.#ids.clear();
    this.#attempts.length = 0;
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
      `${this.owner.transport.who()} was reset, which destroyed ${what}: make a new one`,
    );
  }
}

/** The size of a cursor's image, in bytes. */
export const CURSOR_BYTES: number = CURSOR_SIZE * CURSOR_SIZE * 4;
