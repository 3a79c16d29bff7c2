/** What a driver gives a `RequestQueue` for its requests: how they are built, how their answers are checked, and how results are made. */
import type { WaitOptions } from './wait.ts';

/** How the answers to requests are checked, and how their results are made. */
export interface RequestHandler<R> {
  /**
   * Checks an answer while the request's buffers are still shared.
   *
   * @param usedLength how many bytes the device says it has written; never more than it was offered
   * @throws VirtioError if the answer is bad: what the device wrote to shared buffers is then not copied to the caller's
   */
  judge?(slot: number, usedLength: number): void;
  /** Makes the result of a good answer. The buffers belong to the caller again. */
  result(slot: number, usedLength: number): R;
}

/** A request that a function builds: for commands where a few allocations do not matter. */
export interface Request<R> extends RequestHandler<R> {
  /** How many descriptors it takes. */
  readonly buffers: number;
  /**
   * Builds the chain: pushes exactly {@link Request.buffers} descriptors, beginning with those that the device reads. Called when
   * there is room, which may be later.
   */
  fill(slot: number): void;
}

/** Options of requests with a promise. */
export interface AnswerOptions extends WaitOptions {
  /**
   * Whether the event loop is kept alive until the answer (default true). `false` is for requests that the driver makes of its own
   * accord, which no caller can abort: a device that never answers would keep the process alive. While nobody else waits, a
   * source that polls in place of interrupts does not poll, and so does not find the answer.
   */
  readonly holds?: boolean | undefined;
}

/** Options of non-blocking requests. */
export interface SubmitOptions {
  /** `false` to make the request available to the device only at `kick()`, so that it is notified once of several requests. */
  readonly kick?: boolean;
}
