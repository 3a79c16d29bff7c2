/** What callers, listeners and devices do at the worst moment, and what callers without types give. */
import { FakeDevice, FakeInterrupts, FakePolling, FakeTransport } from '@virtio/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BufferDriver } from './device/buffer-driver.ts';
import { DeviceType } from './device/device-type.ts';
import { CommonFeatures, FeatureTable } from './device/features.ts';
import { VirtioError } from './errors.ts';
import type { Hal } from './memory/hal.ts';
import type { ReceiveQueue } from './queues/receive-queue.ts';
import type { Request } from './queues/request.ts';
import type { RequestQueue } from './queues/request-queue.ts';
import type { TransmitQueue } from './queues/transmit-queue.ts';
import { BufferChains } from './ring/buffer-chains.ts';
import { createQueue } from './ring/create-queue.ts';
import { traceTransport } from './trace/trace.ts';
import type { TraceEvent } from './trace/trace-event.ts';
import type { Transport } from './device/transport.ts';
import { coded, turns } from '../test/helpers.ts';

const Features = new FeatureTable<never>('Features', {});

/** One queue of each kind, of four descriptors. */
class Sample extends BufferDriver<never> {
  readonly requests: RequestQueue<number>;
  readonly receive: ReceiveQueue;
  readonly transmit: TransmitQueue;
  changes = 0;
  /** Called when the configuration has changed. */
  changed: (() => void) | undefined;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Features, supported: [] });
    [this.requests, this.receive, this.transmit] = this.setUp(() => [
      this.createRequestQueue<number>({ index: 0, size: 4 }),
      this.createReceiveQueue({ index: 1, size: 4, bufferSize: 8, receive: () => false }),
      this.createTransmitQueue({ index: 2, size: 4, bufferSize: 8 }),
    ]);
    this.start();
  }

  request(buffer = new Uint8Array(4)): Request<number> {
    return {
      buffers: 1,
      fill: (slot) => {
        this.requests.shareWritable(slot, buffer);
      },
      result: (_slot, usedLength) => usedLength,
    };
  }

  protected override onConfigChange(): void {
    this.changes += 1;
    this.changed?.();
  }
}

function make(
  prepare?: (device: FakeDevice) => void,
  interrupts: FakeInterrupts | false = new FakeInterrupts(),
) {
  const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4, 4, 4], config: 4 });
  device.automatic = false;
  prepare?.(device);
  const transport = new FakeTransport(device, { interrupts });
  const driver = new Sample(transport, device.hal);
  const failures: string[] = [];
  driver.on('failure', ({ code }) => failures.push(code));
  /** The device says that it has used more than it has. */
  const lie = (queue: number): void => {
    device.hal.view(device.queues[queue]?.deviceArea ?? 0, 4, 'write').set([0, 0, 99, 0]);
  };
  return { device, transport, driver, failures, lie };
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('a lie of the device', () => {
  it('that is found when interrupts are enabled fails the driver, and ends what waits', async () => {
    const { driver, failures, lie } = make();
    const waiting = driver.requests.request(driver.request());
    waiting.catch(() => undefined);
    await turns();
    lie(0);
    expect(() => driver.enableInterrupts()).toThrow(coded('DEVICE_MISBEHAVED'));
    expect(failures).toEqual(['DEVICE_MISBEHAVED']);
    await expect(waiting).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    driver[Symbol.dispose]();
  });

  it('that is found between drains is reported by the next one', async () => {
    const { driver, failures, lie } = make();
    const waits = [driver.requests.request(driver.request()), driver.receive.wait()];
    for (const wait of waits) wait.catch(() => undefined);
    await turns();
    lie(1);
    expect(() => driver.receive.queue.hasUsed()).toThrow(coded('DEVICE_MISBEHAVED'));
    driver.receive.drain();
    expect(failures).toEqual(['DEVICE_MISBEHAVED']);
    for (const wait of waits) await expect(wait).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    driver.reset();
    lie(0);
    driver.requests.submitRequest(driver.request());
    expect(() => driver.requests.queue.hasUsed()).toThrow(coded('DEVICE_MISBEHAVED'));
    driver.requests.drain();
    driver.requests.drain();
    expect(failures).toEqual(['DEVICE_MISBEHAVED', 'DEVICE_MISBEHAVED']);
    driver[Symbol.dispose]();
  });

  it('that is found by pollEvents, and makes a listener dispose the driver, ends there', () => {
    const { driver, transport, device, lie } = make(undefined, false);
    const touched = vi.spyOn(transport, 'readConfigGeneration');
    driver.on('failure', () => {
      driver[Symbol.dispose]();
    });
    driver.requests.submitRequest(driver.request());
    lie(0);
    touched.mockClear();
    driver.pollEvents();
    expect(driver.failure?.code).toBe('DISPOSED');
    expect(touched).not.toHaveBeenCalled();
    device.assertClean();
  });

  it('that makes a listener reset the driver and cancel the call: the call ends', async () => {
    const { driver, device, lie } = make();
    const all = Array.from({ length: 4 }, () => driver.requests.request(driver.request()));
    for (const one of all) one.catch(() => undefined);
    const controller = new AbortController();
    driver.on('failure', () => {
      driver.reset();
      controller.abort();
    });
    await turns();
    lie(0);
    const late = driver.requests.request(driver.request(), { signal: controller.signal });
    await expect(late).rejects.toThrow(coded('ABORTED'));
    expect(device.hal.shares).toHaveLength(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('that makes a listener reset the driver and transfer the bytes: no buffer is lost', () => {
    const { driver, lie } = make();
    const { transmit } = driver;
    expect(transmit.write(new Uint8Array(32))).toBe(32);
    const bytes = new Uint8Array(8);
    driver.on('failure', () => {
      driver.reset();
      bytes.buffer.transfer();
    });
    lie(2);
    expect(transmit.write(bytes)).toBe(0);
    expect(transmit.available).toBe(4);
    driver[Symbol.dispose]();
  });
});

describe('a configuration', () => {
  it('that changes while the driver is made is read again', () => {
    const { driver } = make(
      (device) => {
        device.onDriverOk = () => {
          device.changeConfig((config) => {
            config.setUint32(0, 7, true);
          });
        };
      },
      new FakeInterrupts({ synchronous: true }),
    );
    expect(driver.changes).toBe(1);
    driver[Symbol.dispose]();
  });
});

describe('a clock that is set back', () => {
  /** An hour back at the third look, then on by a millisecond a look; a wait that does not end by that fails. */
  function setBack(): void {
    let looks = 0;
    vi.spyOn(Date, 'now').mockImplementation(() => {
      looks += 1;
      if (looks > 20_000) throw new Error('it waits for an hour');
      return 7_200_000 + looks - (looks > 2 ? 3_600_000 : 0);
    });
  }

  it('makes no call spin longer', () => {
    const { driver } = make();
    setBack();
    const spinning = (): unknown => driver.requests.requestSync(driver.request(), { timeoutMs: 10 });
    expect(spinning).toThrow(coded('NOT_READY'));
    setBack();
    expect(() => {
      driver.receive.spin(() => false, { timeoutMs: 10 });
    }).toThrow(coded('NOT_READY'));
    vi.restoreAllMocks();
    driver[Symbol.dispose]();
  });

  it('makes no reset wait longer for a device that hangs', () => {
    const { driver, device } = make();
    device.resetHangs = true;
    setBack();
    expect(() => {
      driver.reset();
    }).toThrow(coded('NOT_READY'));
  });
});

describe('callers without types', () => {
  it('name no request by what is no number', () => {
    const { driver } = make();
    for (const token of [1n, Symbol('token'), '0', {}, null, undefined]) {
      expect(() => driver.requests.complete(token as number)).toThrow(coded('WRONG_TOKEN'));
      expect(() => {
        driver.requests.cancel(token as number);
      }).toThrow(coded('WRONG_TOKEN'));
    }
    driver[Symbol.dispose]();
  });

  it('cancel by a signal that listeners can be removed from', async () => {
    const { driver } = make();
    const signal = { aborted: false, addEventListener: () => undefined } as unknown as AbortSignal;
    await expect(driver.requests.request(driver.request(), { signal })).rejects.toThrow(
      coded('INVALID_PARAM'),
    );
    await expect(driver.receive.wait({ signal })).rejects.toThrow(coded('INVALID_PARAM'));
    expect(driver.requests.inFlight).toBe(0);
    driver[Symbol.dispose]();
  });

  it('fail a driver with an error, or not at all', async () => {
    const { driver, failures, device } = make();
    const asked = driver.requests.request(driver.request()).catch((error: unknown) => error);
    for (const nothing of [undefined, null, 'failed', 5]) {
      expect(() => driver.fail(nothing as unknown as VirtioError)).toThrow(coded('INVALID_PARAM'));
    }
    expect(driver.failure).toBeUndefined();
    expect(failures).toEqual([]);
    driver.fail(new VirtioError('ABORTED', 'enough'));
    await expect(asked).resolves.toEqual(coded('ABORTED'));
    expect(failures).toEqual(['ABORTED']);
    driver.reset();
    device.automatic = true;
    device.handle(0, (chain) => void chain.write([1]));
    for (let n = 0; n < 8; n += 1) await expect(driver.requests.request(driver.request())).resolves.toBe(1);
    driver[Symbol.dispose]();
  });

  it('make queues with numbers, which the error names', () => {
    const open = (options: object): unknown => {
      const device = new FakeDevice({
        type: DeviceType.Crypto,
        features: CommonFeatures.set('INDIRECT_DESC').bits,
      });
      const transport = new FakeTransport(device);
      const features = transport.beginInit({ table: Features, supported: ['INDIRECT_DESC'] });
      return createQueue(transport, device.hal, features, { index: 0, ...options }).size;
    };
    expect(open({ size: 8, tableLength: 4 })).toBe(8);
    for (const size of [0, NaN, 1.5, '8', 8n, 32769]) expect(() => open({ size })).toThrow(/queueSize/);
    for (const tableLength of [-1, NaN, 2.5, '4', 4n]) {
      expect(() => open({ tableLength })).toThrow(coded('INVALID_PARAM'));
    }
    for (const index of [-1, NaN, 0.5, '0', 0n]) {
      expect(() => open({ index })).toThrow(coded('INVALID_PARAM'));
    }
    expect(() => open({ index: 65_536 })).toThrow(coded('UNSUPPORTED'));
  });
});

describe('chains of buffers', () => {
  it('are made of bytes only', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4] });
    const transport = new FakeTransport(device);
    const features = transport.beginInit({ table: Features, supported: [] });
    const chains = BufferChains.of(createQueue(transport, device.hal, features, { index: 0 }));
    for (const wrong of [[1, 2], 5, 'ab', null, undefined, Uint16Array.of(1)]) {
      const buffer = wrong as unknown as Uint8Array;
      expect(() => chains.add([buffer], [])).toThrow(coded('INVALID_PARAM'));
      expect(() => chains.add([], [new Uint8Array(4), buffer])).toThrow(coded('INVALID_PARAM'));
    }
    expect(device.hal.shares).toHaveLength(0);
    expect(chains.queue.availableDescriptors).toBe(4);
  });
});

describe('a trace', () => {
  it('lets the driver see whether the source of interrupts polls by itself', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto });
    const interrupts = new FakePolling();
    const events: TraceEvent[] = [];
    const { transport } = traceTransport(new FakeTransport(device, { interrupts }), device.hal, (event) =>
      events.push(event),
    );
    expect(transport.interrupts?.lookout).toBe(interrupts.lookout);
    const polled = vi.fn<() => void>();
    transport.interrupts?.onQueue(0, polled);
    transport.interrupts?.hold();
    interrupts.turn();
    expect(polled).toHaveBeenCalledOnce();
    expect(
      events.map(({ kind }) => kind),
      'polls are no interrupts',
    ).not.toContain('interrupt');
    const plain = traceTransport(new FakeTransport(device), device.hal, () => undefined);
    expect(plain.transport.interrupts?.lookout).toBeUndefined();
  });

  it('keeps the bytes of a Node.js Buffer, whose `slice` does not copy', async () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4, 4, 4], config: 4 });
    device.handle(0, (chain) => {
      chain.write([1, 2, 3, 4]);
    });
    const events: TraceEvent[] = [];
    const traced = traceTransport(new FakeTransport(device), device.hal, (event) => events.push(event), {
      bytes: 4,
    });
    const driver = new Sample(traced.transport, traced.hal);
    const buffer = Buffer.alloc(4);
    await driver.requests.request(driver.request(buffer));
    buffer.fill(9);
    const data = events.filter((event) => event.kind === 'data');
    expect(data.map(({ bytes }) => [...bytes])).toEqual([[1, 2, 3, 4]]);
    driver[Symbol.dispose]();
  });
});

describe('a device that interrupts within a reset', () => {
  const RING_RESET = CommonFeatures.set('RING_RESET').bits;

  function makeOwn() {
    const interrupts = new FakeInterrupts({ synchronous: true });
    const made = make((device) => (device.features |= RING_RESET), interrupts);
    /** The device does something once, within a call of the transport's. */
    const within = (call: 'readDeviceFeatures' | 'queueReset' | 'queueSet', act: () => void): void => {
      const { transport } = made;
      const own = transport[call].bind(transport) as (...args: unknown[]) => never;
      const spy = vi.spyOn(transport, call);
      spy.mockImplementation((...args: unknown[]) => {
        spy.mockRestore();
        const result = own(...args);
        act();
        return result;
      });
    };
    const change = (): void => {
      made.device.changeConfig(() => undefined);
      interrupts.fireConfig();
    };
    return { ...made, within, change };
  }

  it.each(['readDeviceFeatures', 'queueSet'] as const)(
    'of the device (%s): a change is told once the device is live, to a listener that disposes the driver',
    (call) => {
      const { device, driver, within, change } = makeOwn();
      driver.changed = () => {
        expect(device.status.has(4), 'DRIVER_OK').toBe(true);
        driver[Symbol.dispose]();
      };
      within(call, change);
      expect(() => {
        driver.reset();
      }).toThrow(coded('DISPOSED'));
      expect(driver.changes).toBe(1);
      device.assertClean();
    },
  );

  it.each(['queueReset', 'queueSet'] as const)(
    'of a queue (%s): a change is told afterwards, to a listener that resets the queue again',
    (call) => {
      const { device, driver, within, change } = makeOwn();
      driver.changed = () => {
        driver.resetQueue(1);
      };
      within(call, change);
      driver.resetQueue(1);
      expect(driver.changes).toBe(1);
      const sent = Array.from({ length: 5 }, () => device.send(1, [1]));
      expect(sent, 'buffers that the device has').toEqual([true, true, true, true, false]);
      driver[Symbol.dispose]();
      device.assertClean();
    },
  );

  it('to say that it is removed, is not taken for one that works', () => {
    const { device, driver, failures, within } = makeOwn();
    within('readDeviceFeatures', () => {
      device.remove();
    });
    expect(() => {
      driver.reset();
    }).toThrow(coded('DEVICE_REMOVED'));
    expect(driver.failure?.code).toBe('DEVICE_REMOVED');
    expect(failures, 'its caller was told').toEqual([]);
  });

  it('of a queue to say that it is removed, fails the driver', () => {
    const { device, driver, failures, within } = makeOwn();
    within('queueSet', () => {
      device.remove();
    });
    driver.resetQueue(0);
    expect(failures).toEqual(['DEVICE_REMOVED']);
    expect(driver.requests.failure?.code).toBe('DEVICE_REMOVED');
    driver[Symbol.dispose]();
    device.hal.assertClean();
  });

  it('while the driver is made, to say that it is removed: the driver learns of it when it is complete', () => {
    const failed: unknown[] = [];
    class Own extends Sample {
      protected override onFailure(): void {
        failed.push((this.requests as unknown) !== undefined);
      }
    }
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4, 4, 4], config: 4 });
    const transport = new FakeTransport(device, { interrupts: new FakeInterrupts({ synchronous: true }) });
    device.onDriverOk = () => {
      device.remove();
    };
    const driver = new Own(transport, device.hal);
    expect(driver.failure?.code).toBe('DEVICE_REMOVED');
    expect(failed).toEqual([true]);
  });
});
