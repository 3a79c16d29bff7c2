/**
 * Copies the contents of a file: many pieces at once, each of which is read and then written, so that the server reads and
 * writes at the same time.
 */
import { CHECK, type Copied, ROOM, type Task, WINDOW } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { P9Fid } from './fid.ts';
import { R, T } from './protocol.ts';
import { receiveWrite } from './transfer.ts';

/** How many bytes are asked for after the reported end of the file. */
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

export type { Copied };

/** A copy from one open file to another, from the beginning. */
export interface Copy {
  readonly from: P9Fid;
  readonly to: P9Fid;
  /** The reported size of the source in bytes. */
  readonly size: number;
  /** The most bytes of one message. */
  readonly chunk: number;
}

/** Copies the contents of a file. */
export function* copyData(exchange: Exchange, copy: Copy): Task<Copied> {
  const copier = new Copier(exchange, copy);
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

  readonly #exchange: Exchange;
  readonly #copy: Copy;
  readonly #going: Piece[] = [];
  /** Buffers of pieces that are copied. */
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  #next = 0;

  constructor(exchange: Exchange, copy: Copy) {
    this.#exchange = exchange;
    this.#copy = copy;
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
    for (const { tag } of this.#going) if (tag >= 0) yield* this.#exchange.discard(tag);
  }

  /** The next part of the file. Behind its end, one at a time looks whether there is more. */
  #nextPiece(): Piece | undefined {
    const position = this.#next;
    const { size, chunk } = this.#copy;
    const known = size - position;
    if (position >= this.end || (known <= 0 && this.#going.some((other) => other.position >= size))) {
      return undefined;
    }
    const length = Math.min(chunk, known > 0 ? known : Math.max(PROBE, -known));
    this.#next += length;
    let buffer = this.#buffers.pop();
    if (buffer === undefined || buffer.length < length) buffer = new Uint8Array(length);
    return { buffer, position, length, filled: 0, start: 0, tag: -1 };
  }

  #trySend(piece: Piece): void {
    const { position, buffer, length, filled, start } = piece;
    const { from, to } = this.#copy;
    const exchange = this.#exchange;
    // Without requests of its own that will give memory back, the lack of it is an error.
    const more = this.#going.some(({ tag }) => tag >= 0);
    if (filled > 0) {
      const data = buffer.subarray(start, start + filled);
      piece.tag = exchange.trySend(T.write, { fid: to.id, offset: position, count: filled }, { data }, more);
    } else {
      const room = buffer.subarray(0, length);
      piece.tag = exchange.trySend(T.read, { fid: from.id, offset: position, count: length }, { room }, more);
    }
  }

  /** Handles the answer to a piece's request. @returns whether there is more to do for it */
  *#receive(piece: Piece): Task<boolean> {
    const { tag } = piece;
    piece.tag = -1;
    if (piece.filled === 0) {
      const { count } = yield* this.#exchange.receive(tag, R.read);
      piece.filled = count;
      piece.start = 0;
      if (count > 0) return true;
      this.end = Math.min(this.end, piece.position);
      return false;
    }
    const count = yield* receiveWrite(this.#exchange, tag, piece.filled);
    piece.position += count;
    piece.length -= count;
    piece.start += count;
    piece.filled -= count;
    this.written = Math.max(this.written, piece.position);
    return piece.length > 0;
  }
}
