import { describe, expect, it } from 'vitest';
import { flowHash, formatMac, parseMac, PcapWriter, readPcap } from './index.ts';
import { isStation, randomMac } from './mac.ts';

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

describe('MAC addresses', () => {
  it('are read and printed', () => {
    for (const text of ['52:54:00:12:34:56', '52-54-00-12-34-56']) {
      expect(formatMac(parseMac(text))).toBe('52:54:00:12:34:56');
    }
    expect(formatMac(parseMac([1, 2, 3, 4, 5, 255]))).toBe('01:02:03:04:05:ff');
    for (const bad of [
      '',
      '52:54:00:12:34',
      '52:54:00:12:34:5g',
      '52:54:00:12:34:56:78',
      [1, 2],
      [1, 2, 3, 4, 5, 256],
    ]) {
      expect(() => parseMac(bad)).toThrow(code('INVALID_PARAM'));
    }
  });

  it('are local ones of one station when they are drawn', () => {
    for (let n = 0; n < 100; n += 1) {
      const mac = randomMac();
      expect(isStation(mac) && ((mac[0] ?? 0) & 2) !== 0).toBe(true);
    }
  });
});

describe('captures', () => {
  const frames = [new Uint8Array(60).fill(1), new Uint8Array(1514).fill(2), new Uint8Array(0)];
  const time = 1_700_000_000_123_456_789n;

  function write(options: ConstructorParameters<typeof PcapWriter>[1]): Uint8Array<ArrayBuffer> {
    const bytes: number[] = [];
    const writer = new PcapWriter((piece) => bytes.push(...piece), options);
    frames.forEach((frame, i) => {
      writer.write(frame, time + BigInt(i));
    });
    return Uint8Array.from(bytes);
  }

  it.each([
    [{}, time - (time % 1000n)],
    [{ nanoseconds: true }, time],
  ])('are written and read, %o', (options, first) => {
    const read = [...readPcap(write(options))];
    expect(read.map(({ frame }) => frame)).toEqual(frames);
    expect(read.map(({ originalLength }) => originalLength)).toEqual([60, 1514, 0]);
    expect(read[0]?.timestamp).toBe(first);
  });

  it('have the layout of the format, byte by byte', () => {
    const bytes: number[] = [];
    new PcapWriter((piece) => bytes.push(...piece), { snapLength: 2 }).write(
      Uint8Array.of(7, 8, 9),
      3_000_004_000n,
    );
    expect(bytes).toEqual([
      ...[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0],
      ...[3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 7, 8],
    ]);
  });

  it('hold frames and times, and nothing else', () => {
    const writer = new PcapWriter(() => undefined);
    expect(() => {
      writer.write([1, 2] as unknown as Uint8Array, 5n);
    }).toThrow(code('INVALID_PARAM'));
    expect(() => {
      writer.write(new Uint8Array(60), 5 as unknown as bigint);
    }).toThrow(code('INVALID_PARAM'));
  });

  it('are read in the other byte order, too', () => {
    const head = new DataView(new ArrayBuffer(24 + 16 + 1));
    head.setUint32(0, 0xa1b23c4d);
    head.setUint32(20, 1);
    head.setUint32(24, 5);
    head.setUint32(28, 6);
    head.setUint32(32, 1);
    head.setUint32(36, 99);
    head.setUint8(40, 42);
    expect([...readPcap(new Uint8Array(head.buffer))]).toEqual([
      { timestamp: 5_000_000_006n, frame: Uint8Array.of(42), originalLength: 99 },
    ]);
  });

  it('are refused if they are broken', () => {
    const good = write({});
    const read = (bytes: Uint8Array<ArrayBuffer>) => () => [...readPcap(bytes)];
    expect(read(good.slice(0, 23))).toThrow(code('INVALID_PARAM'));
    expect(read(good.slice(0, 30))).toThrow(code('INVALID_PARAM'));
    expect(read(good.slice(0, -20))).toThrow(code('INVALID_PARAM'));
    expect(read(new Uint8Array(100))).toThrow(code('INVALID_PARAM'));
    expect(read('x' as unknown as Uint8Array<ArrayBuffer>)).toThrow(code('INVALID_PARAM'));
    // Whatever follows a good head: frames that lie in the file, then an end or an error.
    for (let seed = 1; seed <= 300; seed += 1) {
      const garbage = Uint8Array.from({ length: 24 + (seed % 97) }, (_, n) =>
        n < 24 ? (good[n] ?? 0) : seed % 3 === 0 ? 0 : Math.imul(n * 31 + seed, 0x9e3779b1) >>> 24,
      );
      let frames = 0;
      try {
        for (const { frame: kept } of readPcap(garbage)) frames += 1 + kept.length;
      } catch (error) {
        expect(error).toMatchObject({ code: 'INVALID_PARAM' });
      }
      expect(frames).toBeLessThanOrEqual(garbage.length - 24);
    }
    const wifi = good.slice();
    wifi[20] = 105;
    expect(read(wifi)).toThrow(code('INVALID_PARAM'));
    expect(() => new PcapWriter(() => undefined, { snapLength: 0 })).toThrow(code('INVALID_PARAM'));
    expect(() => {
      new PcapWriter(() => undefined).write(good, -1n);
    }).toThrow(code('INVALID_PARAM'));
  });
});

describe('flows', () => {
  const ipv4 = (source: number, port: number, tag = false): Uint8Array => {
    const tcp = [0, port, 0, 80];
    const ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, source, 10, 0, 0, 1];
    const macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    return Uint8Array.from([...macs, ...(tag ? [0x81, 0, 0, 5] : []), 8, 0, ...ip, ...tcp]);
  };

  it('have one number in both directions, whatever else differs, and others have others', () => {
    const there = ipv4(9, 33);
    const back = there.slice();
    back.set(there.subarray(26, 30), 30);
    back.set(there.subarray(30, 34), 26);
    back.set([0, 80, 0, 33], 34);
    expect(flowHash(back)).toBe(flowHash(there));
    expect(flowHash(ipv4(9, 33, true))).toBe(flowHash(there));
    const hashes = new Set(Array.from({ length: 200 }, (_, n) => flowHash(ipv4(n, n))));
    expect(hashes.size).toBeGreaterThan(195);
  });

  it('are spread evenly over a few queues', () => {
    const counts = [0, 0, 0, 0];
    for (let n = 0; n < 1000; n += 1) {
      const queue = flowHash(ipv4(n % 200, (n * 7) % 256)) % 4;
      counts[queue] = (counts[queue] ?? 0) + 1;
    }
    for (const count of counts) expect(count).toBeGreaterThan(150);
  });

  it('have a number for everything that can come', () => {
    for (let length = 0; length < 60; length += 1) {
      for (const type of [0x0800, 0x86dd, 0x8100, 0x0806]) {
        const bytes = new Uint8Array(length).fill(0x45);
        if (length >= 14) bytes.set([type >> 8, type & 255], 12);
        const hash = flowHash(bytes);
        expect(Number.isInteger(hash) && hash >= 0 && hash < 2 ** 32).toBe(true);
      }
    }
  });
});
