import { VirtioError } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeMessage, type Message, MessageReader } from './message.ts';
import { encode, MAX_PAYLOAD, U64, VringAddress, VringState } from './protocol.ts';

/** Gives bytes to a reader as it wants them, in pieces of at most `piece` bytes. */
function read(reader: MessageReader, bytes: Uint8Array, piece: number): Message[] {
  const messages: Message[] = [];
  for (let at = 0; at < bytes.length;) {
    const count = Math.min(piece, reader.needed, bytes.length - at);
    const message = reader.push(bytes.subarray(at, at + count));
    at += count;
    if (message !== undefined) messages.push(message);
  }
  return messages;
}

describe('messages', () => {
  it('have a header of twelve bytes with version 1, and the payload behind it', () => {
    const bytes = encodeMessage(18, encode(VringState, { index: 3, num: 1 }), 8);
    expect([...bytes]).toEqual([18, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);
    expect(VringAddress.size).toBe(40);
  });

  it('are read as they were written, in whatever pieces', () => {
    const message = fc.record({
      request: fc.nat(0xffff),
      payload: fc.uint8Array({ maxLength: 200 }),
      flags: fc.constantFrom(0, 4, 8),
    });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 5 }), fc.integer({ min: 1, max: 64 }), (messages, piece) => {
        const stream = messages.flatMap(({ request, payload, flags }) => [
          ...encodeMessage(request, payload, flags),
        ]);
        const found = read(new MessageReader(), Uint8Array.from(stream), piece);
        expect(
          found.map(({ request, flags, payload }) => ({
            request,
            flags: flags & ~3,
            payload: new Uint8Array(payload.buffer, payload.byteOffset),
          })),
        ).toEqual(messages);
      }),
    );
  });

  it('that are none are refused, and memory is never taken for what they claim', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), (bytes) => {
        const reader = new MessageReader();
        try {
          read(reader, bytes, 16);
        } catch (error) {
          expect(VirtioError.is(error, 'DEVICE_MISBEHAVED')).toBe(true);
        }
        expect(reader.needed).toBeLessThanOrEqual(12 + MAX_PAYLOAD);
      }),
    );
    const huge = encodeMessage(1, encode(U64, { value: 1n }));
    new DataView(huge.buffer).setUint32(8, 0xffffffff, true);
    expect(() => read(new MessageReader(), huge, 12)).toThrow('4294967295 bytes of payload');
    const version = encodeMessage(1, new Uint8Array(0));
    version[4] = 2;
    expect(() => read(new MessageReader(), version, 12)).toThrow('version 2');
  });

  it('take the descriptors that came with their bytes, or leave them to be closed', () => {
    const reader = new MessageReader();
    const bytes = encodeMessage(1, encode(U64, { value: 1n }));
    expect(reader.push(bytes.subarray(0, 12), [7])).toBeUndefined();
    expect(reader.partial).toBe(true);
    expect(reader.push(bytes.subarray(12), [8])?.descriptors).toEqual([7, 8]);
    reader.push(bytes.subarray(0, 5), [9]);
    expect(reader.takeDescriptors()).toEqual([9]);
    expect(reader.takeDescriptors()).toEqual([]);
  });

  it('have few descriptors: not some with each of their bytes, until the program has none left', () => {
    const reader = new MessageReader();
    const bytes = encodeMessage(1, encode(U64, { value: 1n }));
    reader.push(bytes.subarray(0, 1), [1, 2, 3, 4, 5]);
    expect(() => reader.push(bytes.subarray(1, 2), [6, 7, 8, 9])).toThrow('sent 9 descriptors');
    expect(reader.takeDescriptors()).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});
