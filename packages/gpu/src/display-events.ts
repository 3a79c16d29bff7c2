/**
 * Events about displays. The device only says that they have changed, so the driver asks for all of them, and tells the answer. Another
 * event in the meantime makes an answer old; one that comes with every answer does not keep the driver from telling.
 */
import { type Transport, VirtioError } from '@virtio/core';
import type { Display } from './display-commands.ts';
import { GpuConfig, GpuEvent } from './protocol.ts';

/** How long the request for changed displays may spin without interrupts, in milliseconds. */
const DISPLAY_MS = 1000;

/** How many answers in a row may be out of date because the displays have changed again, before one is told all the same. */
const MAX_OVERTAKEN = 8;

/** What {@link DisplayEvents} need from the driver. */
export interface DisplayEventsParts {
  readonly transport: Transport;
  readonly ask: () => Promise<readonly Display[]>;
  readonly askSync: (timeoutMs: number) => readonly Display[];
  /** Emits the event. */
  readonly tell: (displays: readonly Display[]) => void;
  readonly works: () => boolean;
  readonly quirk: (message: string) => void;
}

/** Events about the displays of a device. */
export class DisplayEvents {
  readonly #parts: DisplayEventsParts;
  /** Whether a request for changed displays is pending, and whether there has been another event since. */
  #asking = false;
  #askAgain = false;
  /** How many answers in a row were not told. */
  #overtaken = 0;

  constructor(parts: DisplayEventsParts) {
    this.#parts = parts;
  }

  /** Whether there is an event about displays; it is cleared. */
  take(): boolean {
    const { transport } = this.#parts;
    const { fields } = GpuConfig;
    if ((transport.readConfigSpace(fields.eventsRead) & GpuEvent.DISPLAY) === 0) return false;
    transport.writeConfigSpace(fields.eventsClear, GpuEvent.DISPLAY);
    return true;
  }

  /** Asks for the displays, and tells them. */
  ask(): void {
    if (this.#asking) {
      this.#askAgain = true;
      return;
    }
    this.#asking = true;
    this.#askAgain = false;
    if (this.#parts.transport.interrupts !== undefined) {
      this.#parts.ask().then(this.#tell, this.#tellNothing);
      return;
    }
    let displays: readonly Display[];
    try {
      displays = this.#parts.askSync(DISPLAY_MS);
    } catch (error) {
      this.#tellNothing(error);
      return;
    }
    this.#tell(displays);
  }

  readonly #tell = (displays: readonly Display[]): void => {
    this.#asking = false;
    const again = this.#askAgain;
    // An answer from before the latest event may be old.
    if (again && this.#overtaken < MAX_OVERTAKEN) {
      this.#overtaken += 1;
      this.ask();
      return;
    }
    this.#overtaken = 0;
    this.#parts.tell(displays);
    // Unless a listener has reset or disposed the driver.
    if (again && this.#parts.works()) this.ask();
  };

  readonly #tellNothing = (error: unknown): void => {
    this.#asking = false;
    if (!this.#parts.works()) return;
    if (!VirtioError.is(error, 'DEVICE_RESET')) {
      this.#parts.quirk(`reported that its displays have changed, but not how: ${String(error)}`);
    }
    // There has been another event since the question.
    if (this.#askAgain) this.ask();
  };
}
