/**
 * Who waits for a queue wants its interrupts and keeps the event loop alive; when nobody waits, neither. One object a queue,
 * told after each look whether a caller still waits.
 */
import type { Lookout } from '../device/interrupts.ts';
import type { Transport } from '../device/transport.ts';
import type { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

/** How often in a row a queue that was emptied may turn out to have more before other work of the event loop gets a turn. */
const EAGER = 16;

/** What an {@link Interest} needs of its queue. */
export interface InterestOptions {
  /** Looks what the device has used. Called at each interrupt, and soon after one may have been missed. */
  readonly onUsed: () => void;
  /** The device has lied. */
  readonly report: (error: VirtioError) => void;
  /** Whether interrupts are wanted even while nobody waits; they then keep no event loop alive. */
  readonly always?: boolean | undefined;
}

/** Asks for a queue's interrupts while a caller waits. */
export class Interest {
  readonly #transport: Transport;
  readonly #queue: VirtQueue;
  readonly #options: InterestOptions;
  /** Of a source that looks by itself: interrupts are asked for when it rests. */
  readonly #lookout: Lookout | undefined;
  #holding = false;
  /** Whether the device is asked to interrupt. */
  #armed = false;
  #scheduled = false;
  #eager = 0;

  constructor(transport: Transport, queue: VirtQueue, options: InterestOptions) {
    this.#transport = transport;
    this.#queue = queue;
    this.#options = options;
    this.#lookout = transport.interrupts?.lookout;
    transport.interrupts?.onQueue(queue.index, options.onUsed);
    this.#lookout?.onRest(queue.index, this.#rest);
  }

  /** A caller begins to wait. */
  begin(): void {
    if (this.#holding) return;
    this.#holding = true;
    this.#transport.interrupts?.hold();
    this.#arm();
  }

  /** After a look at the queue, or when a wait has ended: asks for the next interrupt if a caller still waits. */
  update(waiting: boolean): void {
    this.#lookout?.brought();
    const works = this.#queue.failure === undefined;
    if (waiting && works) {
      if (this.#holding) this.#arm();
      else this.begin();
      return;
    }
    if (this.#holding) {
      this.#holding = false;
      this.#transport.interrupts?.release();
      if (works && this.#options.always !== true) this.#disarm();
    }
    if (works && this.#options.always === true) this.#arm();
  }

  /** What was used before interrupts were asked for may not be announced, so it is looked for soon. */
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

  /** The source no longer looks. */
  readonly #rest = (): void => {
    if (this.#queue.failure === undefined && (this.#holding || this.#options.always === true)) this.#arm();
  };

  readonly #again = (): void => {
    this.#scheduled = false;
    if (this.#queue.failure === undefined) this.#options.onUsed();
  };
}
