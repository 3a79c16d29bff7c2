/** Polling on an event loop whose turns the test controls, as on a platform without interrupts. */
import { type Lookout, PollingInterrupts } from '@virtio/core';
import { FakeInterrupts } from './fake-interrupts.ts';

/**
 * `PollingInterrupts` of `@virtio/core` in place of {@link FakeInterrupts}: the device's interrupts are ignored, and the driver
 * polls at each {@link FakePolling.turn} while a caller waits.
 */
export class FakePolling extends FakeInterrupts {
  readonly #scheduled: (() => void)[] = [];
  #configChanged = false;

  readonly #polling = new PollingInterrupts({
    schedule: (callback) => {
      this.#scheduled.push(callback);
    },
    configChanged: () => {
      const changed = this.#configChanged;
      this.#configChanged = false;
      return changed;
    },
  });

  /** As the source polls, the device is never asked to interrupt. */
  get lookout(): Lookout {
    return this.#polling.lookout;
  }

  /** Whether the event loop has something to do, and so keeps the process alive. */
  get busy(): boolean {
    return this.#scheduled.length > 0;
  }

  /** Runs one turn of the event loop. */
  turn(): void {
    for (const callback of this.#scheduled.splice(0)) callback();
  }

  override onQueue(queue: number, handler: (() => void) | undefined): void {
    this.#polling.onQueue(queue, handler);
  }

  override onConfig(handler: (() => void) | undefined): void {
    this.#polling.onConfig(handler);
  }

  override onRemoval(handler: (() => void) | undefined): void {
    this.#polling.onRemoval(handler);
  }

  override hold(): void {
    super.hold();
    this.#polling.hold();
  }

  override release(): void {
    super.release();
    this.#polling.release();
  }

  override defer(callback: () => void): void {
    this.#polling.defer(callback);
  }

  override fireQueue(): void {
    return;
  }

  override fireConfig(): void {
    this.#configChanged = true;
  }

  override fireRemoval(): void {
    this.#polling.remove();
  }
}
