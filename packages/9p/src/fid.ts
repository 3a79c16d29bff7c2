/**
 * Fids: the numbers by which the client names files to the server. A number is used again only when the server has said
 * that it has forgotten the fid; if what it said made no sense, the number is retired.
 */
import type { Qid } from './messages.ts';

/** A file, or a directory, that the server knows by a number. It is used up by `clunk`. */
export interface P9Fid {
  /** The number. */
  readonly id: number;
  /** The file. Changes when `create` turns a directory's fid into that of the new file. */
  qid: Qid;
  /** The most bytes that the server takes or gives at once, after `open` or `create`; 0 if it does not say. */
  iounit: number;
  /** Whether it may be used: not after it was clunked, or the session ended. */
  live: boolean;
  /** The session that it belongs to. */
  readonly session: number;
}

/** Hands out the numbers of fids. */
export class FidNumbers {
  readonly #free: number[] = [];
  #next = 0;

  /** A number that the server does not use. */
  take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const id = this.#next;
    this.#next += 1;
    return id;
  }

  /** The server has forgotten the fid. */
  release(id: number): void {
    this.#free.push(id);
  }

  /** A new session: the server has forgotten all fids. */
  reset(): void {
    this.#free.length = 0;
    this.#next = 0;
  }

  /** How many numbers are in use or retired. */
  get used(): number {
    return this.#next - this.#free.length;
  }
}
