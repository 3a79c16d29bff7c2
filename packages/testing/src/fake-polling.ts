/** An event loop that turns when a test says so, with polling as a platform without interrupts has it. */
import { PollingInterrupts } from '@virtio/core';
import { FakeInterrupts } from './fake-interrupts.ts';

/**
 * `PollingInterrupts` of `@virtio/core` in the place of {@link FakeInterrupts}: the device's interrupts go nowhere, and the
 * driver looks at each {@link FakePolling.turn} for as long as it waits.
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

  /** Whether the event loop has something to do: it keeps a process alive. */
  get busy(): boolean {
    return this.#scheduled.length > 0;
  }

  /** Lets the event loop turn once. */
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
