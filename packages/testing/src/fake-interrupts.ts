/**
 * Interrupts that a test or a device model fires. Like real interrupts, they do not arrive inside the call that caused them but
 * after it has returned (in a microtask), and several of one kind arrive as one.
 */
import { InterruptHandlers } from '@virtio/core';

/** Options of {@link FakeInterrupts}. */
export interface FakeInterruptsOptions {
  /** Whether handlers are called at once instead of in a microtask (default false). */
  readonly synchronous?: boolean;
}

/** An `InterruptSource` for tests. */
export class FakeInterrupts extends InterruptHandlers {
  /** How many callers wait: calls of `hold` minus calls of `release`. */
  holds = 0;
  /** How often a handler was called, for queues, configuration and removal together. */
  delivered = 0;
  /** While true, nothing is delivered; fired interrupts arrive when it is set to false again. */
  #masked = false;

  readonly #synchronous: boolean;
  readonly #pending = new Set<number | 'config' | 'removal'>();
  #scheduled = false;

  constructor({ synchronous = false }: FakeInterruptsOptions = {}) {
    super();
    this.#synchronous = synchronous;
  }

  hold(): void {
    this.holds += 1;
  }

  release(): void {
    this.holds -= 1;
  }

  /** Whether interrupts are masked (held back). */
  get masked(): boolean {
    return this.#masked;
  }

  /** Masks interrupts, or unmasks them and delivers those that were fired meanwhile. */
  set masked(value: boolean) {
    this.#masked = value;
    if (!value && this.#pending.size > 0) this.#schedule();
  }

  /** The queues that have a handler. */
  get queues(): readonly number[] {
    return [...this.queueHandlers.keys()];
  }

  /** Fires the interrupt of a queue. */
  fireQueue(queue: number): void {
    this.#fire(queue);
  }

  /** Fires the configuration interrupt. */
  fireConfig(): void {
    this.#fire('config');
  }

  /** Reports the removal of the device. */
  fireRemoval(): void {
    this.#fire('removal');
  }

  #fire(what: number | 'config' | 'removal'): void {
    this.#pending.add(what);
    if (!this.#masked) this.#schedule();
  }

  #schedule(): void {
    if (this.#synchronous) {
      this.#deliver();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      void Promise.resolve().then(() => {
        this.#deliver();
      });
    }
  }

  #deliver(): void {
    this.#scheduled = false;
    if (this.#masked) return;
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const what of pending) {
      const handler =
        what === 'config'
          ? this.configHandler
          : what === 'removal'
            ? this.removalHandler
            : this.queueHandlers.get(what);
      if (!handler) continue;
      this.delivered += 1;
      handler();
    }
  }
}
