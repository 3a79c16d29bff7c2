import { decodeUtf8Lossless } from '@virtio/core';
import fc, { type Arbitrary } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeFields, encodeMessage, MalformedError, Reader, UnencodableError } from './codec.ts';
import {
  DirectoryEntry,
  type FieldKind,
  type Message,
  type MessageValues,
  type Qid,
  R,
  T,
} from './protocol.ts';

const name = fc.uint8Array({ maxLength: 40 }).map(decodeUtf8Lossless);
const qid: Arbitrary<Qid> = fc.record({
  type: fc.integer({ min: 0, max: 255 }),
  version: fc.integer({ min: 0, max: 0xffff_ffff }),
  path: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
});
const kinds: Readonly<Record<FieldKind, Arbitrary<unknown>>> = {
  u8: fc.integer({ min: 0, max: 0xff }),
  u16: fc.integer({ min: 0, max: 0xffff }),
  u32: fc.integer({ min: 0, max: 0xffff_ffff }),
  u64: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  size: fc.maxSafeNat(),
  time: fc.maxSafeInteger(),
  string: name,
  qid,
  names: fc.array(name, { maxLength: 16 }),
  qids: fc.array(qid, { maxLength: 16 }),
};

const valuesOf = (message: Message): Arbitrary<MessageValues<Message['fields']>> =>
  fc.record(
    Object.fromEntries(Object.entries(message.fields).map(([key, kind]) => [key, kinds[kind]])),
  ) as Arbitrary<MessageValues<Message['fields']>>;

const all: readonly Message[] = [...Object.values<Message>(T), ...Object.values<Message>(R)];

describe('messages', () => {
  it.each(all)('$name comes back as it was written', (message) => {
    fc.assert(
      fc.property(valuesOf(message), fc.integer({ min: 0, max: 0xffff }), (values, tag) => {
        const target = new Uint8Array(8192);
        const length = encodeMessage(target, tag, message, values);
        const reader = new Reader(target.subarray(0, length));
        expect(reader.fields({ size: 'u32', type: 'u8', tag: 'u16' })).toEqual({
          size: length,
          type: message.type,
          tag,
        });
        expect(reader.fields(message.fields)).toEqual(values);
        expect(reader.left).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  it.each(all)('$name that is cut off anywhere is refused', (message) => {
    fc.assert(
      fc.property(valuesOf(message), fc.nat(), (values, cut) => {
        const target = new Uint8Array(8192);
        const length = encodeFields(new DataView(target.buffer), 0, message.fields, values, message.name);
        if (length === 0) return;
        const reader = new Reader(target.subarray(0, cut % length));
        expect(() => reader.fields(message.fields)).toThrow(MalformedError);
      }),
      { numRuns: 30 },
    );
  });

  it('of garbage are read without harm', () => {
    fc.assert(
      fc.property(fc.constantFrom(...all), fc.uint8Array({ maxLength: 300 }), (message, bytes) => {
        try {
          new Reader(bytes).fields(message.fields);
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedError);
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('have the numbers and the layout of the protocol', () => {
    const target = new Uint8Array(64);
    const length = encodeMessage(target, 0x1234, T.walk, { fid: 1, newFid: 2, names: ['ab', 'č'] });
    // size[4] type[1] tag[2] fid[4] newfid[4] nwname[2] nwname*(wname[s])
    const wire = [
      25, 0, 0, 0, 110, 0x34, 0x12, 1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 2, 0, 0x61, 0x62, 2, 0, 0xc4, 0x8d,
    ];
    expect([...target.subarray(0, length)]).toEqual(wire);
    for (const [key, { type }] of Object.entries<Message>(T)) {
      expect((R as Readonly<Record<string, Message>>)[key]?.type, key).toBe(type + 1);
    }
  });

  it('count the data that follows', () => {
    const target = new Uint8Array(64);
    const end = encodeMessage(target, 1, T.write, { fid: 1, offset: 2 ** 40 + 5, count: 1000 }, 1000);
    const view = new DataView(target.buffer);
    expect(end).toBe(23);
    expect(view.getUint32(0, true)).toBe(1023);
    expect(view.getBigUint64(11, true)).toBe(2n ** 40n + 5n);
  });

  it('hold times before 1970', () => {
    const view = new DataView(new ArrayBuffer(8));
    encodeFields(view, 0, { time: 'time' }, { time: -1 }, 'Ttime');
    expect(view.getBigInt64(0, true)).toBe(-1n);
    expect(new Reader(new Uint8Array(view.buffer)).fields({ time: 'time' })).toEqual({ time: -1 });
  });

  it('that do not fit, and names that no file can have, are refused', () => {
    const write = (target: Uint8Array, names: string[]) => () =>
      encodeMessage(target, 0, T.walk, { fid: 0, newFid: 0, names });
    expect(write(new Uint8Array(40), ['a'.repeat(30)])).toThrow(new UnencodableError('ENAMETOOLONG'));
    expect(write(new Uint8Array(100_000), ['a'.repeat(65_536)])).toThrow(
      new UnencodableError('ENAMETOOLONG'),
    );
    expect(write(new Uint8Array(100), ['\ud800'])).toThrow(new UnencodableError('EILSEQ'));
  });

  it('with absurd counts are refused before anything is allocated', () => {
    expect(() => new Reader(Uint8Array.of(0xff, 0xff, 0, 0)).fields(R.walk.fields)).toThrow(/65535 elements/);
  });
});

describe('entries of directories', () => {
  it('come back as they were written, one after the other', () => {
    const entry = fc.record({ qid, offset: kinds.u64, type: kinds.u8, name }) as Arbitrary<
      MessageValues<typeof DirectoryEntry>
    >;
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 20 }), (entries) => {
        const target = new Uint8Array(8192);
        let end = 0;
        for (const values of entries) {
          end = encodeFields(new DataView(target.buffer), end, DirectoryEntry, values, 'entry');
        }
        const reader = new Reader(target.subarray(0, end));
        const read: unknown[] = [];
        while (reader.left > 0) read.push(reader.fields(DirectoryEntry));
        expect(read).toEqual(entries);
      }),
    );
  });
});
