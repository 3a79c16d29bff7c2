import { describe, expect, it } from 'vitest';
import { type DiskRequest, type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import { BlkConfigLayout, BlkZones, RequestStatus, RequestType } from './index.ts';

const failed = (code: string, message = /./): Error =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;

const ZONE = 16;
const characteristics = {
  model: 1,
  zoneSectors: ZONE,
  maxOpenZones: 2,
  maxActiveZones: 3,
  maxAppendSectors: 8,
  writeGranularity: 1024,
};

const IMPLICIT = 2;

/** The zones of a host-managed disk: the first one conventional, the last one smaller. */
class ZoneModel {
  readonly states = [0, 1, 1, 1];
  readonly pointers = [0, ZONE, 2 * ZONE, 3 * ZONE];
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  answer({ type, sector, data, chain }: DiskRequest): number | undefined {
    const zone = Math.floor(sector / ZONE);
    switch (type) {
      case RequestType.ZONE_REPORT:
        chain.write(this.#report(zone, (chain.writable - 65) / 64));
        return RequestStatus.OK;
      case RequestType.ZONE_OPEN:
        return this.#change(zone, 3);
      case RequestType.ZONE_CLOSE:
        return this.#change(zone, 4);
      case RequestType.ZONE_FINISH:
        return this.#change(zone, 14);
      case RequestType.ZONE_RESET:
        this.pointers[zone] = zone * ZONE;
        return this.#change(zone, 1);
      case RequestType.ZONE_RESET_ALL:
        for (let n = 1; n < 4; n += 1) {
          this.pointers[n] = n * ZONE;
          this.states[n] = 1;
        }
        return RequestStatus.OK;
      case RequestType.ZONE_APPEND: {
        const at = this.pointers[zone] ?? 0;
        this.#bytes.set(data, at * 512);
        this.pointers[zone] = at + data.length / 512;
        this.states[zone] = IMPLICIT;
        const appended = new DataView(new ArrayBuffer(8));
        appended.setBigUint64(0, BigInt(at), true);
        chain.write(new Uint8Array(appended.buffer));
        return RequestStatus.OK;
      }
      default:
        return undefined;
    }
  }

  #change(zone: number, state: number): number {
    if (zone === 0) return RequestStatus.ZONE_INVALID_CMD;
    this.states[zone] = state;
    return RequestStatus.OK;
  }

  #report(first: number, most: number): Uint8Array {
    const count = Math.min(most, 4 - first);
    const view = new DataView(new ArrayBuffer(64 + most * 64));
    view.setBigUint64(0, BigInt(count), true);
    for (let n = 0; n < count; n += 1) {
      const zone = first + n;
      const at = 64 + n * 64;
      view.setBigUint64(at, BigInt(zone === 3 ? 4 : 12), true);
      view.setBigUint64(at + 8, BigInt(zone * ZONE), true);
      view.setBigUint64(at + 16, BigInt(this.pointers[zone] ?? 0), true);
      view.setUint8(at + 24, zone === 0 ? 1 : 2);
      view.setUint8(at + 25, this.states[zone] ?? 0);
    }
    return new Uint8Array(view.buffer);
  }
}

function openZoned(): OpenDisk & { readonly zones: BlkZones; readonly model: ZoneModel } {
  const open = openFakeDisk({ sectors: 3 * ZONE + 4, features: ['ZONED'], config: characteristics });
  const model = new ZoneModel(open.disk.bytes);
  open.disk.answer = (request) => model.answer(request);
  return { ...open, zones: new BlkZones(open.blk), model };
}

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

describe('a zoned disk', () => {
  it('says how it behaves [5.2.4]', () => {
    const open = openZoned();
    expect(open.zones.characteristics).toEqual({ ...characteristics, model: 'host-managed' });
    expect(open.zones.count).toBe(4);
    close(open);
  });

  it('is none without the feature, or if it is managed by the drive [5.2.4]', () => {
    const none = openFakeDisk({ config: characteristics });
    expect(none.blk.config.zoned).toBeUndefined();
    expect(() => new BlkZones(none.blk)).toThrow(failed('UNSUPPORTED', /is not zoned/));
    close(none);
    const drive = openFakeDisk({ features: ['ZONED'], config: { ...characteristics, model: 0 } });
    expect(drive.blk.config.zoned).toBeUndefined();
    expect(() => new BlkZones(drive.blk)).toThrow(failed('UNSUPPORTED'));
    expect(drive.blk.features.has('ZONED')).toBe(true);
    close(drive);
  });

  it('is accepted whatever its model is, with DISCARD unless it is host-managed [5.2.5.1]', () => {
    for (const [model, accepted] of [
      [1, false],
      [2, true],
      [0, true],
    ] as const) {
      const open = openFakeDisk({ features: ['ZONED', 'DISCARD'], config: { ...characteristics, model } });
      expect(open.blk.features.has('ZONED')).toBe(true);
      expect(open.blk.features.has('DISCARD')).toBe(accepted);
      close(open);
    }
  });

  it('reports its zones', async () => {
    const open = openZoned();
    const { zones, model, disk } = open;
    model.states[2] = 14;
    expect(await zones.report()).toEqual([
      { start: 0, capacity: 12, writePointer: undefined, type: 'conventional', state: 'not-write-pointer' },
      { start: 16, capacity: 12, writePointer: 16, type: 'sequential-write-required', state: 'empty' },
      { start: 32, capacity: 12, writePointer: undefined, type: 'sequential-write-required', state: 'full' },
      { start: 48, capacity: 4, writePointer: 48, type: 'sequential-write-required', state: 'empty' },
    ]);
    expect(zones.reportSync(20, 2).map(({ start }) => start)).toEqual([16, 32]);
    expect(disk.requests[1]).toMatchObject({ type: RequestType.ZONE_REPORT, sector: 20 });
    close(open);
  });

  it('is asked for zones that it has only [5.2.6.1]', async () => {
    const open = openZoned();
    const { zones, disk } = open;
    for (const sector of [-1, 52, 0.5, NaN]) {
      await expect(zones.report(sector)).rejects.toThrow(failed('INVALID_PARAM'));
    }
    for (const most of [0, -1, 1.5, 65537]) {
      expect(() => zones.reportSync(0, most)).toThrow(failed('INVALID_PARAM'));
    }
    expect(disk.requests).toHaveLength(0);
    close(open);
  });

  it('is asked to open, close, finish and reset zones by their first sector [5.2.6.1]', async () => {
    const open = openZoned();
    const { zones, disk, model } = open;
    await zones.open(16);
    zones.openSync(32);
    expect(model.states).toEqual([0, 3, 3, 1]);
    await zones.close(16);
    zones.closeSync(32);
    expect(model.states).toEqual([0, 4, 4, 1]);
    await zones.finish(16);
    zones.finishSync(32);
    expect(model.states).toEqual([0, 14, 14, 1]);
    await zones.reset(16);
    zones.resetSync(32);
    expect(model.states).toEqual([0, 1, 1, 1]);
    for (const { data, chain } of disk.requests) expect([data.length, chain.writable]).toEqual([0, 1]);
    for (const sector of [1, 17, 64, -16, 0.5, NaN]) {
      await expect(zones.open(sector)).rejects.toThrow(failed('INVALID_PARAM'));
      await expect(zones.close(sector)).rejects.toThrow(failed('INVALID_PARAM'));
      await expect(zones.finish(sector)).rejects.toThrow(failed('INVALID_PARAM'));
      expect(() => zones.resetSync(sector)).toThrow(failed('INVALID_PARAM'));
    }
    expect(() => {
      zones.openSync(16n as unknown as number);
    }).toThrow(/16 \(bigint\) is not/);
    expect(disk.requests).toHaveLength(8);
    close(open);
  });

  it('is asked to reset all zones with sector 0 [5.2.6.1]', async () => {
    const open = openZoned();
    const { zones, disk, model } = open;
    await zones.finish(16);
    await zones.resetAll();
    zones.resetAllSync();
    expect(model.states).toEqual([0, 1, 1, 1]);
    expect(disk.requests.at(-1)).toMatchObject({ type: RequestType.ZONE_RESET_ALL, sector: 0 });
    close(open);
  });

  it('appends to a zone and says where [5.2.6.1]', async () => {
    const open = openZoned();
    const { zones, disk, blk } = open;
    const data = pattern(1024);
    expect(await zones.append(16, data)).toBe(16);
    expect(zones.appendSync(16, [data.subarray(0, 512), data.subarray(512)])).toBe(18);
    const { elements } = disk.requests[1]?.chain ?? expect.unreachable();
    expect(elements.map(({ length, writable }) => [length, writable])).toEqual([
      [16, false],
      [512, false],
      [512, false],
      [9, true],
    ]);
    const back = new Uint8Array(1024);
    blk.readSync(18, back);
    expect(back).toEqual(data);
    close(open);
  });

  it('is not asked to append what it cannot [5.2.6.1]', async () => {
    const open = openZoned();
    const { zones, disk, device } = open;
    const invalid = failed('INVALID_PARAM');
    await expect(zones.append(17, new Uint8Array(1024))).rejects.toThrow(invalid);
    await expect(zones.append(16, new Uint8Array(512))).rejects.toThrow(invalid);
    await expect(zones.append(16, new Uint8Array(5120))).rejects.toThrow(invalid);
    await expect(zones.append(48, new Uint8Array(3072))).rejects.toThrow(invalid);
    expect(() => zones.appendSync(16, [])).toThrow(invalid);
    device.changeConfig((config) => config.setUint32(BlkConfigLayout.offset.maxAppendSectors, 0, true));
    await Promise.resolve();
    expect(zones.characteristics.maxAppendSectors).toBe(0);
    expect(() => zones.appendSync(16, new Uint8Array(1024))).toThrow(failed('UNSUPPORTED'));
    expect(disk.requests).toHaveLength(0);
    close(open);
  });

  it('fails requests with statuses of its own', async () => {
    const open = openZoned();
    const { zones, disk, blk } = open;
    await expect(zones.open(0)).rejects.toThrow(failed('IO_ERROR', /ZONE_OPEN .*ZONE_INVALID_CMD/));
    disk.answer = () => RequestStatus.ZONE_UNALIGNED_WP;
    expect(() => blk.writeSync(17, new Uint8Array(1024))).toThrow(failed('IO_ERROR', /ZONE_UNALIGNED_WP/));
    disk.answer = () => RequestStatus.ZONE_OPEN_RESOURCE;
    expect(() => zones.openSync(16)).toThrow(failed('IO_ERROR', /ZONE_OPEN_RESOURCE/));
    disk.answer = () => RequestStatus.ZONE_ACTIVE_RESOURCE;
    expect(() => zones.openSync(16)).toThrow(failed('IO_ERROR', /ZONE_ACTIVE_RESOURCE/));
    disk.answer = () => 7;
    expect(() => zones.openSync(16)).toThrow(failed('DEVICE_MISBEHAVED'));
    close(open);
  });

  it('is not believed if its reports make no sense', async () => {
    const open = openZoned();
    const { zones, disk } = open;
    const lie = (change: (report: DataView) => void): void => {
      disk.answer = ({ chain }) => {
        const report = new DataView(new ArrayBuffer(chain.writable - 1));
        report.setBigUint64(0, 1n, true);
        report.setUint8(64 + 24, 2);
        report.setUint8(64 + 25, 1);
        change(report);
        chain.write(new Uint8Array(report.buffer));
        return 0;
      };
    };
    const misbehaved = failed('DEVICE_MISBEHAVED');
    lie((report) => report.setBigUint64(0, 3n, true));
    await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    lie((report) => report.setBigUint64(0, 2n ** 63n, true));
    await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    lie((report) => report.setUint8(64 + 24, 4));
    await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    lie((report) => report.setUint8(64 + 25, 5));
    await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    lie((report) => report.setBigUint64(64 + 8, 52n, true));
    await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    // A capacity, a first sector and a write pointer that are not those of a zone of 16 sectors.
    for (const [field, value] of [
      [0, 17n],
      [0, 2n ** 64n - 1n],
      [8, 1n],
      [16, 17n],
      [16, 2n ** 64n - 1n],
    ] as const) {
      lie((report) => report.setBigUint64(64 + field, value, true));
      await expect(zones.report(0, 2)).rejects.toThrow(misbehaved);
    }
    lie(() => undefined);
    expect(await zones.report(0, 2)).toHaveLength(1);
    disk.answer = ({ chain }) => {
      chain.write([200, 0, 0, 0, 0, 0, 0, 0]);
      return 0;
    };
    await expect(zones.append(16, new Uint8Array(1024))).rejects.toThrow(misbehaved);
    close(open);
  });
});
