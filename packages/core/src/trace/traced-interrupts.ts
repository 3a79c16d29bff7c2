/** Interrupts that are reported before their handlers run. */
import type { InterruptSource, Lookout } from '../device/interrupts.ts';
import type { TraceEvent } from './trace-event.ts';

/** Interrupts that are reported before their handlers run. */
export class TracedInterrupts implements InterruptSource {
  readonly #source: InterruptSource;
  readonly #tell: (event: TraceEvent) => void;

  constructor(source: InterruptSource, tell: (event: TraceEvent) => void) {
    this.#source = source;
    this.#tell = tell;
  }

  get lookout(): Lookout | undefined {
    return this.#source.lookout;
  }

  onQueue(queue: number, handler: (() => void) | undefined): void {
    this.#source.onQueue(queue, this.#told(queue, handler));
  }

  onConfig(handler: (() => void) | undefined): void {
    this.#source.onConfig(this.#told(undefined, handler));
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.#source.onRemoval(handler);
  }

  hold(): void {
    this.#source.hold();
  }

  release(): void {
    this.#source.release();
  }

  defer(callback: () => void): void {
    this.#source.defer(callback);
  }

  #told(queue: number | undefined, handler: (() => void) | undefined): (() => void) | undefined {
    if (handler === undefined) return undefined;
    return () => {
      // A poll is not an interrupt.
      if (this.#source.lookout?.looking !== true) this.#tell({ kind: 'interrupt', queue });
      handler();
    };
  }
}
