/** The data of files: reads and writes of any length, in as many messages as it takes. */
import { refuse, resized, type Task } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { P9Fid } from './fid.ts';
import type { RequestData } from './messages.ts';
import { pipeline } from './pipeline.ts';
import { type MessageValues, R, T } from './protocol.ts';

/** Reads, with many requests in flight. `chunk` is the most bytes of one. Returns how many bytes were read in a row. */
export function* readData(
  exchange: Exchange,
  fid: P9Fid,
  buffer: Uint8Array,
  offset: number,
  chunk: number,
): Task<number> {
  let total = 0;
  let ended = false;
  yield* pipeline(exchange, chunks(buffer, chunk), {
    request: (room) => {
      const at = offset + room.byteOffset - buffer.byteOffset;
      return [T.read, { fid: fid.id, offset: at, count: room.length }, { room }];
    },
    *receive(room, tag) {
      const { count } = yield* exchange.receive(tag, R.read);
      // What is behind a short answer does not follow what is before it.
      if (!ended) total += count;
      if (count < room.length) ended = true;
      return !ended;
    },
  });
  return total;
}

/**
 * Writes all bytes, with up to `window` requests in flight. `chunk` is the most bytes of one.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if the caller transfers or resizes the bytes meanwhile
 */
export function* writeData(
  exchange: Exchange,
  fid: P9Fid,
  bytes: Uint8Array,
  offset: number,
  chunk: number,
  window: number,
): Task<void> {
  const { length } = bytes;
  const request = (
    at: number,
    count: number,
  ): [typeof T.write, MessageValues<typeof T.write.fields>, RequestData] => {
    if (bytes.length !== length) throw resized(length);
    const data = bytes.subarray(at, at + count);
    return [T.write, { fid: fid.id, offset: offset + at, count }, { data }];
  };
  const pieces = function* (): Generator<{ readonly at: number; readonly count: number }, undefined> {
    for (let at = 0; at < length; at += chunk) yield { at, count: Math.min(chunk, length - at) };
    return undefined;
  };
  yield* pipeline(exchange, pieces(), {
    request: ({ at, count }) => request(at, count),
    *receive({ at, count }, tag) {
      let written = 0;
      let sent = tag;
      for (;;) {
        written += yield* receiveWrite(exchange, sent, count - written);
        if (written === count) return true;
        sent = yield* exchange.send(...request(at + written, count - written));
      }
    },
    window,
  });
}

/** Waits for the reply to a `Twrite` of `length` bytes. Returns how many of them were written: one at least. */
export function* receiveWrite(exchange: Exchange, tag: number, length: number): Task<number> {
  const { count } = yield* exchange.receive(tag, R.write);
  if (count > length) throw exchange.lie(T.write, `it wrote ${count} of ${length} bytes`);
  if (count === 0) throw refuse('EIO', T.write.name);
  return count;
}

/** Cuts a buffer into what one request can carry. */
function* chunks(buffer: Uint8Array, size: number): Generator<Uint8Array, undefined> {
  for (let at = 0; at < buffer.length; at += size) yield buffer.subarray(at, at + size);
  return undefined;
}
