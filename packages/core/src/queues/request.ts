/** What a driver says of its requests to a `RequestQueue`: how they are built, how their answers are judged, what becomes of them. */

/** How the answers to requests are judged, and what becomes of them. */
export interface RequestHandler<R> {
  /**
   * Judges an answer while the request's buffers are still shared.
   *
   * @param usedLength the bytes that the device says it has written; never more than it was offered
   * @throws VirtioError if the answer is bad: what the device wrote to shared buffers is then not copied to the caller's
   */
  judge?(slot: number, usedLength: number): void;
  /** Makes the result of a good answer. The buffers are the caller's again. */
  result(slot: number, usedLength: number): R;
}

/** A request that is built by a function: for commands where a few allocations do not matter. */
export interface Request<R> extends RequestHandler<R> {
  /** How many descriptors it takes. */
  readonly buffers: number;
  /**
   * Builds the chain: pushes exactly {@link Request.buffers} descriptors, those that the device reads first. Called when there
   * is room, which may be later.
   */
  fill(slot: number): void;
}

/** Options of non-blocking requests. */
export interface SubmitOptions {
  /** `false` to leave the device unaware of the request until `kick()`, so that several are announced at once. */
  readonly kick?: boolean;
}
