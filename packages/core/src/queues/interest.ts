/**
 * Enables a queue's interrupts while a caller waits for the queue, and keeps the event loop alive if the caller wants that. There
 * is one object for each queue; it is told after each drain whether callers still wait.
 */
import type { Lookout } from '../device/interrupts.ts';
import { NonReentrant } from '../device/non-reentrant.ts';
import type { Transport } from '../device/transport.ts';
import type { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

/** How often in a row a queue that was emptied may turn out to have more before other work of the event loop gets a turn. */
const EAGER = 16;

/** What an {@link Interest} needs of its queue. */
export interface InterestOptions {
  /** Takes what the device has used. Called at each interrupt, and soon after one may have been missed. */
  readonly onUsed: () => void;
  /** The device has lied. */
  readonly report: (error: VirtioError) => void;
  /** Whether interrupts are enabled even while nobody waits; they then do not keep the event loop alive. */
  readonly always?: boolean | undefined;
}

/** Enables a queue's interrupts while a caller waits. */
export class Interest {
  readonly #transport: Transport;
  readonly #queue: VirtQueue;
  readonly #options: InterestOptions;
  /** Takes what the device has used. */
  readonly #take: () => void;
  /** The lookout of a source that polls by itself: interrupts are enabled when it stops. */
  readonly #lookout: Lookout | undefined;
  #holding = false;
  /** Whether a caller waits. */
  #waiting = false;
  /** Whether the device is asked to interrupt. */
  #armed = false;
  #scheduled = false;
  #eager = 0;

  constructor(transport: Transport, queue: VirtQueue, options: InterestOptions) {
    this.#transport = transport;
    this.#queue = queue;
    this.#options = options;
    this.#lookout = transport.interrupts?.lookout;
    this.#take = new NonReentrant(() => {
      if (queue.failure === undefined) options.onUsed();
    }, transport.interrupts).call;
    transport.interrupts?.onQueue(queue.index, this.#take);
    this.#lookout?.onRest(queue.index, this.#rest);
  }

  /** A caller begins to wait; `holds` is whether it keeps the event loop alive. */
  begin(holds = true): void {
    if (holds ? this.#holding : this.#waiting) return;
    this.#waiting = true;
    if (holds) {
      this.#holding = true;
      this.#transport.interrupts?.hold();
    }
    this.#arm();
  }

  /** The queue was drained, and the device had used something. */
  brought(): void {
    this.#lookout?.brought();
  }

  /**
   * After the queue was drained, or when a wait has ended: enables the next interrupt if a caller still waits.
   *
   * @param holds whether a caller still waits that keeps the event loop alive
   * @param waits whether any caller still waits
   */
  update(holds: boolean, waits = holds): void {
    const works = this.#queue.failure === undefined;
    if (holds && works) {
      if (this.#holding) this.#arm();
      else this.begin();
      return;
    }
    if (this.#holding) {
      this.#holding = false;
      this.#transport.interrupts?.release();
    }
    const waited = this.#waiting;
    this.#waiting = waits && works;
    if (!works) return;
    if (waits || this.#options.always === true) this.#arm();
    else if (waited) this.#disarm();
  }

  /** There may be no interrupt for what was used before interrupts were enabled, so the queue is drained soon. */
  #arm(): void {
    const { interrupts } = this.#transport;
    if (interrupts === undefined) return;
    let more: boolean;
    try {
      if (this.#lookout?.looking === true) {
        if (this.#armed) this.#disarm();
        return;
      }
      this.#armed = true;
      more = this.#queue.enableInterrupts();
    } catch (error) {
      this.#options.report(error as VirtioError);
      return;
    }
    if (!more) {
      this.#eager = 0;
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      this.#eager += 1;
      // A device that is never done must not keep timers and other devices from their turn.
      if (this.#eager > EAGER) interrupts.defer(this.#again);
      else void Promise.resolve().then(this.#again);
    }
  }

  #disarm(): void {
    this.#armed = false;
    this.#queue.disableInterrupts();
  }

  /** The source stopped polling. */
  readonly #rest = (): void => {
    if (this.#queue.failure === undefined && (this.#waiting || this.#options.always === true)) this.#arm();
  };

  readonly #again = (): void => {
    this.#scheduled = false;
    this.#take();
  };
}
