/** What a driver does with each of its queues, whatever its kind, in the order in which it happens. */
import type { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

/** A queue of a driver: for requests, for receiving or for sending. */
export interface DriverQueue extends Disposable {
  /** The ring. */
  readonly queue: VirtQueue;
  /** Takes the buffers that the device has used. */
  drain(): void;
  /**
   * Calls a listener when there is something for callers that poll; uses interrupts.
   *
   * @returns a function that removes it
   */
  listen(listener: () => void): () => void;
  /** The device no longer works: ends all waits. */
  fail(error: VirtioError): void;
  /** This queue alone is about to be reset: ends the waits for what is lost with it. */
  lose(error: VirtioError): void;
  /** The device was reset and no longer has any buffers. {@link DriverQueue.fail} is called first if the device did not fail. */
  forget(error: VirtioError): void;
  /** The ring is empty and was given to the device again. */
  restart(): void;
  /** The device is live. */
  start(): void;
  /** The configuration of the device has changed. */
  configChanged?(): void;
}
