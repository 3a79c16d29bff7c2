/**
 * Writes and reads messages by their tables. What is read comes from the server, which is not trusted, out of memory
 * that it may still write to: each byte is read once, each length is checked against the message before it is used, and
 * strings are copied before they are looked at.
 */
import { decodeUtf8Lossless, encodeUtf8Lossless, requireInteger, VirtioError } from '@virtio/core';
import { MAX_U32 } from '@virtio/files';
import {
  type FieldKind,
  type Fields,
  HEADER_SIZE,
  MAX_WALK,
  type Message,
  type MessageValues,
  type Qid,
} from './protocol.ts';

const TWO_32 = 4294967296;
const MAX_U64 = 0xffff_ffff_ffff_ffffn;

/** The message is not what its table says. */
export class MalformedError extends Error {
  override readonly name = 'MalformedError';
}

/** A value that no message can hold: a string with lone surrogates, or a message that is too long. */
export class UnencodableError extends Error {
  override readonly name = 'UnencodableError';
  /** Linux's name of the reason. */
  readonly code: 'EILSEQ' | 'ENAMETOOLONG';

  constructor(code: 'EILSEQ' | 'ENAMETOOLONG') {
    super(code);
    this.code = code;
  }
}

/**
 * Writes a message.
 *
 * @param target where to; its length is the limit
 * @param tag the tag of the request
 * @param message its table
 * @param values its fields
 * @param data how many bytes of data follow it elsewhere: they count for the message's size
 * @returns the bytes written
 * @throws {@link UnencodableError}
 * @throws {@link VirtioError} `INVALID_PARAM` for a value that its field cannot hold
 */
export function encodeMessage<F extends Fields>(
  target: Uint8Array,
  tag: number,
  message: Message<F>,
  values: MessageValues<F>,
  data = 0,
): number {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  const end = encodeFields(view, HEADER_SIZE, message.fields, values, message.name);
  view.setUint32(0, end + data, true);
  view.setUint8(4, message.type);
  view.setUint16(5, tag, true);
  return end;
}

/**
 * Writes fields without a header.
 *
 * @param name the message, for errors
 * @returns where they end
 * @throws {@link UnencodableError}
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function encodeFields<F extends Fields>(
  view: DataView,
  at: number,
  fields: F,
  values: MessageValues<F>,
  name: string,
): number {
  const writer = new Writer(view, at, name);
  for (const key in fields) {
    const value: unknown = values[key];
    switch (fields[key] as FieldKind) {
      case 'u8':
        writer.u8(key, value);
        break;
      case 'u16':
        writer.u16(key, value);
        break;
      case 'u32':
        writer.u32(key, value);
        break;
      case 'u64':
        writer.u64(key, value);
        break;
      case 'size':
        writer.number64(key, value, 0);
        break;
      case 'time':
        writer.number64(key, value, Number.MIN_SAFE_INTEGER);
        break;
      case 'string':
        writer.string(key, value);
        break;
      case 'qid':
        writer.qid(key, value as Qid);
        break;
      case 'names':
        writer.count(key, (value as string[]).length);
        for (const each of value as string[]) writer.string(key, each);
        break;
      case 'qids':
        writer.count(key, (value as Qid[]).length);
        for (const qid of value as Qid[]) writer.qid(key, qid);
        break;
    }
  }
  return writer.at;
}

class Writer {
  at: number;

  readonly #view: DataView;
  readonly #name: string;

  constructor(view: DataView, at: number, name: string) {
    this.#view = view;
    this.at = at;
    this.#name = name;
  }

  u8(key: string, value: unknown): void {
    const byte = requireInteger(this.#name, key, value, 0, 0xff);
    this.#view.setUint8(this.#take(1), byte);
  }

  count(key: string, elements: number): void {
    this.u16(key, requireInteger(this.#name, `the number of ${key}`, elements, 0, MAX_WALK));
  }

  u16(key: string, value: unknown): void {
    const half = requireInteger(this.#name, key, value, 0, 0xffff);
    this.#view.setUint16(this.#take(2), half, true);
  }

  u32(key: string, value: unknown): void {
    const word = requireInteger(this.#name, key, value, 0, MAX_U32);
    this.#view.setUint32(this.#take(4), word, true);
  }

  u64(key: string, value: unknown): void {
    if (typeof value !== 'bigint' || value < 0n || value > MAX_U64) {
      throw this.#refuse(`${key} is ${String(value)} (${typeof value}); give a bigint from 0 to 2^64 - 1`);
    }
    this.#view.setBigUint64(this.#take(8), value, true);
  }

  number64(key: string, value: unknown, min: number): void {
    const number = requireInteger(this.#name, key, value, min, Number.MAX_SAFE_INTEGER);
    const at = this.#take(8);
    this.#view.setUint32(at, number % TWO_32, true);
    this.#view.setInt32(at + 4, Math.floor(number / TWO_32), true);
  }

  string(key: string, value: unknown): void {
    if (typeof value !== 'string') throw this.#refuse(`${key} is of type ${typeof value}; give a string`);
    const bytes = encodeUtf8Lossless(value);
    if (bytes === undefined) throw new UnencodableError('EILSEQ');
    if (bytes.length > 0xffff) throw new UnencodableError('ENAMETOOLONG');
    this.u16(key, bytes.length);
    const at = this.#take(bytes.length);
    new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, bytes.length).set(bytes);
  }

  qid(key: string, { type, version, path }: Qid): void {
    this.u8(key, type);
    this.u32(key, version);
    this.u64(key, path);
  }

  #take(bytes: number): number {
    const { at } = this;
    if (at + bytes > this.#view.byteLength) throw new UnencodableError('ENAMETOOLONG');
    this.at = at + bytes;
    return at;
  }

  #refuse(what: string): VirtioError {
    return new VirtioError('INVALID_PARAM', `${this.#name}: ${what}`);
  }
}

/** Reads one message, or the entries of a directory. Each read checks that it stays inside. */
export class Reader {
  readonly #view: DataView;
  #at: number;

  /**
   * @param bytes what the server wrote, and no more
   * @param at where to begin
   */
  constructor(bytes: Uint8Array, at = 0) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = at;
  }

  /** How many bytes are left. */
  get left(): number {
    return this.#view.byteLength - this.#at;
  }

  /** Reads the fields of a table. */
  fields<F extends Fields>(fields: F): MessageValues<F> {
    const values: Record<string, unknown> = {};
    for (const key in fields) values[key] = this.#field(fields[key] as FieldKind);
    return values as MessageValues<F>;
  }

  #field(kind: FieldKind): unknown {
    switch (kind) {
      case 'u8':
        return this.#view.getUint8(this.#take(1));
      case 'u16':
        return this.#u16();
      case 'u32':
        return this.#view.getUint32(this.#take(4), true);
      case 'u64':
        return this.#view.getBigUint64(this.#take(8), true);
      case 'size': {
        const at = this.#take(8);
        return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * TWO_32;
      }
      case 'time': {
        const at = this.#take(8);
        return this.#view.getUint32(at, true) + this.#view.getInt32(at + 4, true) * TWO_32;
      }
      case 'string':
        return this.#string();
      case 'qid':
        return this.#qid();
      case 'names':
        return Array.from({ length: this.#count() }, () => this.#string());
      case 'qids':
        return Array.from({ length: this.#count() }, () => this.#qid());
    }
  }

  #u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  #count(): number {
    const count = this.#u16();
    if (count > MAX_WALK) {
      throw new MalformedError(`it counts ${count} elements where at most ${MAX_WALK} can be`);
    }
    return count;
  }

  #string(): string {
    const length = this.#u16();
    const at = this.#view.byteOffset + this.#take(length);
    return decodeUtf8Lossless(new Uint8Array(this.#view.buffer, at, length).slice());
  }

  #qid(): Qid {
    const at = this.#take(13);
    return {
      type: this.#view.getUint8(at),
      version: this.#view.getUint32(at + 1, true),
      path: this.#view.getBigUint64(at + 5, true),
    };
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#view.byteLength) {
      throw new MalformedError(`a field of ${bytes} bytes reaches beyond its end`);
    }
    this.#at = at + bytes;
    return at;
  }
}
