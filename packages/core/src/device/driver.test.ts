import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { DeviceStatus, InterruptStatus } from './device-status.ts';
import { DeviceType } from './device-type.ts';
import { Driver, type DriverOptions, QUEUE_FEATURES } from './driver.ts';
import { VirtioError } from '../errors.ts';
import { CommonFeatures, FeatureTable } from './features.ts';
import type { DmaRegion, Hal } from '../memory/hal.ts';
import { Layout } from '../memory/layout.ts';
import type { RequestQueue } from '../queues/request-queue.ts';
import type { Transport } from './transport.ts';
import type { SpinOptions } from '../ring/virt-queue.ts';

const Echo = new FeatureTable('EchoFeatures', { LOUD: 3 });
const Config = new Layout('config', { size: 'u32' });
const coded = (code: string): Error => expect.objectContaining({ code }) as Error;

/** A driver for a device that sends each request back, with two queues. */
class EchoDriver extends Driver<'LOUD'> {
  readonly requests: readonly [RequestQueue, RequestQueue];
  readonly region: DmaRegion;
  readonly calls: string[] = [];

  constructor(transport: Transport, hal: Hal, options: DriverOptions & { readonly breakAt?: string } = {}) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Echo, supported: ['LOUD'] }, options);
    [this.requests, this.region] = this.setUp(() => {
      const region = this.allocate(64, 'both');
      const make = (index: number) =>
        this.createRequestQueue({ index, size: 4 }, (slot) => this.calls.push(`abandon ${slot}`));
      const requests = [make(0), make(1)] as const;
      if (options.breakAt === 'set-up') throw new VirtioError('UNSUPPORTED', 'broken');
      return [requests, region];
    });
  }

  submit(index = 0): number {
    this.checkUsable();
    const requests = this.requests[index]!;
    const slot = requests.begin(2);
    this.#fill(requests, slot);
    return slot;
  }

  #fill(requests: RequestQueue, slot: number): void {
    this.region.bytes[slot] = slot + 1;
    requests.queue.pushReadable(this.region.address + slot, 1);
    requests.queue.pushWritable(this.region.address + 16 + slot, 1);
    requests.submit(slot);
  }

  finish(slot: number, index = 0): number {
    const requests = this.requests[index]!;
    requests.requireDone(slot);
    requests.release(slot);
    return this.region.bytes[16 + slot] as number;
  }

  async echo(index = 0): Promise<number> {
    const requests = this.requests[index]!;
    this.checkUsable();
    let slot = requests.crowded ? -1 : requests.tryBegin(2);
    while (slot < 0) {
      await requests.room(2);
      slot = requests.tryBegin(2);
    }
    this.#fill(requests, slot);
    requests.flushSoon();
    await requests.done(slot);
    return this.finish(slot, index);
  }

  echoSync(options?: SpinOptions): number {
    const [requests] = this.requests;
    const slot = this.submit();
    requests.flush();
    requests.waitSync(slot, options);
    return this.finish(slot);
  }

  protected override onConfigChange(): void {
    this.calls.push(`size ${this.transport.readConfigSpace(Config.fields.size)}`);
  }

  protected override onFailure(error: VirtioError): void {
    this.calls.push(`failure ${error.code}`);
  }

  protected override onReset(): void {
    this.calls.push('reset');
  }

  protected override onLive(): void {
    this.calls.push('live');
  }

  protected override onQueueReset(queue: { readonly index: number }): void {
    this.calls.push(`queue ${queue.index} reset`);
  }

  protected override onDispose(): void {
    this.calls.push('dispose');
  }
}

function make(features = 0n, options: ConstructorParameters<typeof EchoDriver>[2] = {}, interrupts = true) {
  const device = new FakeDevice({ type: DeviceType.Crypto, features, queues: [4, 4], config: 4 });
  for (const index of [0, 1]) {
    device.handle(index, (chain) => {
      chain.write(chain.bytes());
    });
  }
  const transport = new FakeTransport(device, interrupts ? {} : { interrupts: false });
  const driver = new EchoDriver(transport, device.hal, options);
  const end = () => {
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { device, transport, driver, end };
}

describe.each(ringVariants)('requests in three forms: $name', ({ features }) => {
  it('keeps promises, many at a time', async () => {
    const { device, driver, end } = make(features);
    const replies = await Promise.all(Array.from({ length: 40 }, () => driver.echo()));
    expect(replies).toHaveLength(40);
    expect(Math.min(...replies)).toBeGreaterThan(0);
    // Requests of one turn share a notification.
    expect(device.queues[0]!.notifications).toBeLessThan(40);
    end();
  });

  it('spins', () => {
    const { driver, end } = make(features);
    for (let n = 0; n < 20; n += 1) expect(driver.echoSync()).toBeGreaterThan(0);
    end();
  });

  it('polls, and mixes with promises and spinning', async () => {
    const { device, driver, end } = make(features, {}, true);
    const [requests] = driver.requests;
    for (let n = 0; n < 20; n += 1) {
      const promise = driver.echo();
      const polled = driver.submit();
      requests.flush();
      driver.echoSync();
      const slot = requests.poll();
      expect(slot).toBe(polled);
      expect(driver.finish(slot)).toBe(slot + 1);
      expect(requests.poll()).toBe(-1);
      expect(await promise).toBeGreaterThan(0);
    }
    expect(device.violations).toEqual([]);
    end();
  });
});

describe.each(ringVariants)('resets of one queue: $name', ({ features }) => {
  it('loses what is in flight and nothing else, time after time', async () => {
    const { device, driver, end } = make(features | CommonFeatures.set('RING_RESET').bits);
    const outcome = (promise: Promise<number>) =>
      promise.then(
        () => 'done',
        (error: unknown) => (error as VirtioError).code,
      );
    for (let round = 0; round < 8; round += 1) {
      for (let n = 0; n <= round; n += 1) await driver.echo(0);
      device.automatic = false;
      const lost = [driver.echo(0), driver.echo(0)].map(outcome);
      const kept = [driver.echo(1), driver.echo(1)].map(outcome);
      await Promise.resolve();
      await Promise.resolve();
      driver.resetQueue(0);
      device.automatic = true;
      device.run();
      expect(await Promise.all(lost)).toEqual(['DEVICE_RESET', 'DEVICE_RESET']);
      expect(await Promise.all(kept)).toEqual(['done', 'done']);
    }
    expect(device.violations).toEqual([]);
    end();
  });
});

describe('requests', () => {
  it('takes spurious interrupts [2.7.7.1]', async () => {
    const { device, transport, driver, end } = make();
    device.automatic = false;
    const promise = driver.echo();
    await Promise.resolve();
    for (let n = 0; n < 5; n += 1) transport.interrupts?.fireQueue(0);
    transport.interrupts?.fireConfig();
    await Promise.resolve();
    device.run();
    expect(await promise).toBeGreaterThan(0);
    end();
  });

  it('completes out of order, each request with its own result', async () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const promises = [driver.echo(), driver.echo()];
    await Promise.resolve();
    await Promise.resolve();
    device.reorder = (chains) => chains.reverse();
    device.run();
    const replies = await Promise.all(promises);
    expect(new Set(replies).size).toBe(2);
    end();
  });

  it('waits for room, first come, first served', async () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const done: number[] = [];
    const promises = Array.from({ length: 9 }, (_, n) => driver.echo().then(() => done.push(n)));
    for (let n = 0; n < 30; n += 1) {
      device.run();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(promises);
    expect(done).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    end();
  });

  it('lets one who waits for room go, and the room to the next', async () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const [requests] = driver.requests;
    const slots = [driver.submit(), driver.submit()];
    requests.flush();
    const abort = new AbortController();
    const cancelled = requests.room(2, { signal: abort.signal });
    let next = false;
    const waiting = requests.room(2).then(() => (next = true));
    abort.abort('no longer wanted');
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED', cause: 'no longer wanted' });
    await expect(requests.room(2, { signal: abort.signal })).rejects.toThrow(coded('ABORTED'));
    expect(next).toBe(false);
    device.run();
    requests.drain();
    driver.finish(slots[0]!);
    await waiting;
    expect(requests.crowded).toBe(false);
    for (const slot of slots.slice(1)) driver.finish(slot);
    end();
  });

  it('lets nobody wait for ever while others come back at once', async () => {
    const { driver, end } = make();
    const counts = [0, 0, 0, 0, 0];
    await Promise.all(
      counts.map(async (_, n) => {
        for (let total = 0; total < 100; total = counts.reduce((a, b) => a + b)) {
          await driver.echo();
          counts[n]! += 1;
        }
      }),
    );
    expect(Math.min(...counts)).toBeGreaterThan(10);
    end();
  });

  it('says QUEUE_FULL, WRONG_TOKEN and NOT_READY, and loses nothing', () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const [requests] = driver.requests;
    const slots = [driver.submit(), driver.submit()];
    requests.flush();
    expect(() => driver.submit()).toThrow(coded('QUEUE_FULL'));
    expect(() => driver.finish(slots[0]!)).toThrow(coded('NOT_READY'));
    expect(() => driver.finish(3)).toThrow(coded('WRONG_TOKEN'));
    expect(requests.poll()).toBe(-1);
    device.run();
    expect(driver.finish(slots[0]!)).toBe(slots[0]! + 1);
    expect(() => driver.finish(slots[0]!)).toThrow(coded('WRONG_TOKEN'));
    expect(requests.poll()).toBe(slots[1]);
    driver.finish(slots[1]!);
    end();
  });

  it('says why a promise cannot be kept without interrupts', async () => {
    const { driver, end } = make(0n, {}, false);
    await expect(driver.echo()).rejects.toThrow(/no interrupts/);
    end();
  });

  it('keeps an event loop alive only while somebody waits', async () => {
    const { transport, driver, end } = make();
    const promise = driver.echo();
    await Promise.resolve();
    await promise;
    expect(transport.interrupts?.holds).toBe(0);
    const { device, transport: other, driver: waiting } = make();
    device.automatic = false;
    const never = waiting.echo();
    await Promise.resolve();
    expect(other.interrupts?.holds).toBe(1);
    waiting[Symbol.dispose]();
    await expect(never).rejects.toThrow(coded('DISPOSED'));
    expect(other.interrupts?.holds).toBe(0);
    end();
  });

  it('gives up spinning after the time allowed; the request goes on', () => {
    const { device, driver, end } = make();
    device.automatic = false;
    expect(() => driver.echoSync({ timeoutMs: 3 })).toThrow(coded('NOT_READY'));
    device.run();
    const slot = driver.requests[0].poll();
    expect(driver.finish(slot)).toBe(slot + 1);
    end();
  });
});

describe('initialization', () => {
  it('accepts of the legacy features ANY_LAYOUT, and neither NOTIFY_ON_EMPTY nor bit 30 [6.3]', () => {
    const features = CommonFeatures.set('ANY_LAYOUT', 'NOTIFY_ON_EMPTY', 'UNUSED').bits;
    const device = new FakeDevice({ type: DeviceType.Crypto, features, queues: [4, 4], legacy: true });
    const driver = new EchoDriver(new FakeTransport(device), device.hal);
    expect(driver.features.names()).toEqual(['ANY_LAYOUT']);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('accepts all queue features that are offered, and leaves out what it is told [6.1]', () => {
    const offered = CommonFeatures.set(
      ...QUEUE_FEATURES,
      'SR_IOV',
      'ADMIN_VQ',
      'SUSPEND',
      'NOTIFY_ON_EMPTY',
      'UNUSED',
    ).bits;
    const { driver, end } = make(offered);
    expect(driver.features.names().sort()).toEqual([...QUEUE_FEATURES].sort());
    end();
    const other = make(offered | Echo.mask('LOUD'), { without: ['RING_PACKED', 'IN_ORDER'] });
    expect(other.driver.features.has('RING_PACKED')).toBe(false);
    expect(other.driver.features.has('LOUD')).toBe(true);
    other.end();
  });

  it('refuses to do without a feature that there is not', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto });
    const without = ['RING_PAKCED' as 'RING_PACKED'];
    expect(() => new EchoDriver(new FakeTransport(device), device.hal, { without })).toThrow(
      /Crypto device \(fake\) was to be used without RING_PAKCED, which .* RING_PACKED/,
    );
    expect(device.statusWrites).toEqual([]);
  });

  it('refuses a device of another type', () => {
    const device = new FakeDevice({ type: DeviceType.Block });
    expect(() => new EchoDriver(new FakeTransport(device), device.hal)).toThrow(
      'Block device (fake) is no Crypto device; use the driver of its type',
    );
    expect(device.statusWrites).toEqual([]);
  });

  it('notifies nothing before DRIVER_OK [3.1.1]', () => {
    const { device, end } = make();
    expect(device.notifications).toEqual([]);
    device.assertObeyed();
    end();
  });

  it('gives everything back and sets FAILED when set-up fails [3.1.1]', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4, 4] });
    const transport = new FakeTransport(device);
    expect(() => new EchoDriver(transport, device.hal, { breakAt: 'set-up' })).toThrow('broken');
    expect(device.status.has(DeviceStatus.FAILED)).toBe(true);
    expect(device.statusWrites.some((bits) => (bits & DeviceStatus.DRIVER_OK) !== 0)).toBe(false);
    expect(transport.interrupts?.queues).toEqual([]);
    device.assertClean();
    device.hal.failAlloc({ after: 3 });
    expect(() => new EchoDriver(transport, device.hal)).toThrow(coded('DMA_ERROR'));
    device.assertClean();
  });
});

describe('events and failures', () => {
  const inFlight = async (driver: EchoDriver, device: FakeDevice) => {
    device.automatic = false;
    const promises = [driver.echo(0), driver.echo(1)].map((promise) =>
      promise.then(
        () => 'done',
        (error: unknown) => (error as VirtioError).code,
      ),
    );
    await Promise.resolve();
    await Promise.resolve();
    return Promise.all.bind(Promise, promises) as () => Promise<string[]>;
  };

  it('tells of a change of the configuration', async () => {
    const { device, driver, end } = make();
    device.changeConfig((config) => {
      config.setUint32(0, 77, true);
    });
    await Promise.resolve();
    expect(driver.calls).toEqual(['size 77']);
    end();
  });

  it('finds changes and used buffers by polling where there are no interrupts', () => {
    const { device, driver, end } = make(0n, {}, false);
    driver.pollEvents();
    expect(driver.calls).toEqual([]);
    device.changeConfig((config) => {
      config.setUint32(0, 5, true);
    });
    const slot = driver.submit();
    driver.requests[0].flush();
    driver.pollEvents();
    driver.pollEvents();
    expect(driver.calls).toEqual(['size 5']);
    expect(driver.requests[0].isDone(slot)).toBe(true);
    driver.finish(slot);
    end();
  });

  it('finds by polling that the device is gone, or needs a reset, though it never says so', () => {
    const { device, driver, end } = make(0n, {}, false);
    driver.transport.ackInterrupt = () => InterruptStatus.from(0);
    device.needsReset();
    driver.pollEvents();
    expect(driver.failure).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    driver.reset();
    driver.transport.readConfigGeneration = () => 0;
    driver.pollEvents();
    expect(driver.failure).toBe(undefined);
    device.remove();
    driver.pollEvents();
    expect(driver.failure).toMatchObject({ code: 'DEVICE_REMOVED' });
    end();
  });

  it('misses nothing that is used while it polls, as the interrupt for it is acknowledged', () => {
    const { device, driver, end } = make(0n, {}, false);
    device.automatic = false;
    const slot = driver.submit();
    driver.requests[0].flush();
    const acknowledge = driver.transport.ackInterrupt.bind(driver.transport);
    driver.transport.ackInterrupt = () => {
      device.run(0);
      return acknowledge();
    };
    driver.pollEvents();
    expect(driver.requests[0].queue.peek(), 'nothing is left in the ring').toBe(-1);
    expect(driver.requests[0].isDone(slot)).toBe(true);
    driver.finish(slot);
    end();
  });

  it('rejects requests in flight when the device needs a reset [2.1.1]', async () => {
    const { device, driver, end } = make();
    const outcome = await inFlight(driver, device);
    const failures: string[] = [];
    driver.on('failure', (error) => failures.push(error.code));
    device.needsReset();
    expect(await outcome()).toEqual(['DEVICE_NEEDS_RESET', 'DEVICE_NEEDS_RESET']);
    expect(failures).toEqual(['DEVICE_NEEDS_RESET']);
    expect(() => driver.submit()).toThrow(coded('DEVICE_NEEDS_RESET'));
    await expect(driver.echo()).rejects.toThrow(coded('DEVICE_NEEDS_RESET'));
    driver.reset();
    device.automatic = true;
    expect(await driver.echo()).toBeGreaterThan(0);
    expect(driver.calls).toEqual(['failure DEVICE_NEEDS_RESET', 'abandon 0', 'abandon 0', 'reset', 'live']);
    end();
  });

  it('notices while it spins that the device needs a reset or is gone', () => {
    const { device, driver, end } = make(0n, {}, false);
    device.automatic = false;
    device.needsReset();
    expect(() => driver.echoSync()).toThrow(coded('DEVICE_NEEDS_RESET'));
    expect(driver.failure).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    driver.reset();
    device.remove();
    expect(() => driver.echoSync()).toThrow(coded('DEVICE_REMOVED'));
    expect(driver.failure).toMatchObject({ code: 'DEVICE_REMOVED' });
    end();
  });

  it('leaves the errors of listeners to those who wrote them', () => {
    const { device, driver, end } = make(0n, {}, false);
    driver.on('failure', () => {
      throw new RangeError('listener');
    });
    device.needsReset();
    expect(() => {
      driver.pollEvents();
    }).toThrow('listener');
    expect(driver.failure).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    end();
  });

  it('rejects requests in flight when the device is unplugged', async () => {
    const { device, driver } = make();
    const outcome = await inFlight(driver, device);
    device.remove();
    expect(await outcome()).toEqual(['DEVICE_REMOVED', 'DEVICE_REMOVED']);
    expect(() => {
      driver.reset();
    }).toThrow(coded('DEVICE_REMOVED'));
    driver[Symbol.dispose]();
    device.hal.assertClean();
  });

  it('rejects requests on all queues when the device lies on one', async () => {
    const { device, driver, end } = make();
    const outcome = await inFlight(driver, device);
    device.queue(0).forceUsed(3, 0);
    driver.requests[0].drain();
    expect(await outcome()).toEqual(['DEVICE_MISBEHAVED', 'DEVICE_MISBEHAVED']);
    expect(driver.failure).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(device.status.has(DeviceStatus.FAILED)).toBe(true);
    end();
  });

  it('brings the device back with the same features, and keeps what was done', async () => {
    const { device, driver, end } = make(CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits);
    const done = driver.submit();
    driver.requests[0].flush();
    driver.requests[0].drain();
    const outcome = await inFlight(driver, device);
    device.features |= CommonFeatures.mask('RING_PACKED');
    driver.reset();
    expect(await outcome()).toEqual(['DEVICE_RESET', 'DEVICE_RESET']);
    expect(driver.features.names()).toEqual(['INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1']);
    expect(driver.finish(done)).toBe(done + 1);
    device.automatic = true;
    for (let n = 0; n < 9; n += 1) expect(await driver.echo()).toBeGreaterThan(0);
    end();
  });

  it('stays failed when the device comes back with fewer features', () => {
    const { device, driver, end } = make(CommonFeatures.set('EVENT_IDX').bits);
    device.features = CommonFeatures.set('VERSION_1').bits;
    expect(() => {
      driver.reset();
    }).toThrow(coded('FEATURES_REFUSED'));
    expect(() => driver.submit()).toThrow(coded('FEATURES_REFUSED'));
    device.features |= CommonFeatures.mask('EVENT_IDX');
    driver.reset();
    expect(driver.echoSync()).toBeGreaterThan(0);
    end();
  });

  it('resets one queue and goes on with the others [2.6.1]', async () => {
    const { device, driver, end } = make(CommonFeatures.set('RING_RESET').bits);
    const outcome = await inFlight(driver, device);
    driver.resetQueue(0);
    device.automatic = true;
    device.run();
    expect(await outcome()).toEqual(['DEVICE_RESET', 'done']);
    expect(driver.calls).toEqual(['abandon 0', 'queue 0 reset']);
    expect(await driver.echo(0)).toBeGreaterThan(0);
    expect(() => {
      driver.resetQueue(7);
    }).toThrow(coded('INVALID_PARAM'));
    end();
    const plain = make();
    expect(() => {
      plain.driver.resetQueue(0);
    }).toThrow(coded('UNSUPPORTED'));
    plain.end();
  });
});

describe('disposal', () => {
  it('resets the device before memory goes back [3.3.1]', async () => {
    const { device, transport, driver } = make();
    device.automatic = false;
    const promise = driver.echo();
    await Promise.resolve();
    driver[Symbol.dispose]();
    await expect(promise).rejects.toThrow(coded('DISPOSED'));
    // The fake notes memory that is taken back while the device may use it.
    device.assertClean();
    expect(transport.disposed).toBe(1);
    expect(driver.calls).toEqual(['failure DISPOSED', 'abandon 0', 'dispose']);
    driver[Symbol.dispose]();
    expect(transport.disposed).toBe(1);
    expect(() => driver.submit()).toThrow(coded('DISPOSED'));
    expect(() => {
      driver.reset();
    }).toThrow(coded('DISPOSED'));
  });
});
