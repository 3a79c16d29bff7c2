import { describe, expect, it } from 'vitest';
import { DISCARDED, ERASED, type OpenDisk, openFakeDisk, segments } from '../examples/fake-disk.ts';
import { BlkConfigLayout, RequestType, type SectorRange } from './index.ts';

const refused = (code: string, message = /./): Error =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

const submitName = {
  discard: 'submitDiscard',
  writeZeroes: 'submitWriteZeroes',
  secureErase: 'submitSecureErase',
} as const;

describe.each([
  {
    name: 'discard',
    type: RequestType.DISCARD,
    feature: 'DISCARD',
    left: DISCARDED,
    config: { maxDiscardSectors: 100, maxDiscardSeg: 3, discardSectorAlignment: 8 },
  },
  {
    name: 'writeZeroes',
    type: RequestType.WRITE_ZEROES,
    feature: 'WRITE_ZEROES',
    left: 0,
    config: { maxWriteZeroesSectors: 100, maxWriteZeroesSeg: 3 },
  },
  {
    name: 'secureErase',
    type: RequestType.SECURE_ERASE,
    feature: 'SECURE_ERASE',
    left: ERASED,
    config: { maxSecureEraseSectors: 100, maxSecureEraseSeg: 3, secureEraseSectorAlignment: 8 },
  },
] as const)('$name', ({ name, type, feature, left, config }) => {
  const open = (): OpenDisk => openFakeDisk({ sectors: 1000, features: [feature], config });

  it('works on the range that is given, in all three forms', async () => {
    const opened = open();
    const { blk, disk } = opened;
    disk.bytes.fill(1);
    await blk[name]({ sector: 1, sectors: 2 });
    blk[`${name}Sync`]({ sector: 4, sectors: 1 });
    const token = blk[submitName[name]]({ sector: 6, sectors: 1 });
    expect(blk.poll()).toBe(token);
    blk.complete(token);
    const states = Array.from({ length: 8 }, (_, sector) => disk.bytes[sector * 512 + 511]);
    expect(states).toEqual([1, left, left, 1, left, 1, left, 1]);
    expect(disk.requests.map((request) => [request.type, request.sector])).toEqual([
      [type, 0],
      [type, 0],
      [type, 0],
    ]);
    close(opened);
  });

  it('sends several ranges as segments of one request, with no flag set [5.2.6.1]', () => {
    const opened = open();
    const ranges = [
      { sector: 900, sectors: 100 },
      { sector: 0, sectors: 1 },
      { sector: 5, sectors: 2 },
    ];
    opened.blk[`${name}Sync`](ranges);
    expect(opened.disk.requests).toHaveLength(1);
    const { data, chain } = opened.disk.requests[0] ?? expect.unreachable();
    expect(data).toHaveLength(48);
    expect(segments(data)).toEqual(ranges.map((range) => ({ ...range, flags: 0 })));
    expect(chain.writable).toBe(1);
    close(opened);
  });

  it('refuses more segments than the device takes [5.2.6.1]', async () => {
    const opened = open();
    const { blk, disk } = opened;
    const tooMany = Array.from({ length: 4 }, (_, sector): SectorRange => ({ sector, sectors: 1 }));
    await expect(blk[name](tooMany)).rejects.toThrow(refused('INVALID_PARAM', /3 segments of up to 100/));
    expect(() => blk[`${name}Sync`]({ sector: 0, sectors: 301 })).toThrow(refused('INVALID_PARAM'));
    expect(() => blk[submitName[name]]({ sector: 0, sectors: 1000 })).toThrow(refused('INVALID_PARAM'));
    expect(disk.requests).toHaveLength(0);
    close(opened);
  });

  it('refuses ranges that are none, or not on the disk', () => {
    const opened = open();
    const { blk, disk } = opened;
    for (const range of [
      [],
      { sector: 0, sectors: 0 },
      { sector: -1, sectors: 2 },
      { sector: 0.5, sectors: 1 },
      { sector: 0, sectors: 1.5 },
      { sector: 0, sectors: NaN },
      null as never,
      [null as never],
      'all' as never,
      { sector: 999, sectors: 2 },
      { sector: 1000, sectors: 1 },
      [
        { sector: 0, sectors: 1 },
        { sector: 0, sectors: 2 ** 53 },
      ],
    ]) {
      expect(() => blk[`${name}Sync`](range)).toThrow(refused('INVALID_PARAM'));
    }
    expect(disk.requests).toHaveLength(0);
    close(opened);
  });

  it('refuses if the device did not offer it', async () => {
    const opened = openFakeDisk();
    await expect(opened.blk[name]({ sector: 0, sectors: 1 })).rejects.toThrow(
      refused('UNSUPPORTED', new RegExp(feature)),
    );
    expect(opened.disk.requests).toHaveLength(0);
    close(opened);
  });

  it('gives the failure of the whole request, saying nothing of single segments [5.2.6.1]', async () => {
    const opened = open();
    opened.disk.answer = () => 1;
    await expect(opened.blk[name]([{ sector: 0, sectors: 1 }])).rejects.toThrow(refused('IO_ERROR'));
    opened.disk.answer = undefined;
    await opened.blk[name]([{ sector: 0, sectors: 1 }]);
    close(opened);
  });
});

describe('ranges that are longer than a segment', () => {
  it('are cut into segments, at the alignment of the device', () => {
    const opened = openFakeDisk({
      sectors: 1000,
      features: ['DISCARD'],
      config: { maxDiscardSectors: 100, maxDiscardSeg: 5, discardSectorAlignment: 8 },
    });
    opened.blk.discardSync([
      { sector: 3, sectors: 250 },
      { sector: 500, sectors: 100 },
    ]);
    const { data } = opened.disk.requests[0] ?? expect.unreachable();
    expect(segments(data)).toEqual([
      { sector: 3, sectors: 93, flags: 0 },
      { sector: 96, sectors: 96, flags: 0 },
      { sector: 192, sectors: 61, flags: 0 },
      { sector: 500, sectors: 100, flags: 0 },
    ]);
    close(opened);
  });

  it('are cut wherever they must be if the alignment is more than a segment', () => {
    const opened = openFakeDisk({
      sectors: 1000,
      features: ['DISCARD'],
      config: { maxDiscardSectors: 100, maxDiscardSeg: 5, discardSectorAlignment: 512 },
    });
    opened.blk.discardSync({ sector: 450, sectors: 250 });
    const { data } = opened.disk.requests[0] ?? expect.unreachable();
    expect(segments(data).map(({ sector, sectors }) => [sector, sectors])).toEqual([
      [450, 62],
      [512, 100],
      [612, 88],
    ]);
    close(opened);
  });

  it('take no longer for a device with absurd limits', () => {
    const opened = openFakeDisk({
      config: { capacity: 2n ** 60n, maxDiscardSectors: 1, maxDiscardSeg: 0xffffffff },
      features: ['DISCARD'],
    });
    expect(() => opened.blk.discardSync({ sector: 0, sectors: 2 ** 52 })).toThrow(refused('INVALID_PARAM'));
    close(opened);
  });
});

describe('writeZeroes', () => {
  it('sets unmap only if it is asked to', async () => {
    const opened = openFakeDisk({ features: ['WRITE_ZEROES'] });
    const { blk, disk } = opened;
    await blk.writeZeroes({ sector: 0, sectors: 1 }, { unmap: true });
    blk.writeZeroesSync({ sector: 0, sectors: 1 }, { unmap: false });
    blk.complete(blk.submitWriteZeroes({ sector: 0, sectors: 1 }, { unmap: true }));
    expect(disk.requests.map(({ data }) => segments(data)[0]?.flags)).toEqual([1, 0, 1]);
    close(opened);
  });

  it('shows when the device changes its mind about unmapping', async () => {
    const opened = openFakeDisk({ features: ['WRITE_ZEROES'] });
    const { blk, device } = opened;
    expect(blk.config.writeZeroes?.mayUnmap).toBe(false);
    device.changeConfig((config) => config.setUint8(BlkConfigLayout.offset.writeZeroesMayUnmap, 1));
    await Promise.resolve();
    expect(blk.config.writeZeroes?.mayUnmap).toBe(true);
    close(opened);
  });
});
