/** Tasks for the data of files: reads, writes and copies of any length, in as many requests as necessary. */
import { type Copied, FileError, isDirectory, refuse, resized, type Task, WINDOW } from '@virtio/files';
import type { FuseFid } from './nodes.ts';
import { pipeline } from './pipeline.ts';
import { FSYNC_DATA, In, Opcode, Out } from './protocol.ts';
import { type CallOf, readOf } from './requests.ts';
import { PAGE, type Session } from './session.ts';

/** The number of bytes of one `COPY_FILE_RANGE`. */
const COPY_RANGE = 1 << 30;

/** The errors of servers that cannot copy, or cannot copy these files. */
const NO_COPY: readonly string[] = ['ENOSYS', 'EXDEV', 'EOPNOTSUPP', 'EINVAL', 'EBADF'];

interface Piece {
  readonly at: number;
  readonly count: number;
}

/** Reads (`READ`), with many requests in flight. Returns how many bytes were read without a gap. */
export function* read(
  { nodes, exchange, chunk }: Session,
  fid: FuseFid,
  buffer: Uint8Array,
  offset: number,
): Task<number> {
  const fh = nodes.handle(fid, 'read');
  let total = 0;
  let ended = false;
  yield* pipeline(exchange, pieces(buffer.length, chunk), {
    request: ({ at, count }) => readOf(fid, fh, buffer.subarray(at, at + count), offset + at),
    *receive(piece, tag) {
      const { count } = yield* exchange.receive(tag, Out.none);
      // There is a gap after a short answer.
      if (!ended) total += count;
      if (count < piece.count) ended = true;
      return !ended;
    },
  });
  return total;
}

/**
 * Writes all bytes (`WRITE`).
 *
 * @param window how many requests are in flight
 * @throws {@link VirtioError} `INVALID_PARAM` if the caller transfers or resizes the bytes meanwhile
 */
export function* write(
  { nodes, exchange, chunk }: Session,
  fid: FuseFid,
  bytes: Uint8Array,
  offset: number,
  window: number,
): Task<void> {
  const fh = nodes.handle(fid, 'write');
  const { length } = bytes;
  const writeOf = (at: number, count: number): CallOf<typeof In.io, typeof Out.write> => {
    if (bytes.length !== length) throw resized(length);
    return {
      opcode: Opcode.WRITE,
      nodeid: fid.node.id,
      session: fid.session,
      layout: In.io,
      values: { fh, offset: BigInt(offset + at), size: count, flags: fid.flags },
      out: Out.write,
      data: bytes.subarray(at, at + count),
    };
  };
  yield* pipeline(exchange, pieces(length, chunk), {
    request: ({ at, count }) => writeOf(at, count),
    *receive({ at, count }, tag) {
      let written = 0;
      let sent = tag;
      for (;;) {
        const { size } = (yield* exchange.receive(sent, Out.write)).values;
        const left = count - written;
        if (size > left) throw exchange.lie(Opcode.WRITE, `it wrote ${size} of ${left} bytes`);
        if (size === 0) throw refuse('EIO', 'write');
        written += size;
        if (written === count) return true;
        sent = yield* exchange.send(writeOf(at + written, count - written));
      }
    },
    window,
  });
}

/** Copies the contents of an open file to another: on the server (`COPY_FILE_RANGE`), or if it cannot, by reads and writes. */
export function* copy(session: Session, from: FuseFid, to: FuseFid, size: number): Task<Copied> {
  const { nodes, exchange } = session;
  const fhIn = nodes.handle(from, 'read');
  const fhOut = nodes.handle(to, 'write');
  let at = 0;
  while (session.copies) {
    const position = BigInt(at);
    const nodeidOut = to.node.id;
    const len = BigInt(COPY_RANGE);
    try {
      const { values } = yield* exchange.call({
        opcode: Opcode.COPY_FILE_RANGE,
        nodeid: from.node.id,
        session: from.session,
        layout: In.copyFileRange,
        values: { fhIn, offIn: position, nodeidOut, fhOut, offOut: position, len },
        out: Out.write,
      });
      if (values.size > COPY_RANGE) {
        throw exchange.lie(Opcode.COPY_FILE_RANGE, `it copied ${values.size} bytes`);
      }
      if (values.size === 0 && at > 0) return { end: at, written: at };
      // Some file systems copy nothing (of files of sysfs and procfs), and files that report that they are empty need not be: read them.
      if (values.size === 0) break;
      at += values.size;
    } catch (error) {
      if (!FileError.is(error) || !NO_COPY.includes(error.code)) throw error;
      if (error.code === 'ENOSYS') session.copies = false;
      break;
    }
  }
  const buffer = new Uint8Array(Math.min(Math.max(size - at, PAGE), WINDOW * session.chunk));
  for (;;) {
    const count = yield* read(session, from, buffer, at);
    if (count === 0) return { end: at, written: at };
    yield* write(session, to, buffer.subarray(0, count), at, WINDOW);
    at += count;
  }
}

/** Writes what the server caches of an open file to the disk (`FSYNC`, `FSYNCDIR`). A server without these requests caches nothing. */
export function* fsync({ nodes, exchange }: Session, fid: FuseFid, dataOnly: boolean): Task<void> {
  const directory = isDirectory(fid.qid);
  const fh = nodes.handle(fid, 'fsync', directory);
  try {
    yield* exchange.call({
      opcode: directory ? Opcode.FSYNCDIR : Opcode.FSYNC,
      nodeid: fid.node.id,
      session: fid.session,
      layout: In.fsync,
      values: { fh, flags: dataOnly ? FSYNC_DATA : 0 },
      out: Out.none,
    });
  } catch (error) {
    if (!FileError.is(error, 'ENOSYS')) throw error;
  }
}

/** Splits data into parts that fit one request. */
function* pieces(length: number, chunk: number): Generator<Piece, undefined> {
  for (let at = 0; at < length; at += chunk) yield { at, count: Math.min(chunk, length - at) };
  return undefined;
}
