import { ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import { BlkConfigLayout, RequestType, type VirtioBlk } from './index.ts';

const refused = (code: string): Error => expect.objectContaining({ code }) as Error;

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

/** Polls until a request is done. */
function pollFor(blk: VirtioBlk): number {
  for (let n = 0; n < 1000; n += 1) {
    const token = blk.poll();
    if (token >= 0) return token;
  }
  throw new Error('no request is done');
}

describe.each(ringVariants)('VirtioBlk on a ring that is $name', ({ features: ring }) => {
  it('reads and writes sectors in all three forms', async () => {
    const open = openFakeDisk({ ring, features: ['FLUSH'] });
    const { blk, disk } = open;
    const data = pattern(1024);
    await blk.write(3, data);
    expect(disk.bytes.subarray(1536, 2560)).toEqual(data);
    const back = new Uint8Array(1024);
    await blk.read(3, back);
    expect(back).toEqual(data);

    const other = pattern(512, 2);
    blk.writeSync(0, other);
    const sync = new Uint8Array(1536);
    blk.readSync(0, sync);
    expect(sync).toEqual(disk.bytes.subarray(0, 1536));

    const third = pattern(2048, 3);
    const written = blk.submitWrite(100, third);
    expect(pollFor(blk)).toBe(written);
    blk.complete(written);
    const polled = new Uint8Array(2048);
    const read = blk.submitRead(100, polled);
    expect(pollFor(blk)).toBe(read);
    blk.complete(read);
    expect(polled).toEqual(third);
    expect(blk.poll()).toBe(-1);
    close(open);
  });

  it('gathers what is written from several buffers and scatters what is read to several', async () => {
    const open = openFakeDisk({ ring });
    const { blk, disk } = open;
    const data = pattern(1536);
    await blk.write(10, [data.subarray(0, 100), data.subarray(100, 600), data.subarray(600)]);
    expect(disk.bytes.subarray(5120, 6656)).toEqual(data);
    const parts = [new Uint8Array(512), new Uint8Array(1), new Uint8Array(511), new Uint8Array(512)];
    blk.readSync(10, parts);
    expect(Uint8Array.from(parts.flatMap((part) => [...part]))).toEqual(data);
    close(open);
  });

  it('uses DMA memory as it is, without a copy', () => {
    const open = openFakeDisk({ ring });
    const { blk, disk, device } = open;
    const region = device.hal.dmaAlloc(1, 'both', blk.features.has('ACCESS_PLATFORM'));
    region.bytes.set(pattern(4096));
    blk.writeSync(8, region.bytes);
    expect(disk.bytes.subarray(4096, 8192)).toEqual(region.bytes);
    disk.bytes.fill(9, 4096, 4608);
    const { bounces } = device.hal.counts;
    blk.readSync(8, [region.bytes.subarray(512, 1024), region.bytes.subarray(0, 512)]);
    expect(region.bytes.subarray(512, 1024)).toEqual(new Uint8Array(512).fill(9));
    expect(device.hal.counts.bounces).toBe(bounces);
    device.hal.dmaDealloc(region, false);
    close(open);
  });

  it('keeps many requests in flight over many laps of the ring', async () => {
    const open = openFakeDisk({ ring, sectors: 1024, queues: [16] });
    const { blk, disk } = open;
    const writes = Array.from({ length: 300 }, (_, n) => blk.write(n * 2, pattern(1024, n)));
    await Promise.all(writes);
    const buffers = Array.from({ length: 300 }, () => new Uint8Array(1024));
    await Promise.all(buffers.map((buffer, n) => blk.read(n * 2, buffer)));
    buffers.forEach((buffer, n) => expect(buffer).toEqual(pattern(1024, n)));
    expect(disk.requests).toHaveLength(600);
    close(open);
  });
});

describe('VirtioBlk', () => {
  it('sends a header of 16 bytes, the data, and room for one byte of status [5.2.6]', () => {
    const open = openFakeDisk({ sectors: 2 ** 40 });
    const { blk, disk } = open;
    disk.answer = () => 0;
    blk.writeSync(2 ** 39 + 5, pattern(512));
    expect(disk.requests).toHaveLength(1);
    expect(disk.requests[0]).toMatchObject({ type: RequestType.OUT, reserved: 0, sector: 2 ** 39 + 5 });
    expect(disk.requests[0]?.chain.elements.map(({ length, writable }) => [length, writable])).toEqual([
      [16, false],
      [512, false],
      [1, true],
    ]);
    close(open);
  });

  it('writes the upper half of a sector beyond 2^32, up to 2^53', () => {
    const open = openFakeDisk({ config: { capacity: 0xffffffffffffffffn } });
    const { blk, disk } = open;
    disk.answer = () => 0;
    expect(blk.capacity).toBe(Number.MAX_SAFE_INTEGER);
    const sectors = [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER - 1];
    for (const sector of sectors) blk.writeSync(sector, pattern(512));
    expect(disk.requests.map(({ sector }) => sector)).toEqual(sectors);
    close(open);
  });

  it('ends requests in the order in which the device used them', () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    disk.holdBack = true;
    const tokens = [0, 1, 2].map((sector) => blk.submitRead(sector, new Uint8Array(512)));
    expect(blk.poll()).toBe(-1);
    disk.release([disk.held[2], disk.held[0], disk.held[1]].filter((request) => request !== undefined));
    expect([blk.poll(), blk.poll(), blk.poll(), blk.poll()]).toEqual([tokens[2], tokens[0], tokens[1], -1]);
    for (const token of tokens) blk.complete(token);
    close(open);
  });

  it('gives each of many promises its own data, whatever the order in which they are used', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.bytes.set(pattern(disk.bytes.length));
    disk.holdBack = true;
    const buffers = Array.from({ length: 12 }, () => new Uint8Array(512));
    const reads = Promise.all(buffers.map((buffer, n) => blk.read(n, buffer)));
    await Promise.resolve();
    device.run();
    expect(disk.held).toHaveLength(12);
    disk.release([...disk.held].reverse());
    await reads;
    buffers.forEach((buffer, n) => expect(buffer).toEqual(disk.bytes.subarray(n * 512, n * 512 + 512)));
    close(open);
  });

  it('announces all requests of one turn to the device at once', async () => {
    const open = openFakeDisk();
    const { blk, device } = open;
    await Promise.all([0, 1, 2, 3].map((sector) => blk.read(sector, new Uint8Array(512))));
    expect(device.notifications).toHaveLength(1);
    close(open);
  });

  it('announces non-blocking requests at once, or together by kick()', () => {
    const open = openFakeDisk();
    const { blk, device, disk } = open;
    const data = new Uint8Array(512);
    const tokens = [blk.submitRead(0, data)];
    expect(device.notifications).toHaveLength(1);
    tokens.push(blk.submitRead(1, data, { kick: false }), blk.submitRead(2, data, { kick: false }));
    expect(disk.requests).toHaveLength(1);
    blk.kick();
    expect(device.notifications).toHaveLength(2);
    expect(disk.requests).toHaveLength(3);
    for (const token of tokens) {
      expect(blk.poll()).toBe(token);
      blk.complete(token);
    }
    close(open);
  });

  it('mixes all three forms, and polls only for what is to be polled for', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.bytes.set(pattern(disk.bytes.length));
    device.automatic = false;
    const [a, b, c] = [new Uint8Array(512), new Uint8Array(512), new Uint8Array(512)];
    const promise = blk.read(0, a);
    const token = blk.submitRead(1, b);
    device.automatic = true;
    blk.readSync(2, c);
    expect(blk.poll()).toBe(token);
    expect(blk.poll()).toBe(-1);
    blk.complete(token);
    await promise;
    expect([a, b, c]).toEqual([0, 1, 2].map((n) => disk.bytes.slice(n * 512, n * 512 + 512)));
    close(open);
  });

  it('polls for what is done even if requests before it were completed unpolled', () => {
    const open = openFakeDisk();
    const { blk } = open;
    for (let n = 0; n < 3; n += 1) blk.complete(blk.submitRead(n, new Uint8Array(512)));
    const token = blk.submitRead(3, new Uint8Array(512));
    expect(blk.poll()).toBe(token);
    blk.complete(token);
    expect(blk.poll()).toBe(-1);
    close(open);
  });

  it('flushes with sector 0 and no data [5.2.6.1]', async () => {
    const open = openFakeDisk({ features: ['FLUSH'] });
    const { blk, disk } = open;
    await blk.flush();
    blk.flushSync();
    const token = blk.submitFlush();
    expect(blk.poll()).toBe(token);
    blk.complete(token);
    expect(disk.requests).toHaveLength(3);
    for (const request of disk.requests) {
      expect(request).toMatchObject({ type: RequestType.FLUSH, sector: 0 });
      expect(request.data).toHaveLength(0);
      expect(request.chain.writable).toBe(1);
    }
    close(open);
  });

  it('flushes nothing on a device that has nothing to flush [5.2.5.1]', async () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    await blk.flush();
    blk.flushSync();
    expect(() => blk.submitFlush()).toThrow(refused('UNSUPPORTED'));
    expect(disk.requests).toHaveLength(0);
    close(open);
  });

  it('asks for the device id with 20 bytes of room and ends it at the first NUL [5.2.6.1]', async () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    expect(await blk.deviceId()).toBe('fake-disk');
    disk.id = 'exactly-20-characters';
    expect(blk.deviceIdSync()).toBe('exactly-20-character');
    disk.id = '';
    expect(blk.deviceIdSync()).toBe('');
    expect(disk.requests[0]).toMatchObject({ type: RequestType.GET_ID, sector: 0 });
    expect(disk.requests[0]?.chain.writable).toBe(21);
    close(open);
  });

  it('tells how worn the storage is', async () => {
    const open = openFakeDisk({ features: ['LIFETIME'] });
    const { blk, disk } = open;
    expect(await blk.lifetime()).toEqual({ preEol: 'normal', typeA: 3, typeB: 11 });
    disk.lifetime = [0, 0, 0];
    expect(blk.lifetimeSync()).toEqual({ preEol: undefined, typeA: undefined, typeB: undefined });
    disk.lifetime = [3, 0, 12];
    await expect(blk.lifetime()).rejects.toThrow(refused('DEVICE_MISBEHAVED'));
    disk.lifetime = [4, 0, 0];
    expect(() => blk.lifetimeSync()).toThrow(refused('DEVICE_MISBEHAVED'));
    close(open);
  });

  it('refuses to ask for the lifetime if the device does not tell it', async () => {
    const open = openFakeDisk();
    await expect(open.blk.lifetime()).rejects.toThrow(refused('UNSUPPORTED'));
    expect(() => open.blk.lifetimeSync()).toThrow(refused('UNSUPPORTED'));
    close(open);
  });

  it('takes the cache for writethrough without FLUSH, and for writeback with it [5.2.5.1]', () => {
    const none = openFakeDisk();
    expect(none.blk.writeCache()).toBe('writethrough');
    close(none);
    const flush = openFakeDisk({ features: ['FLUSH'] });
    expect(flush.blk.writeCache()).toBe('writeback');
    expect(() => flush.blk.setWriteCache('writethrough')).toThrow(refused('UNSUPPORTED'));
    close(flush);
  });

  it('reads and switches the mode of the cache, never before FEATURES_OK [5.2.5.1]', () => {
    const open = openFakeDisk({ features: ['FLUSH', 'CONFIG_WCE'], config: { writeback: 1 } });
    const { blk, device, transport } = open;
    const { writeback } = BlkConfigLayout.offset;
    const early: number[] = [];
    device.onConfigRead = (offset) => {
      if (offset === writeback && (transport.getStatus().bits & 8) === 0) early.push(offset);
    };
    expect(blk.writeCache()).toBe('writeback');
    for (const mode of ['', 'none', 1, undefined]) {
      expect(() => blk.setWriteCache(mode as never)).toThrow(refused('INVALID_PARAM'));
    }
    blk.setWriteCache('writethrough');
    expect(device.config[writeback]).toBe(0);
    expect(blk.writeCache()).toBe('writethrough');
    blk.setWriteCache('writeback');
    expect(device.config[writeback]).toBe(1);
    blk.reset();
    expect(early).toEqual([]);
    close(open);
  });

  it('reports a change of the capacity, and takes no other for one [5.2.6.1]', async () => {
    const open = openFakeDisk({ sectors: 100 });
    const { blk, device, disk } = open;
    disk.answer = () => 0;
    const seen: number[] = [];
    const off = blk.on('capacity', (capacity) => seen.push(capacity));
    device.changeConfig((config) => config.setBigUint64(0, 200n, true));
    await Promise.resolve();
    expect(seen).toEqual([200]);
    expect(blk.capacity).toBe(200);
    blk.writeSync(199, new Uint8Array(512));
    device.changeConfig((config) => config.setUint8(BlkConfigLayout.offset.heads, 1));
    await Promise.resolve();
    device.changeConfig((config) => config.setBigUint64(0, 50n, true));
    await Promise.resolve();
    expect(seen).toEqual([200, 50]);
    expect(() => blk.writeSync(199, new Uint8Array(512))).toThrow(refused('INVALID_PARAM'));
    off();
    device.changeConfig((config) => config.setBigUint64(0, 60n, true));
    await Promise.resolve();
    expect(seen).toEqual([200, 50]);
    expect(blk.capacity).toBe(60);
    close(open);
  });

  it('notices a change of the capacity by polling where there are no interrupts', () => {
    const open = openFakeDisk({ sectors: 100, interrupts: false });
    const { blk, device } = open;
    const seen: number[] = [];
    blk.on('capacity', (capacity) => seen.push(capacity));
    device.changeConfig((config) => config.setBigUint64(0, 7n, true));
    blk.pollEvents();
    blk.pollEvents();
    expect(seen).toEqual([7]);
    close(open);
  });

  it('refuses promises, before anything is sent, where there are no interrupts', async () => {
    const open = openFakeDisk({ interrupts: false, features: ['FLUSH'] });
    const { blk, disk } = open;
    await expect(blk.read(0, new Uint8Array(512))).rejects.toThrow(refused('UNSUPPORTED'));
    await expect(blk.flush()).rejects.toThrow(refused('UNSUPPORTED'));
    expect(disk.requests).toHaveLength(0);
    blk.readSync(0, new Uint8Array(512));
    expect(disk.requests).toHaveLength(1);
    close(open);
  });

  it('accepts RO and all features of requests, and neither BARRIER nor SCSI [5.2.6.1]', () => {
    const open = openFakeDisk({
      features: ['RO', 'BARRIER', 'SCSI', 'FLUSH', 'SIZE_MAX', 'SEG_MAX', 'GEOMETRY', 'BLK_SIZE', 'TOPOLOGY'],
    });
    expect(open.blk.features.names()).toEqual([
      'SIZE_MAX',
      'SEG_MAX',
      'GEOMETRY',
      'RO',
      'BLK_SIZE',
      'FLUSH',
      'TOPOLOGY',
      'VERSION_1',
    ]);
    expect(open.blk.readOnly).toBe(true);
    close(open);
  });

  it('drives a legacy device: split ring, its own status descriptor, lengths ignored [5.2.6.3, 5.2.6.4]', async () => {
    const open = openFakeDisk({
      legacy: true,
      features: ['FLUSH', 'CONFIG_WCE', 'ZONED'],
      config: { writeback: 1 },
    });
    const { blk, disk, device } = open;
    expect(blk.features.has('ZONED')).toBe(false);
    await blk.write(1, [pattern(256), pattern(256)]);
    expect(disk.requests[0]?.chain.elements.map(({ length }) => length)).toEqual([16, 256, 256, 1]);
    const back = new Uint8Array(512);
    blk.readSync(1, back);
    expect(back).toEqual(disk.bytes.subarray(512, 1024));
    // A legacy device that reports nothing written, and one that reports too much.
    for (const length of [0, 1, 100_000]) {
      device.handle(0, (chain) => {
        chain.write(new Uint8Array(512).fill(length & 0xff)).write([0]);
        chain.complete(length);
      });
      blk.readSync(1, back);
      expect(back[511]).toBe(length & 0xff);
    }
    expect(blk.writeCache()).toBe('writeback');
    close(open);
  });
});
