import { SharedFile, UnixSocket } from '@virtio/linux';
import { describe, expect, it } from 'vitest';
import { parseConfig, parseCount, parseInflight, parseU64, parseVringState } from './answers.ts';
import type { Message } from './message.ts';
import { ConfigAccess, encode, Inflight, U64, VringState } from './protocol.ts';

const message = (payload: Uint8Array, descriptors: number[] = []): Message => ({
  request: 1,
  flags: 5,
  payload: new DataView(Uint8Array.from(payload).buffer),
  descriptors,
});
const misbehaved = expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }) as Error;

function config(offset: number, size: number, bytes: number): Message {
  const payload = new Uint8Array(ConfigAccess.size + bytes).fill(7);
  payload.set(encode(ConfigAccess, { offset, size }));
  return message(payload);
}

describe('answers', () => {
  it('are numbers of eight bytes', () => {
    expect(parseU64(message(encode(U64, { value: 0xffff_ffff_ffff_ffffn })))).toBe(0xffff_ffff_ffff_ffffn);
    for (const size of [0, 4, 7, 9, 16]) {
      expect(() => parseU64(message(new Uint8Array(size)))).toThrow(misbehaved);
    }
    expect(parseCount(256)(message(encode(U64, { value: 4n })))).toBe(4);
    expect(parseCount(256)(message(encode(U64, { value: 1n << 63n })))).toBe(256);
  });

  it('are of the vring that was asked for', () => {
    expect(parseVringState(2)(message(encode(VringState, { index: 2, num: 0x80008000 })))).toBe(0x80008000);
    expect(() => parseVringState(2)(message(encode(VringState, { index: 3, num: 1 })))).toThrow(misbehaved);
  });

  it('are as much of the configuration as there is, and never more than was asked for', () => {
    expect(parseConfig(96)(config(0, 96, 96))).toHaveLength(96);
    expect(parseConfig(96)(config(0, 60, 60))).toHaveLength(60);
    expect(parseConfig(96)(config(0, 60, 96))).toHaveLength(60);
    expect(parseConfig(96)(config(0, 0, 0))).toHaveLength(0);
    expect(parseConfig(96)(message(new Uint8Array(0)))).toHaveLength(0);
    expect(() => parseConfig(60)(config(0, 96, 96))).toThrow(misbehaved);
    expect(() => parseConfig(60)(config(8, 52, 52))).toThrow(misbehaved);
    expect(() => parseConfig(60)(config(0, 60, 20))).toThrow(misbehaved);
  });

  it('carry one descriptor where one was asked for', () => {
    const payload = encode(Inflight, { mmapSize: 4096n });
    using file = SharedFile.create('record', 4096, false);
    const { fd } = file;
    const good = message(payload, [fd]);
    expect(parseInflight(good)).toEqual({ fd, mmapSize: 4096n, mmapOffset: 0n });
    expect(good.descriptors).toEqual([]);
    expect(() => parseInflight(message(payload))).toThrow(misbehaved);
    expect(() => parseInflight(message(payload, [fd, fd]))).toThrow(misbehaved);
    // A back end built on libvhost-user that could not allocate the memory; the front end of QEMU goes on without it.
    const none = message(encode(Inflight, {}), [fd]);
    expect([parseInflight(none), none.descriptors]).toEqual([undefined, [fd]]);
    for (const wrong of [
      { mmapSize: 4097n },
      { mmapSize: 1n, mmapOffset: 2n ** 64n - 1n },
      { mmapSize: 2n ** 64n - 1n, mmapOffset: 1n },
    ]) {
      expect(() => parseInflight(message(encode(Inflight, wrong), [fd]))).toThrow(misbehaved);
    }
    const [left, right] = UnixSocket.pair();
    expect(() => parseInflight(message(payload, [left.fd]))).toThrow(misbehaved);
    for (const end of [left, right]) end[Symbol.dispose]();
  });
});
