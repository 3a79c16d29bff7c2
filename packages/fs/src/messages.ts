/**
 * The messages of requests, and their replies.
 *
 * Each tag has a piece of DMA memory for its message and its reply, so that these need no sharing. Data of reads and writes is transferred
 * directly from and to the caller's buffer.
 */
import { type FieldTable, type Layout, type Values, VirtioError } from '@virtio/core';
import { FileError, type Tags } from '@virtio/files';
import {
  ENTRY_OPCODES,
  In,
  IN_HEADER_SIZE,
  InHeader,
  Opcode,
  OPEN_OPCODES,
  Out,
  OUT_HEADER_SIZE,
  OutHeader,
} from './protocol.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** The memory of a tag: half for the message, half for the reply. */
const AREA_SIZE = 16384;
const HALF = AREA_SIZE / 2;

/** The largest total length of the names in one message, in bytes. */
const MAX_NAMES = HALF - 256;

const EINTR = 4;
const ENAMETOOLONG = 36;
/** The largest error number of Linux. */
const MAX_ERRNO = 4095;

/** What some servers carry out without a reply: virtiofsd ends a session, OpenDAL's virtiofs flushes a file so. */
const UNANSWERED: readonly number[] = [Opcode.DESTROY, Opcode.FLUSH];

const LATER = { kick: false };

/** A request. */
export interface Call<I extends FieldTable, O extends FieldTable> {
  readonly opcode: number;
  /** The node of the file or the directory. */
  readonly nodeid: bigint;
  /** The session in which the server knows the node; for requests without a node, `undefined`. */
  readonly session: number | undefined;
  readonly layout: Layout<I>;
  readonly values: Partial<Values<I>>;
  /** The structure after the header of the reply. */
  readonly out: Layout<O>;
  /** The names after the arguments; a zero byte is added to each. */
  readonly names?: readonly Uint8Array[];
  /** The data after that, which is not copied. */
  readonly data?: Uint8Array;
  /** The buffer for the data after `out` in the reply. */
  readonly room?: Uint8Array;
  /** The group of a new file. */
  readonly gid?: number;
}

/** The reply to a request. */
export interface Reply<O extends FieldTable> {
  readonly values: Values<O>;
  /** How many bytes of the room were filled. */
  readonly count: number;
}

/** The user for whom requests are sent, for their headers. */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
}

/** What a reply that no task takes tells of: a node that the server has counted a lookup of, a file that it has opened, or both. */
export interface Gain {
  readonly nodeid: bigint;
  /** Whether the server has counted a lookup of the node. */
  readonly lookedUp: boolean;
  /** The handle of the file that was opened. */
  readonly fh: bigint | undefined;
  /** Whether that is a directory. */
  readonly directory: boolean;
  /** The session of the request. */
  readonly session: number | undefined;
}

/** The memory of a tag, and what was sent with it. */
interface Sent {
  readonly message: Uint8Array<ArrayBuffer>;
  readonly reply: Uint8Array<ArrayBuffer>;
  opcode: number;
  nodeid: bigint;
  session: number | undefined;
  /** The size of the room. */
  room: number;
  unique: number;
  interrupted: boolean;
}

/** Sends messages, and reads the replies. */
export class Messages {
  readonly #device: VirtioFs;
  readonly #tags: Tags;
  readonly #sent: Sent[] = [];
  #credentials: Credentials = { uid: 0, gid: 0 };
  #unique = 0;

  constructor(device: VirtioFs, tags: Tags) {
    this.#device = device;
    this.#tags = tags;
  }

  /**
   * Begins a session: allocates memory if there is none yet.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(credentials: Credentials): void {
    this.#credentials = credentials;
    if (this.#sent.length > 0) return;
    const { count } = this.#tags;
    const memory = this.#device.messageMemory(count * AREA_SIZE);
    for (let tag = 0; tag < count; tag += 1) {
      const at = tag * AREA_SIZE;
      this.#sent.push({
        message: memory.subarray(at, at + HALF),
        reply: memory.subarray(at + HALF, at + AREA_SIZE),
        opcode: 0,
        nodeid: 0n,
        session: undefined,
        room: 0,
        unique: 0,
        interrupted: false,
      });
    }
  }

  /**
   * Sends a request with a tag that was taken. The device sees it after a kick.
   *
   * @throws {@link FileError} `ENAMETOOLONG`
   * @throws {@link VirtioError} `QUEUE_FULL`, `DMA_ERROR`, or why the device no longer works; the tag is free then, as after any error
   */
  transmit<I extends FieldTable, O extends FieldTable>(tag: number, call: Call<I, O>): void {
    const { opcode, nodeid, layout, values, out, names = [], data, room } = call;
    const sent = this.#of(tag);
    const { message } = sent;
    let token: number;
    try {
      layout.write(new DataView(message.buffer, message.byteOffset, message.length), IN_HEADER_SIZE, values);
      let length = IN_HEADER_SIZE + layout.size;
      for (const name of names) {
        if (length + name.length + 1 > MAX_NAMES) throw new FileError(ENAMETOOLONG, nameOf(opcode));
        message.set(name, length);
        message[length + name.length] = 0;
        length += name.length + 1;
      }
      const whole = data !== undefined && data.length > 0 ? data : undefined;
      const target = room !== undefined && room.length > 0 ? room : undefined;
      sent.unique = this.#header(message, opcode, nodeid, length + (whole?.length ?? 0), call.gid);
      sent.room = target?.length ?? 0;
      token = this.#device.submitRequest(
        message.subarray(0, length),
        sent.reply.subarray(0, OUT_HEADER_SIZE + out.size),
        whole,
        target,
        LATER,
      );
    } catch (error) {
      this.#tags.release(tag);
      throw error;
    }
    sent.opcode = opcode;
    sent.nodeid = nodeid;
    sent.session = call.session;
    sent.interrupted = false;
    this.#tags.sent(tag, token);
  }

  /**
   * Ends a request that is done, and reads its reply. The tag is free afterwards.
   *
   * @throws {@link FileError} the error of the server
   * @throws {@link VirtioError} `DEVICE_RESET`, `DEVICE_MISBEHAVED`, `ABORTED` if it was interrupted, or why the request was lost
   */
  finish<O extends FieldTable>(tag: number, out: Layout<O>): Reply<O> {
    const { opcode, reply, interrupted, room } = this.#of(tag);
    try {
      const length = this.#tags.complete(tag, nameOf(opcode));
      const view = new DataView(reply.buffer, reply.byteOffset, reply.length);
      if (length === 0) {
        if (UNANSWERED.includes(opcode)) return { values: out.read(view, OUT_HEADER_SIZE), count: 0 };
        throw this.lie(opcode, 'there is none');
      }
      const error = -view.getInt32(OutHeader.offset.error, true);
      if (error !== 0) {
        if (error < 0 || error > MAX_ERRNO) throw this.lie(opcode, `its error is ${-error}`);
        if (error === EINTR && interrupted) {
          throw new VirtioError('ABORTED', 'the operation was cancelled by its caller');
        }
        throw new FileError(error, nameOf(opcode));
      }
      const size = OUT_HEADER_SIZE + out.size;
      if (length < size || length > size + room) {
        throw this.lie(opcode, `it has ${length} bytes instead of ${size} to ${size + room}`);
      }
      return { values: out.read(view, OUT_HEADER_SIZE), count: length - size };
    } finally {
      this.#tags.release(tag);
    }
  }

  /** Ends a request that is done, and whose reply no task takes. Returns what must be released, if anything. The tag is free afterwards. */
  finishUnclaimed(tag: number): Gain | undefined {
    const { opcode, nodeid, session, reply } = this.#of(tag);
    try {
      const length = this.#tags.complete(tag, nameOf(opcode));
      const lookedUp = ENTRY_OPCODES.includes(opcode);
      const opened = OPEN_OPCODES.includes(opcode);
      if (!lookedUp && !opened) return undefined;
      const out = opcode === Opcode.CREATE ? Out.create : lookedUp ? Out.entry : Out.open;
      const view = new DataView(reply.buffer, reply.byteOffset, reply.length);
      if (length < OUT_HEADER_SIZE + out.size || view.getInt32(OutHeader.offset.error, true) !== 0) {
        return undefined;
      }
      return {
        nodeid: lookedUp ? Out.entry.read(view, OUT_HEADER_SIZE).nodeid : nodeid,
        lookedUp,
        fh: opened ? view.getBigUint64(OUT_HEADER_SIZE + (lookedUp ? Out.entry.size : 0), true) : undefined,
        directory: opcode === Opcode.OPENDIR,
        session,
      };
    } catch {
      return undefined;
    } finally {
      this.#tags.release(tag);
    }
  }

  /** No task takes the reply to a request any more. */
  disown(tag: number): void {
    // Its caller may use the buffer for the data again. Other replies are needed, as they may tell of what must be released.
    if (this.#of(tag).room > 0) this.#device.disown(this.#tags.token(tag));
  }

  /** The message that asks the server to end a request early; `undefined` if that was asked before. */
  interrupt(tag: number): Uint8Array | undefined {
    const sent = this.#of(tag);
    if (sent.interrupted) return undefined;
    sent.interrupted = true;
    return this.#alone(Opcode.INTERRUPT, 0n, In.interrupt, { unique: BigInt(sent.unique) });
  }

  /** The message that takes lookups of a node back. */
  forget(nodeid: bigint, nlookup: number): Uint8Array {
    return this.#alone(Opcode.FORGET, nodeid, In.forget, { nlookup: BigInt(nlookup) });
  }

  /** The error of a reply that makes no sense. */
  lie(opcode: number, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.#device.transport.who()}: the server's reply to ${nameOf(opcode)} makes no sense: ${what}`,
    );
  }

  #of(tag: number): Sent {
    return this.#sent[tag] as Sent;
  }

  /** A message that has no reply. */
  #alone<I extends FieldTable>(
    opcode: number,
    nodeid: bigint,
    layout: Layout<I>,
    values: Values<I>,
  ): Uint8Array {
    const message = new Uint8Array(IN_HEADER_SIZE + layout.size);
    this.#header(message, opcode, nodeid, message.length);
    layout.write(new DataView(message.buffer), IN_HEADER_SIZE, values);
    return message;
  }

  /** Writes the header of a message. Returns its `unique`. */
  #header(message: Uint8Array, opcode: number, nodeid: bigint, len: number, gid?: number): number {
    this.#unique = this.#unique >= 2 ** 52 ? 2 : this.#unique + 2;
    const { uid, gid: own } = this.#credentials;
    InHeader.write(new DataView(message.buffer, message.byteOffset, message.length), 0, {
      len,
      opcode,
      unique: BigInt(this.#unique),
      nodeid,
      uid,
      gid: gid ?? own,
      pid: 1,
    });
    return this.#unique;
  }
}

const NAMES = new Map<number, string>(
  Object.entries(Opcode).map(([name, number]) => [number, name.toLowerCase()]),
);

/** The name of an operation, for texts of errors. */
export function nameOf(opcode: number): string {
  return NAMES.get(opcode) ?? `request ${opcode}`;
}
