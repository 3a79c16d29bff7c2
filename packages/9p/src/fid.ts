/**
 * Fids: the numbers by which the client names files to the server. A number is used again only when the server has said
 * that it has forgotten the fid; if what it said made no sense, the number is retired.
 */
import { FileError as P9Error, refuse } from '@virtio/files';
import { VirtioError } from '@virtio/core';
import type { Message, Qid } from './protocol.ts';

/** Of a fid that stands for no file, or for one of which nothing is known yet. */
export const NO_QID: Qid = { type: 0, version: 0, path: 0n };

/** A fid: a file or a directory of the server's under a number that the client chose. `clunk` ends it. */
export interface P9Fid {
  /** The number. */
  readonly id: number;
  /** Identifies the file. Changes when `create` turns a directory's fid into that of the new file. */
  qid: Qid;
  /** The most bytes of one read or write, as the server told at `open` or `create`; 0 if it did not. */
  iounit: number;
  /** Whether it was not clunked yet. */
  live: boolean;
  /** The number of the session that it belongs to. */
  readonly session: number;
}

/** The fids of one client, and the numbers that are free for new ones. */
export class FidTable {
  readonly #free: number[] = [];
  /** The first number of the session. Those of earlier sessions are not used again: their clunks may still be answered. */
  #first = 0;
  #next = 0;
  #session = 0;

  /** Counts sessions: fids of an earlier one are stale. */
  get session(): number {
    return this.#session;
  }

  /** How many numbers the server knows, or may know. */
  get used(): number {
    return this.#next - this.#first - this.#free.length;
  }

  /** A number that the server does not use. */
  take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const id = this.#next;
    this.#next += 1;
    return id;
  }

  /** The server has forgotten the fid, or never knew it. For a fid of an earlier session, this does nothing. */
  release(id: number): void {
    if (id >= this.#first) this.#free.push(id);
  }

  /** Releases a number that a request would have made a fid, if its error tells that the server has not made one. */
  releaseUnmade(id: number, error: unknown): void {
    // It refused, or was told to forget the request, or was never asked.
    const unmade =
      P9Error.is(error) ||
      VirtioError.is(error, 'ABORTED') ||
      VirtioError.is(error, 'QUEUE_FULL') ||
      VirtioError.is(error, 'INVALID_PARAM');
    if (unmade) this.release(id);
  }

  /** The fid that the server now knows by a number. */
  create(id: number, qid: Qid): P9Fid {
    return { id, qid, iounit: 0, live: true, session: this.#session };
  }

  /**
   * Checks that a fid can be used.
   *
   * @throws {@link P9Error} `EBADF`, `ESTALE`
   */
  check(fid: P9Fid, message: Message): void {
    if (!fid.live) throw refuse('EBADF', message.name);
    if (fid.session !== this.#session) throw refuse('ESTALE', message.name);
  }

  /** A session begins or ends: its fids mean nothing to the server any more. */
  restart(): void {
    this.#free.length = 0;
    this.#first = this.#next;
    this.#session += 1;
  }
}
