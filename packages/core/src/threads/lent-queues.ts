/**
 * Queues of a device that another thread drives, on the side of the thread that has the device: it resets them with the device,
 * passes the state of the device on to the other thread, and is notified when that thread finds that the device misbehaves.
 *
 * There are two sets of memory for the rings. At a reset the device gets the one that the other thread does not use, because that
 * thread goes on writing to its own until it notices the reset.
 */
import { requireInteger } from '../check.ts';
import type { Transport } from '../device/transport.ts';
import { VirtioError } from '../errors.ts';
import { type DmaRegion, type Hal, PAGE_SIZE } from '../memory/hal.ts';
import type { FieldTable, Layout } from '../memory/layout.ts';
import type { DriverQueue } from '../queues/driver-queue.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import { ControlBlock } from './control-block.ts';
import type {
  Doorbell,
  PlannedQueue,
  PostedMemory,
  PostingHal,
  QueuePlan,
  QueueSignals,
} from './queue-plan.ts';

/** The default size of the memory for buffers of the other thread. */
const MEMORY = 4 * 1024 * 1024;
const MOST_MEMORY = 2 ** 40;

/** What {@link LentQueues} need of their driver. */
export interface LentParts {
  /** The structure of the configuration space, of which the other thread gets a copy. */
  readonly config: Layout<FieldTable>;
  /** Options that the driver of the other thread must have, apart from the queue size. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly queues: readonly VirtQueue[];
  readonly transport: Transport;
  readonly hal: Hal;
  /** The features that the other thread's driver negotiates. */
  readonly features: () => bigint;
  readonly report: (error: VirtioError) => void;
}

/** Options of a {@link QueuePlan}. */
export interface QueuePlanOptions {
  /**
   * Bytes of memory for the other thread's buffers, 4096 or more: for copies of buffers, and for those that it allocates. The
   * default is the size of the plan before, or 4 MiB.
   */
  readonly memory?: number;
}

type RingSets = readonly [readonly DmaRegion[], readonly DmaRegion[]];

/** Queues that are lent to another thread together. */
export class LentQueues implements DriverQueue {
  readonly queue: VirtQueue;
  readonly #parts: LentParts;
  readonly #control: ControlBlock;
  /** The two sets of rings of each queue; the device has the set `#rings`. */
  readonly #sets: readonly RingSets[];
  #rings: 0 | 1 = 0;
  #arena: DmaRegion | undefined;
  /** The signals of the last plan, as long as they may have to be closed here. */
  readonly #signals: QueueSignals[] = [];
  /** Whether a thread was given the queues, and whether no thread has used them since the device was reset. */
  #lent = false;
  #fresh = true;
  #disposed = false;

  constructor(parts: LentParts) {
    const { queues, transport, hal } = parts;
    this.#parts = parts;
    this.queue = queues[0] as VirtQueue;
    this.#control = ControlBlock.create(Math.min(transport.configSize, parts.config.size));
    const made: DmaRegion[] = [];
    try {
      this.#sets = queues.map((queue) => {
        const spare = queue.regions.map(({ pages }) => {
          const region = hal.dmaAlloc(pages, 'both', queue.accessPlatform);
          made.push(region);
          return region;
        });
        return [queue.regions, spare] as const;
      });
    } catch (error) {
      for (const region of made) hal.dmaDealloc(region, this.queue.accessPlatform);
      throw error;
    }
    this.#control.watchReports(() => this.#hear());
  }

  /**
   * Makes the plan with which another thread drives the queues.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if a thread has them, or had them and the device was not reset since; `UNSUPPORTED`
   * if the platform cannot share memory with another thread; `INVALID_PARAM` for less than a page of memory; `DMA_ERROR`
   */
  plan(options: QueuePlanOptions = {}): QueuePlan {
    const { transport, hal } = this.#parts;
    const { memory = this.#arena?.bytes.length ?? MEMORY } = options;
    requireInteger(transport, 'memory', memory, PAGE_SIZE, MOST_MEMORY);
    const control = this.#control;
    if (this.#lent && !control.isClosed) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#who} was lent to another thread; dispose the driver there first`,
      );
    }
    if (!this.#fresh) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#who} was lent to another thread, whose requests the device may still have; reset the device, or the queue`,
      );
    }
    if (!isPosting(hal)) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#who} cannot be lent to another thread: this platform cannot share memory with it`,
      );
    }
    const { bytes } = this.#allocate(Math.ceil(memory / PAGE_SIZE));
    const posted = hal.post(bytes);
    this.#signals.length = 0;
    let queues: readonly PlannedQueue[];
    try {
      queues = this.#parts.queues.map((queue, i) => this.#planned(queue, i, hal));
    } catch (error) {
      this.#closeSignals();
      throw error;
    }
    this.#lent = true;
    this.#fresh = false;
    control.offer();
    return {
      deviceType: transport.deviceType,
      name: transport.name,
      features: this.#parts.features(),
      legacy: transport.requiresLegacyLayout(),
      queues,
      memory: posted,
      // The driver there asks for the largest size, and so gets the size that each queue has.
      options: {
        ...this.#parts.options,
        queueSize: Math.max(...this.#parts.queues.map(({ size }) => size)),
      },
      control: control.buffer,
    };
  }

  /**
   * Takes the queues back from a thread that ended without closing them. If it had opened the plan, its memory is free after the
   * next reset of the device; if not, it is free at once, and the plan can no longer be opened. Its descriptors are closed.
   */
  abandon(): void {
    if (!this.#lent) return;
    const thread = this.#control.withdraw();
    // A thread that closed the queues has closed its descriptors itself.
    if (thread === 'closed') return;
    this.#closeSignals();
    if (thread === 'open') this.#control.close();
    else this.#fresh = true;
  }

  /** Used buffers belong to the other thread; only its reports are checked. */
  drain(): void {
    this.#hear();
  }

  listen(): () => void {
    return () => undefined;
  }

  fail(error: VirtioError): void {
    this.#failAll(error);
    this.#control.tell(error.code === 'DEVICE_RESET' ? 'down' : error);
  }

  lose(error: VirtioError): void {
    if (this.#parts.queues.length > 1) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#who} cannot be reset alone, as a thread drives it with others; reset the device`,
      );
    }
    this.fail(error);
  }

  forget(error: VirtioError): void {
    if (error.code === 'DISPOSED') return;
    this.#control.tell('down');
    this.#rings = this.#control.nextRings();
    this.#parts.queues.forEach((queue, i) => {
      queue.move((this.#sets[i] as RingSets)[this.#rings]);
    });
  }

  restart(): void {
    if (!this.#lent || this.#control.isClosed) this.#fresh = true;
    this.#copyConfig();
  }

  start(): void {
    this.#copyConfig();
    this.#control.tell('live');
  }

  /** Copies the configuration space again after a change. */
  configChanged(): void {
    this.#copyConfig();
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const { queues, hal } = this.#parts;
    // A thread that has opened them may not know yet, and go on writing.
    const thread = this.#control.withdraw();
    const used = thread === 'open';
    if (thread === 'unopened') this.#closeSignals();
    queues.forEach((queue, i) => {
      const set = this.#sets[i] as RingSets;
      if (used) queue.leaveMemory();
      else for (const region of set[this.#rings === 0 ? 1 : 0]) hal.dmaDealloc(region, queue.accessPlatform);
    });
    if (!used && this.#arena !== undefined) hal.dmaDealloc(this.#arena, this.queue.accessPlatform);
    this.#control.stopWatching();
  }

  get #who(): string {
    return `${this.#parts.transport.who()}: queue ${this.queue.index}`;
  }

  /** The memory for buffers, which no thread has at this time; that of the last plan if the size is the same. */
  #allocate(pages: number): DmaRegion {
    const { hal } = this.#parts;
    const { accessPlatform } = this.queue;
    if (this.#arena !== undefined && this.#arena.pages !== pages) {
      hal.dmaDealloc(this.#arena, accessPlatform);
      this.#arena = undefined;
    }
    this.#arena ??= hal.dmaAlloc(pages, 'both', accessPlatform);
    return this.#arena;
  }

  #planned(queue: VirtQueue, i: number, hal: PostingHal): PlannedQueue {
    const post = (regions: readonly DmaRegion[]): PostedMemory[] =>
      regions.map(({ bytes }) => hal.post(bytes));
    const [first, second] = this.#sets[i] as RingSets;
    const signals = this.#parts.transport.lendQueue(queue.index);
    this.#signals.push(signals);
    const { doorbell, interrupt } = signals;
    return {
      index: queue.index,
      size: queue.size,
      rings: [post(first), post(second)],
      doorbell: doorbell.kind === 'descriptor' ? doorbell : posted(doorbell, hal),
      interrupt,
    };
  }

  #closeSignals(): void {
    for (const { close } of this.#signals.splice(0)) close?.();
  }

  #failAll(error: VirtioError): void {
    for (const queue of this.#parts.queues) queue.fail(error);
  }

  /** Handles reports of the other thread. Returns whether to go on. */
  #hear(): boolean {
    if (this.#disposed) return false;
    if (this.#control.takeLie()) {
      this.#parts.report(
        this.#parts.transport.fail(
          new VirtioError(
            'DEVICE_MISBEHAVED',
            `${this.#who}: the thread that drives it found that the device misbehaves. ` +
              'It is no longer trusted: reset or dispose its driver',
          ),
        ),
      );
    }
    return true;
  }

  /** Copies the configuration space, each field at its width. */
  #copyConfig(): void {
    const { transport, config } = this.#parts;
    const fields = Object.values(config.fields).filter(
      ({ offset, size, access }) => access !== 'write-only' && offset + size <= this.#control.configSize,
    );
    const read = (): Uint8Array => {
      const bytes = new Uint8Array(this.#control.configSize);
      const view = new DataView(bytes.buffer);
      for (const { type, offset, size } of fields) {
        const step = type.startsWith('bytes') ? 1 : Math.min(size, 4);
        for (let at = offset; at < offset + size; at += step) {
          const value = transport.readConfig(at, step as 1 | 2 | 4);
          if (step === 1) view.setUint8(at, value);
          else if (step === 2) view.setUint16(at, value, true);
          else view.setUint32(at, value, true);
        }
      }
      return bytes;
    };
    this.#control.writeConfig(transport.readConsistent(read));
  }
}

function posted(
  {
    register,
    value,
    data,
  }: { readonly register: Uint8Array; readonly value: number; readonly data: boolean },
  hal: PostingHal,
): Doorbell {
  return { kind: 'register', memory: hal.post(register), value, data };
}

function isPosting(hal: Hal): hal is PostingHal {
  return typeof (hal as Partial<PostingHal>).post === 'function';
}

/** The second and later ones of queues that are lent together; the first one acts for all. */
export class LentMember implements DriverQueue {
  readonly queue: VirtQueue;

  constructor(queue: VirtQueue) {
    this.queue = queue;
  }

  drain(): void {
    return;
  }

  listen(): () => void {
    return () => undefined;
  }

  fail(): void {
    return;
  }

  lose(): void {
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.queue.transport.who()}: queue ${this.queue.index} cannot be reset alone, as a thread drives it with others; reset the device`,
    );
  }

  forget(): void {
    return;
  }

  restart(): void {
    return;
  }

  start(): void {
    return;
  }

  [Symbol.dispose](): void {
    return;
  }
}
