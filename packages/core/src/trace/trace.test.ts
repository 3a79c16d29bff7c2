import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { DeviceType } from '../device/device-type.ts';
import { Driver } from '../device/driver.ts';
import { FeatureTable } from '../device/features.ts';
import { Transport } from '../device/transport.ts';
import type { Hal } from '../memory/hal.ts';
import type { RequestQueue } from '../queues/request-queue.ts';
import { VirtioError } from '../errors.ts';
import type { PostingHal } from '../threads/queue-plan.ts';
import { traceTransport } from './trace.ts';
import { TracedTransport } from './traced-transport.ts';
import { formatTraceEvent, type TraceEvent, type TraceOptions } from './trace-event.ts';

const Table = new FeatureTable('EchoFeatures', { LOUD: 3 });

/** A driver that sends two bytes and gets two back, in a buffer of its caller's. */
class EchoDriver extends Driver<'LOUD'> {
  readonly #requests: RequestQueue<number>;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Table, supported: ['LOUD'] });
    this.#requests = this.setUp(() => this.createRequestQueue<number>({ index: 0, size: 4 }));
    this.start();
  }

  echo(out: Uint8Array, into: Uint8Array): number {
    return this.#requests.requestSync<number>({
      buffers: 2,
      fill: (slot) => {
        this.#requests.shareReadable(slot, out);
        this.#requests.shareWritable(slot, into);
      },
      result: (_slot, usedLength) => usedLength,
    });
  }
}

function setUp(features = 0n, options: TraceOptions = {}) {
  const device = new FakeDevice({
    type: DeviceType.Crypto,
    features: features | 8n,
    queues: [4],
    config: new Uint8Array(8),
  });
  device.handle(0, (chain) => {
    chain.write(chain.read().reverse());
  });
  const events: TraceEvent[] = [];
  const transport = new FakeTransport(device);
  const traced = traceTransport(transport, device.hal, (event) => events.push(event), {
    features: Table,
    ...options,
  });
  return { device, transport, traced, events, lines: () => events.map(formatTraceEvent) };
}

describe('traceTransport', () => {
  it('tells registers by name, in the order of initialization [3.1.1]', () => {
    const { traced, lines, device } = setUp();
    const driver = new EchoDriver(traced.transport, traced.hal);
    expect(driver.features.has('LOUD')).toBe(true);
    const told = lines().filter((line) => /device_status|_feature|queue_/.test(line));
    expect(told.map((line) => line.replace(/0x[0-9a-f]{4,}/, 'N'))).toEqual([
      'write device_status = 0x0 (reset)',
      'read  device_status = 0x0 (0)',
      'read  device_status = 0x0 (0)',
      'write device_status = 0x1 (ACKNOWLEDGE)',
      'read  device_status = 0x1 (ACKNOWLEDGE)',
      'write device_status = 0x3 (ACKNOWLEDGE | DRIVER)',
      'read  device_feature = N (LOUD | VERSION_1)',
      'write driver_feature = N (LOUD | VERSION_1)',
      'read  device_status = 0x3 (ACKNOWLEDGE | DRIVER)',
      'write device_status = 0xb (ACKNOWLEDGE | DRIVER | FEATURES_OK)',
      'read  device_status = 0xb (ACKNOWLEDGE | DRIVER | FEATURES_OK)',
      'read  queue_size[0] = 0x4',
      'read  queue_enable[0] = 0x0',
      'write queue_size[0] = 0x4',
      'write queue_desc[0] = N',
      'write queue_driver[0] = N',
      'write queue_device[0] = N',
      'write queue_enable[0] = 0x1',
      'read  device_status = 0xb (ACKNOWLEDGE | DRIVER | FEATURES_OK)',
      'write device_status = 0xf (ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK)',
    ]);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  describe.each(ringVariants)('over a ring: $name', ({ features }) => {
    it('tells each chain when it is published and when it is used', () => {
      const { traced, events, device } = setUp(features);
      {
        using driver = new EchoDriver(traced.transport, traced.hal);
        events.length = 0;
        const into = new Uint8Array(3);
        for (let n = 0; n < 9; n++) expect(driver.echo(Uint8Array.of(n, 2, 3), into)).toBe(3);
        const chains = events.filter(({ kind }) => kind === 'published' || kind === 'used');
        expect(chains.map(({ kind }) => kind)).toEqual(
          Array.from({ length: 9 }, () => ['published', 'used']).flat(),
        );
        for (let n = 0; n < chains.length; n += 2) {
          const [published, used] = chains.slice(n, n + 2);
          expect(published).toMatchObject({
            queue: 0,
            buffers: [
              { length: 3, writable: false, bytes: undefined },
              { length: 3, writable: true, bytes: undefined },
            ],
          });
          expect(used).toMatchObject({ queue: 0, length: 3, token: (published as { token: number }).token });
        }
      }
      device.assertClean();
    });
  });

  it('carries the first bytes of buffers, if they are asked for', () => {
    const { traced, lines } = setUp(0n, { bytes: 2 });
    using driver = new EchoDriver(traced.transport, traced.hal);
    driver.echo(Uint8Array.of(1, 2, 3), new Uint8Array(3));
    const told = lines().filter((line) => /queue 0|data/.test(line));
    expect(told.map((line) => line.replace(/0x[0-9a-f]+/, 'N'))).toEqual([
      'queue 0: published 0: 3 bytes > 01 02 …, 3 bytes <',
      'notify queue 0',
      'queue 0: used 0, 3 bytes written',
      'data at N: 3 bytes < 03 02 …',
    ]);
  });

  it('tells of interrupts and of a reset', async () => {
    const { traced, events, device, lines } = setUp();
    using driver = new EchoDriver(traced.transport, traced.hal);
    events.length = 0;
    driver.reset();
    expect(lines()).toContain('queue 0: emptied and given to the device again');
    events.length = 0;
    device.changeConfig(() => undefined);
    await vi.waitFor(() => expect(lines()).toContain('interrupt: configuration changed'));
  });

  it('names the registers of MMIO as its section does [4.2.2]', () => {
    const { traced, lines } = setUp(0n, { names: 'mmio' });
    using driver = new EchoDriver(traced.transport, traced.hal);
    driver.echo(new Uint8Array(1), new Uint8Array(1));
    const told = lines().join('\n');
    for (const name of ['Status', 'DeviceFeatures', 'DriverFeatures', 'QueueSizeMax[0]', 'QueueReady[0]']) {
      expect(told).toContain(` ${name} = `);
    }
    expect(told).not.toContain('device_status');
  });

  it('leaves the claim on the device where it was', () => {
    const { traced, transport, device } = setUp();
    using driver = new EchoDriver(traced.transport, traced.hal);
    expect(() => new EchoDriver(transport, device.hal)).toThrow(/has a driver already/);
    driver[Symbol.dispose]();
    expect(transport.disposed).toBe(1);
    device.assertClean();
  });

  it('forwards whatever a transport may do in its own way', () => {
    // What these do is done by the others.
    const common = [
      'constructor',
      'reset',
      'beginInit',
      'finishInit',
      'readConfigSpace',
      'readConfigLayout',
      'writeConfigSpace',
      'readConsistent',
      'who',
    ];
    const own = Object.getOwnPropertyNames(TracedTransport.prototype);
    const missing = Object.getOwnPropertyNames(Transport.prototype).filter(
      (name) => !common.includes(name) && !own.includes(name),
    );
    expect(missing).toEqual([]);
  });

  it('lends queues to another thread as the transport below does', () => {
    const { traced, transport, device } = setUp();
    expect(traced.transport.lendQueue(0)).toEqual(transport.lendQueue(0));
    const region = traced.hal.dmaAlloc(1, 'both', false);
    expect((traced.hal as unknown as PostingHal).post(region.bytes)).toEqual(device.hal.post(region.bytes));
  });

  it('sets FAILED as the transport below does, and tells of it', () => {
    const { traced, lines, device } = setUp();
    traced.transport.fail(new VirtioError('DEVICE_MISBEHAVED', 'it lied'));
    expect(device.status.bits).toBe(128);
    expect(lines()).toContain('write device_status = 0x80 (FAILED)');
  });

  it('has a listener that throws disturb nothing', async () => {
    const { device } = setUp();
    const errors: unknown[] = [];
    const seen = (error: unknown): number => errors.push(error);
    process.on('unhandledRejection', seen);
    try {
      const { transport, hal } = traceTransport(new FakeTransport(device), device.hal, () => {
        throw new Error('thrown by the listener');
      });
      {
        using driver = new EchoDriver(transport, hal);
        const into = new Uint8Array(3);
        for (let n = 0; n < 9; n += 1) expect(driver.echo(Uint8Array.of(n, 2, 3), into)).toBe(3);
      }
      await new Promise((resolve) => setTimeout(resolve, 0));
    } finally {
      process.off('unhandledRejection', seen);
    }
    expect(errors.length).toBeGreaterThan(20);
    expect(errors[0]).toEqual(new Error('thrown by the listener'));
    device.assertClean();
  });

  it('survives a listener that resets the driver in the middle of an answer', () => {
    const { device } = setUp();
    let driver: EchoDriver | undefined;
    const traced = traceTransport(new FakeTransport(device), device.hal, ({ kind }) => {
      if (kind !== 'used') return;
      const one = driver;
      driver = undefined;
      one?.reset();
    });
    using open = new EchoDriver(traced.transport, traced.hal);
    const into = new Uint8Array(3);
    driver = open;
    expect(() => open.echo(Uint8Array.of(1, 2, 3), into)).toThrow(/was reset/);
    for (let n = 0; n < 9; n += 1) expect(open.echo(Uint8Array.of(n, 2, 3), into)).toBe(3);
  });

  it('survives a buffer that is transferred before it is given back', () => {
    const { traced, events, device } = setUp(0n, { bytes: 8 });
    using driver = new EchoDriver(traced.transport, traced.hal);
    const into = new Uint8Array(3);
    device.handle(0, (chain) => {
      chain.write(chain.read());
      into.buffer.transfer();
    });
    expect(() => driver.echo(Uint8Array.of(1, 2, 3), into)).toThrow(/transferred/);
    expect(events.filter(({ kind }) => kind === 'data')).toEqual([]);
  });

  it('refuses a number of bytes that is none', () => {
    for (const bytes of [NaN, -1, 0.5, '8' as never]) expect(() => setUp(0n, { bytes })).toThrow(/bytes is/);
  });

  it('names the registers of a legacy MMIO device as its section does [4.2.4]', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, features: 8n, queues: [4], legacy: true });
    const lines: string[] = [];
    const traced = traceTransport(
      new FakeTransport(device),
      device.hal,
      (event) => lines.push(formatTraceEvent(event)),
      { names: 'mmio', features: Table },
    );
    using driver = new EchoDriver(traced.transport, traced.hal);
    expect(driver.failure).toBeUndefined();
    const told = lines.join('\n');
    for (const name of ['HostFeatures', 'GuestFeatures', 'QueueNum[0]', 'QueueAlign[0]', 'QueuePFN[0]']) {
      expect(told).toContain(` ${name} = `);
    }
    expect(told).not.toContain('QueueDesc');
  });
});
