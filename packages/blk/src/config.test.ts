import { describe, expect, it } from 'vitest';
import { FakeTransport } from '@virtio/testing';
import { FakeDisk, openFakeDisk } from '../examples/fake-disk.ts';
import { VirtioBlk } from './index.ts';

const broken = (code: string): Error => expect.objectContaining({ code }) as Error;

describe('the configuration of a block device', () => {
  it('is used without the features that the caller leaves out', () => {
    const { blk, disk } = openFakeDisk({
      features: ['DISCARD', 'WRITE_ZEROES', 'MQ'],
      queues: [16, 16],
      driver: { without: ['DISCARD', 'MQ', 'EVENT_IDX'] },
    });
    expect(blk.features.names()).toContain('WRITE_ZEROES');
    expect(blk.queueCount).toBe(1);
    const discarding = (): void => {
      blk.discardSync([{ sector: 0, sectors: 8 }]);
    };
    expect(discarding).toThrow(broken('UNSUPPORTED'));
    expect(disk.requests).toEqual([]);
    blk[Symbol.dispose]();
  });

  it('shows what the device says, as far as features vouch for it [5.2.4]', () => {
    const { blk, device } = openFakeDisk({
      sectors: 12345,
      features: [
        'SIZE_MAX',
        'SEG_MAX',
        'GEOMETRY',
        'BLK_SIZE',
        'TOPOLOGY',
        'MQ',
        'DISCARD',
        'WRITE_ZEROES',
        'SECURE_ERASE',
      ],
      queues: [16, 16],
      config: {
        sizeMax: 65536,
        segMax: 5,
        cylinders: 20,
        heads: 16,
        sectors: 63,
        blkSize: 4096,
        physicalBlockExp: 3,
        alignmentOffset: 1,
        minIoSize: 8,
        optIoSize: 256,
        maxDiscardSectors: 1000,
        maxDiscardSeg: 4,
        discardSectorAlignment: 8,
        maxWriteZeroesSectors: 2000,
        maxWriteZeroesSeg: 2,
        writeZeroesMayUnmap: 1,
        maxSecureEraseSectors: 3000,
        maxSecureEraseSeg: 1,
        secureEraseSectorAlignment: 16,
      },
    });
    expect(blk.config).toEqual({
      capacity: 12345,
      sizeMax: 65536,
      segMax: 5,
      blockSize: 4096,
      numQueues: 2,
      geometry: { cylinders: 20, heads: 16, sectors: 63 },
      topology: { physicalBlockExp: 3, alignmentOffset: 1, minIoSize: 8, optIoSize: 256 },
      discard: { maxSectors: 1000, maxSegments: 4, alignment: 8 },
      writeZeroes: { maxSectors: 2000, maxSegments: 2, alignment: 1, mayUnmap: true },
      secureErase: { maxSectors: 3000, maxSegments: 1, alignment: 16 },
      zoned: undefined,
    });
    expect([blk.capacity, blk.blockSize, blk.readOnly, blk.queueCount]).toEqual([12345, 4096, false, 2]);
    blk[Symbol.dispose]();
    device.assertClean();
  });

  it('reads no field but the capacity if no feature vouches for another [5.2.4]', () => {
    const disk = new FakeDisk({ segMax: false, config: { blkSize: 7, segMax: 9 } });
    const offsets = new Set<number>();
    disk.device.onConfigRead = (offset) => offsets.add(offset);
    const blk = new VirtioBlk(new FakeTransport(disk.device), disk.device.hal);
    expect([...offsets]).toEqual([0, 4]);
    expect(blk.config).toMatchObject({ sizeMax: Infinity, segMax: 1, blockSize: 512, numQueues: 1 });
    blk[Symbol.dispose]();
  });

  it('reads the capacity anew when it changes while it is read [2.5.1]', () => {
    const disk = new FakeDisk({ sectors: 1 });
    const { device } = disk;
    let reads = 0;
    device.onConfigRead = (offset) => {
      reads += 1;
      if (reads !== 2 || offset !== 4) return;
      // Between the halves, from 1 to 2^32.
      device.changeConfig((config) => config.setBigUint64(0, 1n << 32n, true));
    };
    const blk = new VirtioBlk(new FakeTransport(device), device.hal);
    expect(blk.capacity).toBe(2 ** 32);
    blk[Symbol.dispose]();
  });

  it('takes limits of zero for none, or for one segment', () => {
    const { blk } = openFakeDisk({ features: ['DISCARD'], config: { segMax: 0 } });
    expect(blk.config.discard).toEqual({ maxSectors: 0xffffffff, maxSegments: 1, alignment: 1 });
    expect(blk.config.segMax).toBe(1);
    blk[Symbol.dispose]();
  });

  it('bounds the segments that a device may ask it to hold', () => {
    const { blk } = openFakeDisk({ features: ['DISCARD'], config: { maxDiscardSeg: 0xffffffff } });
    expect(blk.config.discard?.maxSegments).toBe(256);
    blk[Symbol.dispose]();
  });

  it.each([
    ['a block size of 0', ['BLK_SIZE'], { blkSize: 0 }],
    ['a block size of 256', ['BLK_SIZE'], { blkSize: 256 }],
    ['a block size of 1000', ['BLK_SIZE'], { blkSize: 1000 }],
    ['no queues', ['MQ'], { numQueues: 0 }],
    ['an unknown zoned model', ['ZONED'], { model: 3 }],
    ['zones without sectors', ['ZONED'], { model: 1, writeGranularity: 512 }],
    ['zones without a granularity', ['ZONED'], { model: 2, zoneSectors: 8 }],
  ] as const)('refuses a device with %s and marks it as failed', (_name, features, config) => {
    const disk = new FakeDisk({ features, config });
    const open = (): unknown => new VirtioBlk(new FakeTransport(disk.device), disk.device.hal);
    expect(open).toThrow(broken('INVALID_DEVICE'));
    expect(disk.device.status.bits & 128).toBe(128);
    disk.device.assertClean();
  });

  it('refuses a device whose configuration is too small for its features, or missing', () => {
    for (const [size, code] of [
      [8, 'CONFIG_SPACE_TOO_SMALL'],
      [0, 'CONFIG_SPACE_MISSING'],
    ] as const) {
      const disk = new FakeDisk({ features: ['BLK_SIZE'] });
      Object.defineProperty(disk.device, 'config', { value: new Uint8Array(size) });
      const open = (): unknown => new VirtioBlk(new FakeTransport(disk.device), disk.device.hal);
      expect(open).toThrow(broken(code));
      disk.device.assertClean();
    }
  });

  it('refuses a device of another type', () => {
    const disk = new FakeDisk();
    Object.defineProperty(disk.device, 'type', { value: 4 });
    const open = (): unknown => new VirtioBlk(new FakeTransport(disk.device), disk.device.hal);
    expect(open).toThrow(broken('INVALID_PARAM'));
  });
});
