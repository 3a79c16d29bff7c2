/** The data of files: reads and writes of any length, in as many requests as necessary. */
import { refuse, resized, type Task } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { FuseFid } from './nodes.ts';
import { pipeline } from './pipeline.ts';
import { In, Opcode, Out } from './protocol.ts';
import { type CallOf, readOf } from './requests.ts';

/** An open file, and how its data is split into requests. */
export interface FileData {
  readonly fid: FuseFid;
  readonly fh: bigint;
  /** The largest data of one request, in bytes. */
  readonly chunk: number;
  /** The largest number of requests in flight. */
  readonly window: number;
}

interface Piece {
  readonly at: number;
  readonly count: number;
}

/** Reads (`READ`). Returns how many bytes were read without a gap. */
export function* readData(
  exchange: Exchange,
  { fid, fh, chunk, window }: FileData,
  buffer: Uint8Array,
  offset: number,
): Task<number> {
  let total = 0;
  let ended = false;
  yield* pipeline(
    exchange,
    pieces(buffer.length, chunk),
    ({ at, count }) => readOf(fid, fh, buffer.subarray(at, at + count), offset + at),
    function* (piece, answer) {
      const { count } = yield* answer;
      // There is a gap after a short answer.
      if (!ended) total += count;
      if (count < piece.count) ended = true;
      return !ended;
    },
    window,
  );
  return total;
}

/**
 * Writes all bytes (`WRITE`).
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if the caller transfers or resizes the bytes meanwhile
 */
export function* writeData(
  exchange: Exchange,
  { fid, fh, chunk, window }: FileData,
  bytes: Uint8Array,
  offset: number,
): Task<void> {
  const { length } = bytes;
  const writeOf = ({ at, count }: Piece): CallOf<typeof In.io, typeof Out.write> => {
    if (bytes.length !== length) throw resized(length);
    return {
      opcode: Opcode.WRITE,
      nodeid: fid.node.id,
      layout: In.io,
      values: { fh, offset: BigInt(offset + at), size: count, flags: fid.flags },
      out: Out.write,
      data: bytes.subarray(at, at + count),
    };
  };
  yield* pipeline(
    exchange,
    pieces(length, chunk),
    writeOf,
    function* (piece, answer) {
      let { at, count } = piece;
      let next = answer;
      for (;;) {
        const { size } = (yield* next).values;
        if (size > count) throw exchange.lie(Opcode.WRITE, `it wrote ${size} of ${count} bytes`);
        if (size === 0) throw refuse('EIO', 'write');
        at += size;
        count -= size;
        if (count === 0) return true;
        next = exchange.call(writeOf({ at, count }));
      }
    },
    window,
  );
}

/** Splits data into parts that fit one request. */
function* pieces(length: number, chunk: number): Generator<Piece, undefined> {
  for (let at = 0; at < length; at += chunk) yield { at, count: Math.min(chunk, length - at) };
  return undefined;
}
