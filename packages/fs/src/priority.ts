/** Messages without a reply, for the hiprio queue. They wait in line while there is no room. */
import { VirtioError } from '@virtio/core';
import type { VirtioFs } from './virtio-fs.ts';

/** The line of messages for the hiprio queue. */
export class PriorityLine {
  readonly #device: VirtioFs;
  readonly #line: Uint8Array[] = [];

  constructor(device: VirtioFs) {
    this.#device = device;
  }

  /** Sends a message, after those that wait. */
  send(message: Uint8Array): void {
    this.#line.push(message);
    this.retry();
  }

  /** Sends the messages that wait, as far as there is room and memory. */
  retry(): void {
    while (this.#line.length > 0 && this.#trySend(this.#line[0] as Uint8Array)) this.#line.shift();
  }

  /** The session ends: drops the messages that wait. */
  clear(): void {
    this.#line.length = 0;
  }

  #trySend(message: Uint8Array): boolean {
    try {
      return this.#device.sendPriority(message);
    } catch (error) {
      // Memory may be short, or the device may have failed; the next request reports that.
      if (!VirtioError.is(error)) throw error;
      return false;
    }
  }
}
