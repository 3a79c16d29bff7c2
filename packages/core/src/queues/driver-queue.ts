/** What a driver does with each of its queues, whichever kind it is, in the order of their lives. */
import type { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

/** A queue of a driver: for requests, for what the device sends, or for what the driver sends. */
export interface DriverQueue extends Disposable {
  /** The ring. */
  readonly queue: VirtQueue;
  /** Takes what the device has used. */
  drain(): void;
  /**
   * Calls a listener when there is something for those who poll, by interrupts.
   *
   * @returns a function that removes it
   */
  listen(listener: () => void): () => void;
  /** The device no longer works: ends all waits. */
  fail(error: VirtioError): void;
  /** This queue alone is about to be reset: ends the waits for what is lost with it. */
  lose(error: VirtioError): void;
  /** The device was reset and has nothing any more. {@link DriverQueue.fail} comes first if the device did not fail. */
  forget(error: VirtioError): void;
  /** The ring is empty and was given to the device anew. */
  restart(): void;
  /** The device is live. */
  start(): void;
  /** The configuration of the device has changed. */
  configChanged?(): void;
}
