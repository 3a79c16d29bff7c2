/** Opens queues of a device that another thread of this process has, from the plan that was posted. */
import {
  type DmaRegion,
  InterruptHandlers,
  type InterruptSource,
  openQueuePlan,
  PAGE_SIZE,
  PollingInterrupts,
  type PostedMemory,
  type QueueDriverClass,
  type QueuePlan,
  type QueuePlatform,
  type RegisterWindow,
  type ThreadDriver,
  VirtioError,
} from '@virtio/core';
import { BLOCK_SIZE, type DmaBlock, type DmaSource } from './dma-memory.ts';
import { disposeAtExit } from './exit-cleanup.ts';
import { EventPoller } from './event-poller.ts';
import { LinuxHal } from './hal.ts';
import { Mapping } from './mapping.ts';
import { closeDescriptor, signalEventfd, viewMemory } from './syscalls.ts';
import { attachMemory } from './worker-memory.ts';

/** The memory of a plan, as blocks. It stays mapped: the device may still have some of it when the thread ends. */
class PlanMemory implements DmaSource {
  readonly name: string;
  readonly #memory: PostedMemory;
  readonly #free: number[] = [];

  constructor(name: string, memory: PostedMemory) {
    this.name = name;
    this.#memory = memory;
    for (let at = memory.length - BLOCK_SIZE; at >= 0; at -= BLOCK_SIZE) this.#free.push(at);
  }

  map(size: number): DmaBlock {
    const at = size === BLOCK_SIZE ? this.#free.pop() : undefined;
    if (at === undefined) {
      throw new VirtioError(
        'DMA_ERROR',
        `${this.name}: ${size} bytes of memory were asked for, and the ${this.#memory.length} bytes of this thread are in use, or only free in ` +
          `pieces of ${BLOCK_SIZE}; give queueFor, or pairFor, a larger { memory }`,
      );
    }
    const { pointer, address } = this.#memory;
    const mapping = new Mapping(pointer + at, size);
    // Another thread may have had it before.
    new Uint8Array(mapping.view()).fill(0);
    return { mapping, address: address + at };
  }

  unmap({ address, mapping }: DmaBlock): void {
    // Its views are detached, and the memory stays.
    mapping.abandon();
    this.#free.push(address - this.#memory.address);
  }

  [Symbol.dispose](): void {
    this.#free.length = 0;
  }
}

/** The memory of a thread. */
class ThreadHal extends LinuxHal {
  readonly #name: string;

  constructor(source: PlanMemory) {
    super(source);
    this.#name = source.name;
  }

  mapRegisters(address: number, size: number): RegisterWindow {
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#name}: ${size} bytes of registers at 0x${address.toString(16)} were to be mapped; only the thread that opened the device can do that`,
    );
  }

  protected checkAccess(): void {
    // The thread that has the device has checked it.
  }
}

/** Interrupts of queues by descriptors, one each. */
class QueueInterrupts extends InterruptHandlers {
  readonly #poller = new EventPoller();

  constructor(descriptors: readonly number[]) {
    super();
    try {
      descriptors.forEach((descriptor, queue) => {
        this.#poller.watch(descriptor, () => this.queueHandlers.get(queue)?.());
      });
    } catch (error) {
      this.close();
      throw error;
    }
  }

  hold(): void {
    this.#poller.hold();
  }

  release(): void {
    this.#poller.release();
  }

  override defer(callback: () => void): void {
    setImmediate(callback);
  }

  close(): void {
    this.#poller[Symbol.dispose]();
  }
}

type Notify = (next: number) => void;

/** The platform of a thread that drives the queues of a plan. */
class LinuxThread implements QueuePlatform {
  readonly hal: ThreadHal;
  readonly interrupts: InterruptSource | undefined;
  readonly #descriptors: number[] = [];
  readonly #notify: readonly Notify[];
  readonly #lines: QueueInterrupts | undefined;
  #closed = false;
  /** Cancels the disposal of the driver at the end of the thread. */
  forget: (() => void) | undefined;

  constructor(plan: QueuePlan, polling: boolean) {
    this.hal = new ThreadHal(new PlanMemory(plan.name, plan.memory));
    const interrupts = plan.queues.flatMap(({ interrupt }) => (interrupt === undefined ? [] : [interrupt]));
    this.#descriptors.push(...interrupts);
    this.#notify = plan.queues.map(({ doorbell }) => {
      if (doorbell.kind === 'descriptor') {
        this.#descriptors.push(doorbell.descriptor);
        return () => {
          signalEventfd(doorbell.descriptor);
        };
      }
      const { memory, value, data } = doorbell;
      const register = viewMemory(memory.pointer, memory.length);
      const word = memory.length === 4 ? new Uint32Array(register) : new Uint16Array(register);
      return (next) => {
        word[0] = data ? (next << 16) | value : value;
      };
    });
    if (interrupts.length === plan.queues.length && !polling) {
      try {
        this.#lines = new QueueInterrupts(interrupts);
      } catch (error) {
        this.close(false);
        throw error;
      }
    }
    this.interrupts =
      this.#lines ?? new PollingInterrupts({ schedule: (callback) => setImmediate(callback) });
  }

  attach(memory: PostedMemory): DmaRegion {
    return { bytes: attachMemory(memory), address: memory.address, pages: memory.length / PAGE_SIZE };
  }

  notify(queue: number, next: number): void {
    if (!this.#closed) this.#notify[queue]?.(next);
  }

  close(opened: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    this.forget?.();
    this.#lines?.close();
    this.hal[Symbol.dispose]();
    if (opened) for (const descriptor of this.#descriptors) closeDescriptor(descriptor);
  }
}

/** Options of {@link openQueue}, in addition to those of the driver. */
export interface OpenQueueOptions {
  /**
   * How the thread learns of used buffers (default: by the device's interrupts, if they have a descriptor). `polling` checks the
   * rings at each turn of the event loop while a caller waits, which keeps a processor busy; a thread that polls can be
   * terminated at any time.
   */
  readonly interrupts?: 'polling';
}

/**
 * Opens queues that the driver of another thread of this process has lent: makes a driver of the same class, with all its
 * methods, for these queues alone.
 *
 * Requests end with `DEVICE_RESET` when the other thread resets the device, and the driver works again by itself; if its driver
 * fails, they end with the same error, such as `DEVICE_REMOVED`. The event `failure` reports both. `reset()` throws `UNSUPPORTED`
 * here.
 *
 * Dispose the driver before the driver that has the device. It is disposed automatically when the thread ends by itself, by
 * `process.exit` or by an error, but not by `worker.terminate()`: after that, call the other thread's driver to take back what
 * the thread had, including its descriptors (`reclaimQueue` of `VirtioBlk`). Do not terminate a thread that waits for interrupts:
 * if one comes at that moment, the whole process crashes, as koffi's poll calls into a thread that no longer exists. One that
 * polls (`interrupts: 'polling'`) can be terminated at any time.
 *
 * @param driver its class: `VirtioBlk`, `VirtioNet`
 * @param plan the result of `queueFor`, or `pairFor`, of the other thread's driver, as it was posted
 * @param options options of the driver; the plan sets those that must be the same as for the other thread's driver
 * @throws {@link VirtioError} `ALREADY_USED` if the plan was opened before, or its device is closed; `DMA_ERROR`
 *
 * @example
 * ```ts
 * import { workerData } from 'node:worker_threads';
 * import { VirtioBlk } from '@virtio/blk';
 * import type { QueuePlan } from '@virtio/core';
 * import { openQueue } from '@virtio/linux';
 *
 * // The other thread: new Worker('./worker.js', { workerData: blk.queueFor(1) })
 * using blk = openQueue(VirtioBlk, workerData as QueuePlan);
 * await blk.read(0, new Uint8Array(512));
 * ```
 */
export function openQueue<D extends ThreadDriver, O extends object>(
  driver: QueueDriverClass<D, O>,
  plan: QueuePlan,
  options?: OpenQueueOptions & NoInfer<O>,
): D & { readonly hal: LinuxHal } {
  const thread = new LinuxThread(plan, options?.interrupts === 'polling');
  const opened = openQueuePlan(driver, plan, thread, options);
  thread.forget = disposeAtExit(opened);
  return opened as D & { readonly hal: LinuxHal };
}
