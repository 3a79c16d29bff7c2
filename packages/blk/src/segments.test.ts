/** Requests whose data takes more segments than a chain holds: refused by their name before the device sees them. */
import { describe, expect, it } from 'vitest';
import { openFakeDisk } from '../examples/fake-disk.ts';
import { BlkConfigLayout, BlkZones } from './index.ts';

const tooMany = (request: string): Error =>
  expect.objectContaining({
    code: 'INVALID_PARAM',
    message: expect.stringMatching(
      new RegExp(
        `${request}: the data takes \\d+ segments, of up to \\d+ bytes, but a request holds at most \\d+`,
      ),
    ) as string,
  }) as Error;

describe('a device with very small segments', () => {
  it('gets no discard that takes more of them than one request holds [5.2.6.1]', async () => {
    const opened = openFakeDisk({
      sectors: 10_000,
      features: ['DISCARD', 'SIZE_MAX'],
      config: { sizeMax: 16, segMax: 4, maxDiscardSectors: 100, maxDiscardSeg: 200 },
    });
    const { blk, device, disk } = opened;
    const ranges = Array.from({ length: 5 }, (_, i) => ({ sector: i * 10, sectors: 1 }));
    await expect(blk.discard(ranges)).rejects.toEqual(tooMany('DISCARD'));
    expect(() => blk.discardSync(ranges)).toThrow(tooMany('DISCARD'));
    expect(() => blk.submitDiscard(ranges)).toThrow(tooMany('DISCARD'));
    expect(disk.requests).toHaveLength(0);
    await blk.discard(ranges.slice(1));
    expect(disk.requests).toHaveLength(1);
    blk[Symbol.dispose]();
    device.assertClean();
  });

  it('is not asked for what does not fit its queue', () => {
    const { blk } = openFakeDisk({ features: ['LIFETIME', 'SIZE_MAX'], queues: [4], config: { sizeMax: 2 } });
    expect(() => blk.deviceIdSync()).toThrow(tooMany('GET_ID'));
    expect(() => blk.lifetimeSync()).toThrow(tooMany('GET_LIFETIME'));
  });

  it('is not asked for a report of zones that does not fit its queue', () => {
    const { blk } = openFakeDisk({
      features: ['ZONED', 'SIZE_MAX'],
      queues: [8],
      config: { sizeMax: 64, segMax: 1000, zoneSectors: 64, writeGranularity: 512, model: 1 },
    });
    const zones = new BlkZones(blk);
    expect(() => zones.reportSync(0, 6)).toThrow(/a report of 6 zones is too long for one request/);
  });
});

it('a read that waits for room while the device makes its segments smaller takes as many as it then needs', async () => {
  const opened = openFakeDisk({
    sectors: 100,
    features: ['SIZE_MAX'],
    queues: [8],
    config: { sizeMax: 4096, segMax: 6 },
  });
  const { blk, device, disk } = opened;
  disk.bytes.fill(7);
  disk.holdBack = true;
  const small = Array.from({ length: 4 }, () => new Uint8Array(1024));
  const large = new Uint8Array(4096);
  const reads = [...small, large].map((buffer, i) => blk.read(i, buffer));
  for (let i = 0; i < 10; i += 1) await Promise.resolve();
  expect(disk.held).toHaveLength(2);
  device.changeConfig((config) => {
    config.setUint32(BlkConfigLayout.offset.sizeMax, 256, true);
  });
  disk.holdBack = false;
  disk.release();
  const results = await Promise.allSettled(reads);
  expect(results.slice(0, 4).map(({ status }) => status)).toEqual(new Array(4).fill('fulfilled'));
  for (const buffer of small) expect(buffer).toEqual(new Uint8Array(1024).fill(7));
  // 16 segments are more than the queue holds.
  expect(results[4]).toMatchObject({ status: 'rejected', reason: { code: 'INVALID_PARAM' } });
  await blk.read(0, new Uint8Array(1024));
  blk[Symbol.dispose]();
  device.assertClean();
});
