/** What callers do in the middle of a call of the driver's, and what a tracer must not hide. */
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { DeviceType } from './device/device-type.ts';
import { Driver } from './device/driver.ts';
import { FeatureTable } from './device/features.ts';
import { VirtioError } from './errors.ts';
import type { Hal } from './memory/hal.ts';
import type { Request } from './queues/request.ts';
import type { RequestQueue } from './queues/request-queue.ts';
import { traceTransport } from './trace/trace.ts';
import type { Transport } from './device/transport.ts';
import { coded, turns } from '../test/helpers.ts';

const Features = new FeatureTable<never>('Features', {});
const never = Symbol('still pending');

/** What a promise has become after a while. */
async function outcome(promise: Promise<unknown>): Promise<unknown> {
  let result: unknown = never;
  promise.then(
    (value) => (result = value),
    (error: unknown) => (result = error),
  );
  await turns(30);
  return result;
}

/** A driver with one queue of four descriptors. */
class Sample extends Driver<never> {
  readonly requests: RequestQueue<number>;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Features, supported: [] });
    this.requests = this.setUp(() => this.createRequestQueue<number>({ index: 0, size: 4 }));
    this.start();
  }

  request(buffer: Uint8Array = new Uint8Array(4), before?: () => void): Request<number> {
    return {
      buffers: 1,
      fill: (slot) => {
        before?.();
        this.requests.shareWritable(slot, buffer);
      },
      result: (_slot, usedLength) => usedLength,
    };
  }
}

function make() {
  const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4], config: 4 });
  device.automatic = false;
  device.handle(0, () => undefined);
  device.handle(0, () => undefined);
  const transport = new FakeTransport(device);
  const driver = new Sample(transport, device.hal);
  return { device, transport, driver };
}

describe('a driver that fails while a request is being built', () => {
  it('refuses the request, whose promise would never settle', async () => {
    const { driver, device } = make();
    const error = new VirtioError('ABORTED', 'all of it');
    const fails = driver.request(undefined, () => {
      driver.fail(error);
    });
    expect(await outcome(driver.requests.request(fails))).toBe(error);
    driver.reset();
    expect(() => driver.requests.submitRequest(fails)).toThrow(error);
    driver.reset();
    expect(() => driver.requests.requestSync(fails)).toThrow(error);
    driver.reset();
    expect(device.hal.shares).toHaveLength(0);
    expect(driver.requests.submitRequest(driver.request())).toBeGreaterThanOrEqual(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('an array that resets the driver when it is asked for its length', () => {
  it('is not shared with the request that has the slot then', () => {
    const { driver, device } = make();
    class Resetting extends Uint8Array {
      asked = 0;

      override get length(): number {
        this.asked += 1;
        if (this.asked === 1) driver.reset();
        return super.length;
      }
    }
    const resetting = new Resetting(4);
    expect(() => driver.requests.submitRequest(driver.request(resetting))).toThrow(coded('DEVICE_RESET'));
    expect(device.hal.shares).toHaveLength(0);
    const buffer = new Uint8Array(4);
    const token = driver.requests.submitRequest(driver.request(buffer));
    device.queue(0).pop()?.write([1, 2, 3, 4]).complete();
    expect(driver.requests.complete(token)).toBe(4);
    expect(buffer).toEqual(Uint8Array.of(1, 2, 3, 4));
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a promise while all requests are done and not completed', () => {
  it.each([0, 2, 4])('is refused after %i of them were returned by poll', async (polled) => {
    const { driver, device } = make();
    const tokens = Array.from({ length: 4 }, () => driver.requests.submitRequest(driver.request()));
    device.run();
    for (let n = 0; n < polled; n += 1) expect(driver.requests.poll()).toBe(tokens[n]);
    expect(await outcome(driver.requests.request(driver.request()))).toEqual(coded('QUEUE_FULL'));
    driver.requests.complete(tokens[0] as number);
    const reading = driver.requests.request(driver.request());
    await Promise.resolve();
    device.run();
    expect(await outcome(reading)).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('waits if the device has one of them, or it is not announced yet', async () => {
    const { driver, device } = make();
    for (let n = 0; n < 3; n += 1) driver.requests.submitRequest(driver.request());
    device.run();
    while (driver.requests.poll() >= 0);
    const announced = driver.requests.request(driver.request());
    const waiting = driver.requests.request(driver.request());
    expect(await outcome(waiting)).toBe(never);
    device.run();
    await Promise.resolve();
    expect(await outcome(announced)).toBe(0);
    device.run();
    expect(await outcome(waiting)).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('what a listener throws', () => {
  it.each([
    ['an object without a prototype', Object.create(null) as object],
    [
      'an object whose text throws',
      {
        toString: () => {
          throw new Error('no text');
        },
      },
    ],
  ])('may be %s: other listeners and the driver do not notice', async (_what, thrown) => {
    const { driver } = make();
    const unhandled: unknown[] = [];
    const note = (reason: unknown): void => void unhandled.push(reason);
    const before = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', note);
    try {
      const heard: string[] = [];
      driver.on('failure', () => {
        // eslint-disable-next-line @typescript-eslint/only-throw-error -- what callers without types throw
        throw thrown;
      });
      driver.on('failure', ({ code }) => heard.push(code));
      driver.fail(new VirtioError('ABORTED', 'all of it'));
      expect(heard).toEqual(['ABORTED']);
      await new Promise((resolve) => setImmediate(resolve));
      expect(unhandled).toHaveLength(1);
      expect((unhandled[0] as Error).cause).toBe(thrown);
    } finally {
      process.off('unhandledRejection', note);
      for (const listener of before) process.on('unhandledRejection', listener);
    }
    driver[Symbol.dispose]();
  });
});

describe('a device that is unplugged while its driver is made', () => {
  it('leaves no memory behind, and no driver at the transport', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4], config: 4 });
    const transport = new FakeTransport(device);
    const set = vi.spyOn(transport, 'queueSet').mockImplementation(() => {
      device.remove();
      throw transport.removed();
    });
    expect(() => new Sample(transport, device.hal)).toThrow(coded('DEVICE_REMOVED'));
    set.mockRestore();
    expect(device.hal.counts.frees).toBe(device.hal.counts.allocations);
    // Not ALREADY_USED: there is no driver that could be disposed.
    expect(() => new Sample(transport, device.hal)).toThrow(coded('DEVICE_REMOVED'));
  });
});

describe('a buffer that another thread enlarges while it is shared', () => {
  it('is given to the device as it was shared', () => {
    const { driver, device } = make();
    const memory = new SharedArrayBuffer(4, { maxByteLength: 64 });
    const buffer = new Uint8Array(memory);
    const { hal } = device;
    const share = hal.share.bind(hal);
    vi.spyOn(hal, 'share').mockImplementation((...args) => {
      const address = share(...args);
      memory.grow(64);
      return address;
    });
    driver.requests.submitRequest(driver.request(buffer));
    const lengths: number[] = [];
    device.handle(0, (chain) => {
      lengths.push(chain.writable);
    });
    device.run();
    expect(lengths).toEqual([4]);
    driver[Symbol.dispose]();
  });
});

describe('a traced transport', () => {
  /** A transport that has what transports override. */
  class Special extends FakeTransport {
    readonly calls: string[] = [];

    override reset(): void {
      this.calls.push('reset');
      super.reset();
    }

    override readConsistent<T>(read: () => T): T {
      this.calls.push('readConsistent');
      return super.readConsistent(read);
    }

    override finishInit(): void {
      this.calls.push('finishInit');
      super.finishInit();
    }
  }

  it('keeps what the transport below does in its own way', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4], config: 8, legacy: true });
    const transport = new Special(device);
    const traced = traceTransport(transport, device.hal, () => undefined);
    const driver = new Sample(traced.transport, traced.hal);
    expect(transport.calls).toEqual(['reset', 'finishInit']);
    expect(traced.transport.readConsistent(() => 5)).toBe(5);
    expect(transport.calls).toEqual(['reset', 'finishInit', 'readConsistent']);
    const stuck = new VirtioError('NOT_READY', 'it did not stop');
    transport.reset = () => {
      throw stuck;
    };
    // The memory of a device that did not stop is kept.
    const frees = device.hal.counts.frees;
    expect(() => {
      driver[Symbol.dispose]();
    }).toThrow(stuck);
    expect(device.hal.counts.frees).toBe(frees);
  });
});
