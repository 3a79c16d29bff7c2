import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { DeviceStatus } from './device-status.ts';
import { DeviceType } from './device-type.ts';
import { VirtioError } from '../errors.ts';
import { FeatureTable } from './features.ts';
import { Layout } from '../memory/layout.ts';
import { coded } from '../../test/helpers.ts';

const { ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED, DEVICE_NEEDS_RESET } = DeviceStatus;
const Blk = new FeatureTable('BlkFeatures', { RO: 5, FLUSH: 9 });
const Config = new Layout('config', {
  capacity: 'u64',
  sizeMax: 'u32',
  heads: 'u8',
  mac: 'bytes3',
  offset: 'i32',
});

const Guarded = new Layout('guarded', { status: 'u8 read-only', clear: 'u8 write-only', mode: 'u16' });

function make(options: Partial<ConstructorParameters<typeof FakeDevice>[0]> = {}) {
  const device = new FakeDevice({ type: DeviceType.Block, config: 24, ...options });
  return { device, transport: new FakeTransport(device, { name: 'fake 7' }) };
}

describe('beginInit and finishInit', () => {
  it('follows the steps of initialization in order [3.1.1]', () => {
    const { device, transport } = make({ features: Blk.set('FLUSH').bits });
    const calls: string[] = [];
    for (const name of [
      'setStatus',
      'getStatus',
      'readDeviceFeatures',
      'writeDriverFeatures',
      'writeConfig',
    ] as const) {
      const original = transport[name].bind(transport) as (...args: unknown[]) => unknown;
      vi.spyOn(transport, name).mockImplementation((...args: unknown[]) => {
        calls.push(name === 'setStatus' ? String(args[0]) : name);
        return original(...args) as never;
      });
    }
    transport.beginInit({ table: Blk, supported: ['FLUSH'] });
    transport.finishInit();
    expect(calls.filter((call) => call !== 'getStatus')).toEqual([
      'DeviceStatus(0)',
      'DeviceStatus(ACKNOWLEDGE)',
      'DeviceStatus(ACKNOWLEDGE | DRIVER)',
      'readDeviceFeatures',
      'writeDriverFeatures',
      'DeviceStatus(ACKNOWLEDGE | DRIVER | FEATURES_OK)',
      'DeviceStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK)',
    ]);
    device.assertObeyed();
  });

  it('re-reads status after FEATURES_OK [3.1.1]', () => {
    const { device, transport } = make({ features: Blk.set('FLUSH').bits });
    device.acceptsFeatures = () => false;
    expect(() => transport.beginInit({ table: Blk, supported: ['FLUSH'] })).toThrow(
      expect.objectContaining({
        code: 'FEATURES_REFUSED',
        message: expect.stringContaining('does not accept BlkFeatures(FLUSH | VERSION_1)') as string,
      }) as Error,
    );
    expect(device.status.has(FAILED)).toBe(true);
  });

  it('adds status bits and never clears one [2.1.1]', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    transport.finishInit();
    device.needsReset();
    transport.fail(new VirtioError('IO_ERROR', 'x'));
    expect(device.statusWrites).toEqual([
      0,
      ACKNOWLEDGE,
      ACKNOWLEDGE | DRIVER,
      ACKNOWLEDGE | DRIVER | FEATURES_OK,
      ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
      ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | DEVICE_NEEDS_RESET | FAILED,
    ]);
  });

  it('resets a failed device before it initializes it again [2.1.1]', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    transport.fail(new VirtioError('IO_ERROR', 'x'));
    transport.beginInit({ table: Blk, supported: [] });
    expect(device.statusWrites.slice(4)).toEqual([
      ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED,
      0,
      ACKNOWLEDGE,
      ACKNOWLEDGE | DRIVER,
      ACKNOWLEDGE | DRIVER | FEATURES_OK,
    ]);
    device.assertObeyed();
  });

  it('accepts only what is offered and supported [2.2.1]', () => {
    const unknown = (1n << 50n) | (1n << 60n) | (1n << 7n);
    const { device, transport } = make({ features: Blk.set('FLUSH', 'SR_IOV', 'EVENT_IDX').bits | unknown });
    const features = transport.beginInit({ table: Blk, supported: ['RO', 'FLUSH', 'INDIRECT_DESC'] });
    expect(features.names()).toEqual(['FLUSH', 'VERSION_1']);
    expect(device.accepted).toBe(Blk.set('FLUSH', 'VERSION_1').bits);
  });

  it('does not accept features of the modern rings from a legacy device [2.2.1]', () => {
    const { device, transport } = make({ legacy: true });
    device.features = Blk.set('FLUSH', 'INDIRECT_DESC', 'RING_PACKED', 'VERSION_1').bits;
    const features = transport.beginInit({
      table: Blk,
      supported: ['FLUSH', 'INDIRECT_DESC', 'RING_PACKED'],
    });
    expect(features.names()).toEqual(['FLUSH', 'INDIRECT_DESC']);
  });

  it('leaves FEATURES_OK out on a legacy device [3.1.2]', () => {
    const { device, transport } = make({ legacy: true });
    transport.beginInit({ table: Blk, supported: [] });
    transport.finishInit();
    expect(device.statusWrites).toEqual([
      0,
      ACKNOWLEDGE,
      ACKNOWLEDGE | DRIVER,
      ACKNOWLEDGE | DRIVER | DRIVER_OK,
    ]);
    expect(transport.guestPageSize).toBe(4096);
  });

  it('refuses a modern device that does not offer VERSION_1 [6.1]', () => {
    const { device, transport } = make();
    device.features = Blk.set('FLUSH').bits;
    expect(() => transport.beginInit({ table: Blk, supported: ['FLUSH'] })).toThrow(/lacks VERSION_1/);
    expect(device.status.has(FAILED)).toBe(true);
  });

  it('sets FAILED and names the features that the device lacks [2.2.1]', () => {
    const { device, transport } = make({ features: Blk.set('RO').bits });
    expect(() =>
      transport.beginInit({ table: Blk, supported: ['RO', 'FLUSH'], required: ['RO', 'FLUSH'] }),
    ).toThrow(
      expect.objectContaining({
        code: 'FEATURES_REFUSED',
        message:
          'Block device (fake 7) lacks FLUSH, which the driver needs; it offers BlkFeatures(RO | VERSION_1) ' +
          '(see @virtio/core/errors.md#features_refused)',
      }) as Error,
    );
    expect(device.statusWrites.at(-1)).toBe(ACKNOWLEDGE | DRIVER | FAILED);
    expect(device.accepted).toBe(0n);
  });
});

describe('reset', () => {
  it('waits until the status reads as 0 [2.4.2]', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    device.resetReads = 5;
    const read = vi.spyOn(transport, 'getStatus');
    transport.reset();
    expect(read.mock.calls.length).toBeGreaterThan(5);
    expect(device.status.bits).toBe(0);
  });

  it('gives up on a device that does not finish', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    device.resetHangs = true;
    let now = 0;
    using clock = vi.spyOn(Date, 'now').mockImplementation(() => (now += 100));
    expect(() => {
      transport.reset();
    }).toThrow(coded('NOT_READY'));
    expect(clock).toHaveBeenCalled();
  });

  it('tells a device that was unplugged', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    device.remove();
    expect(() => {
      transport.reset();
    }).toThrow(coded('DEVICE_REMOVED'));
    expect(() => {
      transport.checkAlive();
    }).toThrow(coded('DEVICE_REMOVED'));
    const before = device.statusWrites.length;
    transport.fail(new VirtioError('IO_ERROR', 'x'));
    expect(device.statusWrites).toHaveLength(before);
  });

  it('tells a device that needs a reset', () => {
    const { device, transport } = make();
    transport.beginInit({ table: Blk, supported: [] });
    transport.checkAlive();
    device.needsReset();
    expect(() => {
      transport.checkAlive();
    }).toThrow(coded('DEVICE_NEEDS_RESET'));
  });
});

describe('the configuration space', () => {
  const bytes = Uint8Array.of(
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    0x10,
    0x20,
    0x30,
    0x40,
    9,
    10,
    11,
    12,
    0xfe,
    0xff,
    0xff,
    0xff,
  );

  it('is read at the width of each field', () => {
    const { device, transport } = make({ config: bytes });
    const reads: string[] = [];
    device.onConfigRead = (offset, width) => reads.push(`${offset}/${width}`);
    expect(transport.readConfigSpace(Config.fields.capacity)).toBe(0x0807060504030201n);
    expect(transport.readConfigSpace(Config.fields.sizeMax)).toBe(0x40302010);
    expect(transport.readConfigSpace(Config.fields.heads)).toBe(9);
    expect([...transport.readConfigSpace(Config.fields.mac)]).toEqual([10, 11, 12]);
    expect(transport.readConfigSpace(Config.fields.offset)).toBe(-2);
    expect(reads).toEqual(['0/4', '4/4', '8/4', '12/1', '13/1', '14/1', '15/1', '16/4']);
  });

  it('reads wide fields again when the generation changes [2.5.1]', () => {
    const { device, transport } = make({ config: bytes });
    let changes = 2;
    device.onConfigRead = (offset) => {
      if (offset !== 4 || changes === 0) return;
      changes -= 1;
      // Between the halves of the capacity.
      device.changeConfig((config) => {
        config.setUint32(0, changes, true);
        config.setUint32(4, changes, true);
      });
    };
    expect(transport.readConfigSpace(Config.fields.capacity)).toBe(0n);
    changes = 1;
    expect(transport.readConfigLayout(Config)).toMatchObject({ capacity: 0n, heads: 9 });
  });

  it('gives up on a configuration that never settles', () => {
    const { device, transport } = make({ config: bytes });
    device.onConfigRead = () => {
      device.changeConfig(() => undefined);
    };
    expect(() => transport.readConfigSpace(Config.fields.capacity)).toThrow(coded('NOT_READY'));
  });

  it('accepts a configuration space that is larger than needed [2.5.1]', () => {
    const { transport } = make({ config: 4096 });
    expect(transport.readConfigSpace(Config.fields.offset)).toBe(0);
  });

  it('is not touched where it is too small or missing', () => {
    const { device, transport } = make({ config: 10 });
    const read = vi.fn();
    device.onConfigRead = read;
    expect(() => transport.readConfigSpace(Config.fields.sizeMax)).toThrow(coded('CONFIG_SPACE_TOO_SMALL'));
    expect(() => transport.readConfigLayout(Config)).toThrow(coded('CONFIG_SPACE_TOO_SMALL'));
    expect(() => {
      transport.writeConfigSpace(Config.fields.heads, 1);
    }).toThrow(coded('CONFIG_SPACE_TOO_SMALL'));
    expect(() => make({ config: 0 }).transport.readConfigSpace(Config.fields.heads)).toThrow(
      coded('CONFIG_SPACE_MISSING'),
    );
    expect(read).not.toHaveBeenCalled();
  });

  it('is neither read where it is write-only nor written where it is read-only', () => {
    const { device, transport } = make({ config: Uint8Array.of(1, 2, 3, 0) });
    transport.beginInit({ table: Blk, supported: [] });
    const touched: string[] = [];
    device.onConfigRead = (offset) => touched.push(`read ${offset}`);
    device.onConfigWrite = (offset) => touched.push(`write ${offset}`);
    const { status, clear, mode } = Guarded.fields;
    // @ts-expect-error -- the field is write-only
    expect(() => transport.readConfigSpace(clear)).toThrow(coded('INVALID_PARAM'));
    expect(() => {
      // @ts-expect-error -- the field is read-only
      transport.writeConfigSpace(status, 5);
    }).toThrow(coded('INVALID_PARAM'));
    const values = transport.readConfigLayout(Guarded);
    expect(values).toEqual({ status: 1, mode: 3 });
    // @ts-expect-error -- the field is write-only
    expect(values.clear).toBeUndefined();
    expect(touched).toEqual(['read 0', 'read 2']);

    expect(transport.readConfigSpace(status)).toBe(1);
    transport.writeConfigSpace(clear, 1);
    transport.writeConfigSpace(mode, 7);
    expect(transport.readConfigSpace(mode)).toBe(7);
    expect(touched).toEqual(['read 0', 'read 2', 'read 0', 'write 1', 'write 2', 'read 2']);
  });

  it('is written at the width of each field', () => {
    const { device, transport } = make({ config: 20 });
    transport.beginInit({ table: Blk, supported: [] });
    const writes: string[] = [];
    device.onConfigWrite = (offset, width, value) => writes.push(`${offset}/${width}=${value}`);
    transport.writeConfigSpace(Config.fields.capacity, 0x100000002n);
    transport.writeConfigSpace(Config.fields.heads, 3);
    transport.writeConfigSpace(Config.fields.mac, Uint8Array.of(4, 5, 6));
    expect(writes).toEqual(['0/4=2', '4/4=1', '12/1=3', '13/1=4', '14/1=5', '15/1=6']);
    device.assertObeyed();
  });
});
