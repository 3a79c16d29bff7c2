/**
 * Publishes what was submitted to a queue and notifies the device: now, or once for all that is submitted in one turn of the
 * event loop.
 */
import type { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

/** Publishes and notifies. */
export class Announcer {
  readonly #queue: VirtQueue;
  readonly #report: (error: VirtioError) => void;
  #scheduled = false;

  constructor(queue: VirtQueue, report: (error: VirtioError) => void) {
    this.#queue = queue;
    this.#report = report;
  }

  /** Makes all that was submitted available to the device, and notifies it if it wants that. */
  kick(): void {
    this.#queue.publish();
    this.#queue.kick();
  }

  /** Calls {@link Announcer.kick} when the current turn of the event loop ends. */
  kickSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    void Promise.resolve().then(this.#now);
  }

  readonly #now = (): void => {
    this.#scheduled = false;
    if (this.#queue.failure !== undefined) return;
    try {
      this.kick();
    } catch (error) {
      this.#report(error as VirtioError);
    }
  };
}
