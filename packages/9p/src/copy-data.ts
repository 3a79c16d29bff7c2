/**
 * Copies the contents of a file: many pieces at once, each of which is read and then written, so that the server reads and
 * writes at the same time.
 */
import { isDirectory, type P9Client, WINDOW } from './client.ts';
import type { P9Fid } from './fid.ts';
import { R, T } from './messages.ts';
import { refuse } from './p9-error.ts';
import { CHECK, ROOM, type Task } from './task.ts';

/** How much is asked for behind the end that the file is said to have. */
const PROBE = 8168;

/** A part of the file, on its way from one file to the other. */
interface Piece {
  readonly buffer: Uint8Array<ArrayBuffer>;
  /** Where in the files it begins. What was copied of it already is cut off. */
  position: number;
  /** How many bytes are still to be copied. */
  length: number;
  /** How many bytes of the buffer are to be written, 0 while it is read, and where they begin. */
  filled: number;
  start: number;
  /** The request in flight, or -1 if there was no tag for it. */
  tag: number;
}

/** What was copied. */
export interface Copied {
  /** Where the source ended. */
  readonly end: number;
  /** Where the copy ends: behind `end` if the source was longer a moment before. */
  readonly written: number;
}

/**
 * Copies from one open file to another, from the beginning.
 *
 * @param size how many bytes the source is said to have
 */
export function* copyData(client: P9Client, from: P9Fid, to: P9Fid, size: number): Task<Copied> {
  if (isDirectory(from.qid)) throw refuse('EISDIR', T.read.name);
  const copier = new Copier(client, from, to, size);
  try {
    yield* copier.run();
  } finally {
    yield* copier.abandon();
  }
  return { end: copier.end, written: copier.written };
}

class Copier {
  end = Infinity;
  written = 0;

  readonly #client: P9Client;
  readonly #from: P9Fid;
  readonly #to: P9Fid;
  readonly #size: number;
  readonly #chunk: number;
  readonly #going: Piece[] = [];
  /** Buffers of pieces that are copied. */
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  #next = 0;

  constructor(client: P9Client, from: P9Fid, to: P9Fid, size: number) {
    this.#client = client;
    this.#from = from;
    this.#to = to;
    this.#size = size;
    this.#chunk = Math.min(client.chunkSize(from), client.chunkSize(to));
  }

  *run(): Task<void> {
    const going = this.#going;
    for (;;) {
      yield CHECK;
      while (going.length < WINDOW) {
        const piece = this.#nextPiece();
        if (piece === undefined) break;
        going.push(piece);
        this.#trySend(piece);
      }
      const [piece] = going;
      if (piece === undefined) return;
      if (piece.tag >= 0) {
        const goesOn = yield* this.#receive(piece);
        if (!goesOn) {
          going.shift();
          this.#buffers.push(piece.buffer);
          continue;
        }
      }
      this.#trySend(piece);
      // Whoever has requests in flight must not wait for a tag: others may be waiting for one of its own.
      if (going.every(({ tag }) => tag < 0)) yield ROOM;
      going.push(going.shift() as Piece);
    }
  }

  /** Waits for what is in flight when copying ends early. */
  *abandon(): Task<void> {
    for (const { tag } of this.#going) if (tag >= 0) yield* this.#client.discard(tag);
  }

  /** The next part of the file. Behind its end, one at a time looks whether there is more. */
  #nextPiece(): Piece | undefined {
    const position = this.#next;
    const known = this.#size - position;
    if (position >= this.end || (known <= 0 && this.#going.some((other) => other.position >= this.#size))) {
      return undefined;
    }
    const length = Math.min(this.#chunk, known > 0 ? known : Math.max(PROBE, -known));
    this.#next += length;
    let buffer = this.#buffers.pop();
    if (buffer === undefined || buffer.length < length) buffer = new Uint8Array(length);
    return { buffer, position, length, filled: 0, start: 0, tag: -1 };
  }

  #trySend(piece: Piece): void {
    const { position, buffer, length, filled, start } = piece;
    const client = this.#client;
    // Without requests of its own that will give memory back, the lack of it is an error.
    const send = this.#going.some(({ tag }) => tag >= 0) ? 'trySendMore' : 'trySend';
    if (filled > 0) {
      const data = buffer.subarray(start, start + filled);
      piece.tag = client[send](T.write, { fid: this.#to.id, offset: position, count: filled }, { data });
    } else {
      const room = buffer.subarray(0, length);
      piece.tag = client[send](T.read, { fid: this.#from.id, offset: position, count: length }, { room });
    }
  }

  /** Handles the answer to a piece's request. @returns whether there is more to do for it */
  *#receive(piece: Piece): Task<boolean> {
    const { tag } = piece;
    piece.tag = -1;
    if (piece.filled === 0) {
      const { count } = yield* this.#client.receive(tag, R.read);
      piece.filled = count;
      piece.start = 0;
      if (count > 0) return true;
      this.end = Math.min(this.end, piece.position);
      return false;
    }
    const count = yield* this.#client.receiveWrite(tag, piece.filled);
    piece.position += count;
    piece.length -= count;
    piece.start += count;
    piece.filled -= count;
    this.written = Math.max(this.written, piece.position);
    return piece.length > 0;
  }
}
