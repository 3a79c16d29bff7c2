/** The data of files: reads and writes of any length, in as many messages as it takes. */
import { refuse, type Task } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { P9Fid } from './fid.ts';
import { pipeline } from './pipeline.ts';
import { R, T } from './protocol.ts';

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

/** Writes all bytes, with up to `window` requests in flight. `chunk` is the most bytes of one. */
export function* writeData(
  exchange: Exchange,
  fid: P9Fid,
  bytes: Uint8Array,
  offset: number,
  chunk: number,
  window: number,
): Task<void> {
  yield* pipeline(exchange, chunks(bytes, chunk), {
    request: (data) => {
      const at = offset + data.byteOffset - bytes.byteOffset;
      return [T.write, { fid: fid.id, offset: at, count: data.length }, { data }];
    },
    *receive(data, tag) {
      let rest = data;
      let sent = tag;
      for (;;) {
        rest = rest.subarray(yield* receiveWrite(exchange, sent, rest.length));
        if (rest.length === 0) return true;
        const at = offset + rest.byteOffset - bytes.byteOffset;
        sent = yield* exchange.send(T.write, { fid: fid.id, offset: at, count: rest.length }, { data: rest });
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
