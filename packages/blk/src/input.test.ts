/** What the driver refuses before the device sees it, and what it cuts to the device's measure. */
import { describe, expect, it } from 'vitest';
import { type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import type { BlkData } from './index.ts';

const refused = (code: string, message = /./): Error =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;

/** Asks for a transfer in all six ways and expects that each is refused and the device saw none of it. */
async function expectRefused(
  { blk, disk, device }: OpenDisk,
  sector: number,
  data: BlkData,
  message: RegExp,
  ways: readonly ('read' | 'write')[] = ['read', 'write'],
): Promise<void> {
  const error = refused('INVALID_PARAM', message);
  for (const way of ways) {
    await expect(blk[way](sector, data)).rejects.toThrow(error);
    expect(() => blk[`${way}Sync`](sector, data)).toThrow(error);
    expect(() => blk[way === 'read' ? 'submitRead' : 'submitWrite'](sector, data)).toThrow(error);
  }
  device.run();
  expect(disk.requests).toHaveLength(0);
  expect(device.notifications).toHaveLength(0);
  expect(device.hal.shares).toHaveLength(0);
}

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

describe('what VirtioBlk refuses', () => {
  it('refuses sectors beyond the capacity [5.2.6.1]', async () => {
    const open = openFakeDisk({ sectors: 100 });
    await expectRefused(
      open,
      100,
      new Uint8Array(512),
      /(read|write) \(.*sector: 100, sectors: 1 .* 100 sectors of 512 bytes/,
    );
    await expectRefused(open, 99, new Uint8Array(1024), /sector: 99, sectors: 2 /);
    await expectRefused(open, 2 ** 53, new Uint8Array(512), /9007199254740992/);
    open.blk.readSync(99, new Uint8Array(512));
    expect(open.disk.requests).toHaveLength(1);
    close(open);
  });

  it('refuses what is no sector number', async () => {
    const open = openFakeDisk();
    for (const sector of [-1, 0.5, NaN, Infinity, -Infinity]) {
      await expectRefused(open, sector, new Uint8Array(512), /not a range of the disk/);
    }
    await expectRefused(open, '7' as unknown as number, new Uint8Array(512), /sector: 7 \(string\)/);
    await expectRefused(open, 7n as unknown as number, new Uint8Array(512), /sector: 7 \(bigint\)/);
    close(open);
  });

  it('refuses lengths that are not multiples of 512 bytes [5.2.6.1]', async () => {
    const open = openFakeDisk();
    for (const length of [1, 511, 513, 1000]) {
      await expectRefused(open, 0, new Uint8Array(length), /multiple of 512/);
    }
    await expectRefused(open, 0, [new Uint8Array(512), new Uint8Array(4)], /516 bytes/);
    close(open);
  });

  it('refuses to transfer nothing, or an empty buffer among others', async () => {
    const open = openFakeDisk();
    await expectRefused(open, 0, new Uint8Array(0), /0 bytes/);
    await expectRefused(open, 0, [], /0 bytes/);
    await expectRefused(open, 0, [new Uint8Array(512), new Uint8Array(0)], /buffer 1 is empty/);
    close(open);
  });

  it('refuses what are no bytes, among others and alone', async () => {
    const open = openFakeDisk();
    const wrong: readonly (readonly [unknown, RegExp])[] = [
      [undefined, /Uint8Array was expected, and undefined was given/],
      [512, /a number/],
      ['x'.repeat(512), /a string/],
      [new ArrayBuffer(512), /type ArrayBuffer/],
      [new Uint32Array(512), /type Uint32Array/],
      [new DataView(new ArrayBuffer(512)), /type DataView/],
    ];
    for (const [data, message] of wrong) {
      await expectRefused(open, 0, data as Uint8Array, message);
      await expectRefused(open, 0, [new Uint8Array(512), data as Uint8Array], message);
    }
    close(open);
  });

  it('refuses a buffer whose memory was given away', async () => {
    const open = openFakeDisk();
    const buffer = new Uint8Array(512);
    buffer.buffer.transfer();
    await expectRefused(open, 0, buffer, /0 bytes/);
    close(open);
  });

  it('refuses to change a read-only disk in any way, and reads it', async () => {
    const open = openFakeDisk({ features: ['RO', 'DISCARD', 'WRITE_ZEROES', 'SECURE_ERASE'] });
    const { blk, disk } = open;
    await expectRefused(open, 0, new Uint8Array(512), /read-only/, ['write']);
    const range = { sector: 0, sectors: 1 };
    const readOnly = refused('INVALID_PARAM', /read-only/);
    await expect(blk.discard(range)).rejects.toThrow(readOnly);
    expect(() => blk.writeZeroesSync(range)).toThrow(readOnly);
    expect(() => blk.submitSecureErase(range)).toThrow(readOnly);
    expect(disk.requests).toHaveLength(0);
    await blk.read(0, new Uint8Array(512));
    close(open);
  });

  it('refuses tokens that are none', () => {
    const open = openFakeDisk();
    const { blk } = open;
    for (const token of [-1, 0.5, NaN, 0, 7, 64, 1 << 15, 2 ** 32, 2 ** 40]) {
      expect(() => blk.complete(token)).toThrow(refused('WRONG_TOKEN'));
    }
    for (const token of [0n, 1n, Symbol('token'), '0', null, undefined, {}]) {
      expect(() => blk.complete(token as number)).toThrow(refused('WRONG_TOKEN'));
      expect(() => {
        blk.cancel(token as number);
      }).toThrow(refused('WRONG_TOKEN'));
    }
    const token = blk.submitRead(0, new Uint8Array(512));
    expect(() => blk.complete(token + 2 ** 32)).toThrow(refused('WRONG_TOKEN'));
    blk.complete(token);
    expect(() => blk.complete(token)).toThrow(refused('WRONG_TOKEN'));
    close(open);
  });

  it('does not complete a request that is not done, or that somebody else waits for', async () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    disk.holdBack = true;
    const token = blk.submitRead(0, new Uint8Array(512));
    expect(() => blk.complete(token)).toThrow(refused('NOT_READY'));
    disk.release();
    expect(blk.poll()).toBe(token);
    blk.complete(token);
    disk.holdBack = false;
    const promise = blk.read(0, new Uint8Array(512));
    expect(() => blk.complete(token)).toThrow(refused('WRONG_TOKEN'));
    await promise;
    close(open);
  });
});

describe('what VirtioBlk cuts to measure', () => {
  it('cuts a buffer that is longer than size_max into segments', async () => {
    const open = openFakeDisk({ features: ['SIZE_MAX'], config: { sizeMax: 1000 } });
    const { blk, disk } = open;
    const data = pattern(2048 + 512);
    await blk.write(2, [data.subarray(0, 2048), data.subarray(2048)]);
    const lengths = disk.requests[0]?.chain.elements.map(({ length }) => length);
    expect(lengths).toEqual([16, 1000, 1000, 48, 512, 1]);
    const back = new Uint8Array(2560);
    await blk.read(2, back);
    expect(disk.requests[1]?.chain.elements.map(({ length }) => length)).toEqual([16, 1000, 1000, 560, 1]);
    expect(back).toEqual(data);
    close(open);
  });

  it('cuts a buffer at no more than size_max when it fits exactly', () => {
    const open = openFakeDisk({ features: ['SIZE_MAX'], config: { sizeMax: 1024 } });
    open.blk.readSync(0, new Uint8Array(2048));
    expect(open.disk.requests[0]?.chain.elements.map(({ length }) => length)).toEqual([16, 1024, 1024, 1]);
    close(open);
  });

  it('takes a size_max of 0 for none', () => {
    const open = openFakeDisk({ features: ['SIZE_MAX'] });
    expect(open.blk.config.sizeMax).toBe(Infinity);
    open.blk.readSync(0, new Uint8Array(8192));
    expect(open.disk.requests[0]?.chain.elements).toHaveLength(3);
    close(open);
  });

  it('sends one segment to a device that does not say how many it takes', () => {
    const open = openFakeDisk({ segMax: false });
    expect(open.blk.maxSegments).toBe(1);
    expect(() => open.blk.readSync(0, [new Uint8Array(512), new Uint8Array(512)])).toThrow(
      refused('INVALID_PARAM', /2 segments, .* holds at most 1/),
    );
    open.blk.readSync(0, new Uint8Array(1024));
    close(open);
  });

  it('refuses queues in which no request fits', () => {
    expect(() => openFakeDisk({ queues: [2] })).toThrow(refused('UNSUPPORTED', /2 descriptors/));
  });

  it('refuses more segments than seg_max, and sends as many as that', async () => {
    const open = openFakeDisk({ features: ['SEG_MAX'], config: { segMax: 3 } });
    const { blk, disk } = open;
    expect(blk.maxSegments).toBe(3);
    const buffers = (count: number): Uint8Array[] => Array.from({ length: count }, () => new Uint8Array(512));
    await expectRefused(open, 0, buffers(4), /4 segments, .* holds at most 3/);
    await blk.read(0, buffers(3));
    expect(disk.requests[0]?.chain.elements).toHaveLength(5);
    close(open);
  });

  it('counts the segments that size_max makes against seg_max', async () => {
    const open = openFakeDisk({ features: ['SEG_MAX', 'SIZE_MAX'], config: { segMax: 2, sizeMax: 512 } });
    await expectRefused(open, 0, new Uint8Array(1536), /3 segments/);
    open.blk.readSync(0, new Uint8Array(1024));
    close(open);
  });

  it('refuses chains that are longer than the queue, with tables and without [2.7.5.3.1]', async () => {
    for (const ring of [0n, 1n << 28n]) {
      const open = openFakeDisk({ ring, queues: [8] });
      expect(open.blk.maxSegments).toBe(6);
      const buffers = Array.from({ length: 7 }, () => new Uint8Array(512));
      await expectRefused(open, 0, buffers, /7 segments/);
      open.blk.readSync(0, buffers.slice(1));
      close(open);
    }
  });

  it('cuts the data of other requests as well', () => {
    const open = openFakeDisk({ features: ['SIZE_MAX'], config: { sizeMax: 8 } });
    expect(open.blk.deviceIdSync()).toBe('fake-disk');
    expect(open.disk.requests[0]?.chain.elements.map(({ length }) => length)).toEqual([16, 8, 8, 4, 1]);
    close(open);
  });
});
