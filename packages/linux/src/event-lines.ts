/**
 * Interrupts of a PCI device that reach a process through descriptors, as with VFIO and UIO. They are waited for on Node's event
 * loop, which is kept alive while a caller waits.
 */
import { InterruptLines } from '@virtio/pci';
import { EventPoller } from './event-poller.ts';
import { closeDescriptor, duplicate } from './syscalls.ts';

/** Interrupt lines that descriptors signal. */
export class EventLines extends InterruptLines implements Disposable {
  readonly #poller = new EventPoller();
  readonly #closers: (() => void)[] = [];
  readonly #lines = new Map<number, number>();
  #disposed = false;

  /** Keeps the event loop alive until {@link EventLines.release} has been called as many times. */
  override hold(): void {
    super.hold();
    this.#poller.hold();
  }

  /** Ends one {@link EventLines.hold}. */
  override release(): void {
    super.release();
    this.#poller.release();
  }

  /** Whether the descriptors are closed. */
  protected get disposed(): boolean {
    return this.#disposed;
  }

  /**
   * Calls `handler` each time the descriptor was signalled. At the end the descriptor is closed by `close`, which must be that of
   * `node:fs` for a descriptor that `node:fs` opened.
   */
  protected watch(descriptor: number, handler: () => void, close = closeDescriptor): void {
    this.#closers.push(() => {
      close(descriptor);
    });
    this.#poller.watch(descriptor, handler);
  }

  /** Records which descriptor signals a line, so that another thread can wait for it. */
  protected describeLine(line: number, descriptor: number): void {
    this.#lines.set(line, descriptor);
  }

  override lendLine(line: number, alone: boolean): number | undefined {
    const descriptor = this.#lines.get(line);
    if (descriptor === undefined || this.#disposed) return undefined;
    if (alone) this.#poller.unwatch(descriptor);
    return duplicate(descriptor);
  }

  override closeLent(descriptor: number): void {
    closeDescriptor(descriptor);
  }

  /** Closes the descriptors. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#poller[Symbol.dispose]();
    for (const close of this.#closers) close();
  }
}
