import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { DeviceStatus, InterruptStatus } from './device-status.ts';
import { DeviceType } from './device-type.ts';
import { Driver } from './driver.ts';
import { type DriverOptions, QUEUE_FEATURES, type Quirk } from './driver-spec.ts';
import { VirtioError } from '../errors.ts';
import { CommonFeatures, FeatureTable } from './features.ts';
import type { DmaRegion, Hal } from '../memory/hal.ts';
import { Layout } from '../memory/layout.ts';
import type { Request } from '../queues/request.ts';
import type { RequestQueue } from '../queues/request-queue.ts';
import type { SpinOptions } from '../queues/spin.ts';
import type { WaitOptions } from '../queues/wait.ts';
import type { Transport } from './transport.ts';
import { coded } from '../../test/helpers.ts';

const Echo = new FeatureTable('EchoFeatures', { LOUD: 3 });
const Config = new Layout('config', { size: 'u32' });

/** A driver for a device that sends each request back, with two queues. */
class EchoDriver extends Driver<'LOUD'> {
  readonly requests: readonly [RequestQueue<number>, RequestQueue<number>];
  readonly region: DmaRegion;
  readonly calls: string[] = [];
  failing: (() => void) | undefined;

  constructor(
    transport: Transport,
    hal: Hal,
    options: DriverOptions<'LOUD'> & { readonly breakAt?: string } = {},
  ) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Echo, supported: ['LOUD'] }, options);
    [this.requests, this.region] = this.setUp(() => {
      const region = this.allocate(64, 'both');
      const result = (slot: number): number => region.bytes[16 + slot] as number;
      const make = (index: number) => this.createRequestQueue({ index, size: 4 }, { result });
      const requests = [make(0), make(1)] as const;
      if (options.breakAt === 'set-up') throw new VirtioError('UNSUPPORTED', 'broken');
      return [requests, region];
    });
    this.start();
  }

  #request(index: number, tag = 0): Request<number> {
    const requests = this.requests[index]!;
    return {
      buffers: 2,
      fill: (slot) => {
        this.region.bytes[slot] = tag === 0 ? slot + 1 : tag;
        requests.queue.pushReadable(this.region.address + slot, 1);
        requests.queue.pushWritable(this.region.address + 16 + slot, 1);
      },
      result: (slot) => this.region.bytes[16 + slot] as number,
    };
  }

  submit(index = 0, tag = 0): number {
    this.checkUsable();
    return this.requests[index]!.submitRequest(this.#request(index, tag), { kick: false });
  }

  finish(token: number, index = 0): number {
    return this.requests[index]!.complete(token);
  }

  echo(index = 0, options: WaitOptions & { readonly tag?: number } = {}): Promise<number> {
    return this.requests[index]!.request(this.#request(index, options.tag), options);
  }

  echoSync(options?: SpinOptions): number {
    return this.requests[0].requestSync(this.#request(0), options);
  }

  protected override onConfigChange(): void {
    this.calls.push(`size ${this.transport.readConfigSpace(Config.fields.size)}`);
  }

  protected override onFailure(error: VirtioError): void {
    this.calls.push(`failure ${error.code}`);
    this.failing?.();
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
      const polled = driver.submit(0, 77);
      requests.kick();
      driver.echoSync();
      const token = requests.poll();
      expect(token).toBe(polled);
      expect(driver.finish(token)).toBe(77);
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

  it('lets nobody else go for a signal that calls a listener which was removed', async () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const [requests] = driver.requests;
    const tokens = [driver.submit(), driver.submit()];
    requests.kick();
    const listeners: (() => void)[] = [];
    const signal = {
      aborted: false,
      addEventListener: (_type: 'abort', listener: () => void) => void listeners.push(listener),
      removeEventListener: () => undefined,
    };
    const unlucky = requests.request(
      {
        buffers: 2,
        fill: () => {
          throw new VirtioError('DMA_ERROR', 'no memory');
        },
        result: () => 0,
      },
      { signal },
    );
    const waiting = Array.from({ length: 3 }, (_, n) => driver.echo(0, { tag: 7 + n }));
    device.run();
    requests.drain();
    await expect(unlucky).rejects.toThrow(coded('DMA_ERROR'));
    for (const listener of listeners) listener();
    for (const token of tokens) driver.finish(token);
    for (let n = 0; n < 10; n += 1) {
      await new Promise((resolve) => setImmediate(resolve));
      device.run();
    }
    expect(await Promise.all(waiting)).toEqual([7, 8, 9]);
    end();
  });

  it('lets one who waits for room go, and the room to the next', async () => {
    const { device, driver, end } = make();
    device.automatic = false;
    const [requests] = driver.requests;
    const tokens = [driver.submit(), driver.submit()];
    requests.kick();
    const abort = new AbortController();
    const cancelled = driver.echo(0, { signal: abort.signal });
    const waiting = driver.echo(0, { tag: 9 });
    abort.abort('no longer wanted');
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED', cause: 'no longer wanted' });
    await expect(driver.echo(0, { signal: abort.signal })).rejects.toThrow(coded('ABORTED'));
    expect(requests.crowded).toBe(true);
    device.run();
    requests.drain();
    expect(requests.crowded).toBe(false);
    for (const token of tokens) driver.finish(token);
    await Promise.resolve();
    await Promise.resolve();
    device.run();
    expect(await waiting).toBe(9);
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
    const tokens = [driver.submit(0, 5), driver.submit(0, 6)];
    requests.kick();
    expect(() => driver.submit()).toThrow(coded('QUEUE_FULL'));
    expect(() => driver.finish(tokens[0]!)).toThrow(coded('NOT_READY'));
    for (const wrong of [3, -1, 1e9, 0.5, NaN, Infinity, 2 ** 40]) {
      expect(() => driver.finish(wrong)).toThrow(coded('WRONG_TOKEN'));
    }
    expect(requests.poll()).toBe(-1);
    device.run();
    expect(driver.finish(tokens[0]!)).toBe(5);
    expect(() => driver.finish(tokens[0]!)).toThrow(coded('WRONG_TOKEN'));
    expect(requests.poll()).toBe(tokens[1]);
    driver.finish(tokens[1]!);
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

  it('gives up spinning after the time allowed; the late answer reaches nobody', () => {
    const { device, driver, end } = make();
    device.automatic = false;
    for (let n = 0; n < 2; n += 1) {
      expect(() => driver.echoSync({ timeoutMs: 1 })).toThrow(coded('NOT_READY'));
    }
    expect(() => driver.echoSync({ timeoutMs: 1 })).toThrow(coded('QUEUE_FULL'));
    device.run();
    expect(driver.requests[0].poll()).toBe(-1);
    device.automatic = true;
    for (let n = 0; n < 9; n += 1) expect(driver.echoSync()).toBeGreaterThan(0);
    end();
  });

  it('refuses a time-out that is none before anything is sent', () => {
    const { device, driver, end } = make();
    for (const timeoutMs of [NaN, -1, '5' as unknown as number]) {
      expect(() => driver.echoSync({ timeoutMs })).toThrow(coded('INVALID_PARAM'));
    }
    expect(device.notifications).toEqual([]);
    end();
  });

  it('tells those who listen of requests to be polled for, and asks for interrupts only while they do', async () => {
    const { device, transport, driver, end } = make();
    const seen: number[] = [];
    const remove = driver.on('used', (queue) => {
      seen.push(queue);
      driver.finish(driver.requests[queue]!.poll(), queue);
    });
    expect(transport.interrupts?.holds).toBe(2);
    driver.submit(1);
    driver.requests[1].kick();
    await Promise.resolve();
    expect(seen).toEqual([1]);
    remove();
    expect(transport.interrupts?.holds).toBe(0);
    const token = driver.submit(1);
    driver.requests[1].kick();
    await Promise.resolve();
    expect(seen).toEqual([1]);
    driver.finish(token, 1);
    expect(device.violations).toEqual([]);
    end();
  });

  it('tells nobody else once one who was told has disposed the driver', async () => {
    const { driver } = make();
    let told = 0;
    const dispose = (): void => {
      told += 1;
      driver[Symbol.dispose]();
    };
    driver.on('used', dispose);
    driver.on('used', dispose);
    driver.submit(1);
    driver.requests[1].kick();
    await Promise.resolve();
    expect(told).toBe(1);
  });

  it('lets a kernel that owns the interrupt acknowledge and arm it', () => {
    const { device, driver, end } = make(0n, {}, false);
    expect(driver.enableInterrupts()).toBe(false);
    const token = driver.submit();
    driver.requests[0].kick();
    expect(driver.ackInterrupt().has(InterruptStatus.QUEUE_INTERRUPT)).toBe(true);
    expect(driver.enableInterrupts()).toBe(true);
    driver.pollEvents();
    driver.finish(token);
    driver.disableInterrupts();
    const silent = driver.submit();
    driver.requests[0].kick();
    expect(driver.ackInterrupt().bits).toBe(0);
    driver.finish(silent);
    expect(device.violations).toEqual([]);
    end();
  });

  it('counts what a sloppy device does, and goes on', async () => {
    const { device, driver, end } = make();
    const quirks: Quirk[] = [];
    driver.on('quirk', (quirk) => quirks.push(quirk));
    device.handle(0, (chain) => void chain.complete(100));
    driver.echoSync();
    expect(driver.quirks).toBe(1);
    // Told when the turn ends, not in the middle of taking the answer.
    expect(quirks).toEqual([]);
    await Promise.resolve();
    expect(quirks).toMatchObject([{ queue: 0, message: expect.stringContaining('100 bytes') as string }]);
    end();
  });
});

describe('a reset', () => {
  it('during which the driver is disposed by whoever is told of it says DISPOSED, and leaves the transport alone', () => {
    const { device, transport, driver } = make();
    driver.failing = () => {
      driver.failing = undefined;
      driver[Symbol.dispose]();
    };
    const { length } = device.statusWrites;
    expect(() => {
      driver.reset();
    }).toThrow(coded('DISPOSED'));
    expect(device.statusWrites.slice(length)).toEqual([0]);
    expect(driver.failure).toEqual(coded('DISPOSED'));
    expect(transport.disposed).toBe(1);
    device.assertClean();
  });
});

describe('a listener that acts inside a synchronous call', () => {
  const lie = (device: FakeDevice): void => {
    device.handle(0, (chain) => {
      chain.defer();
      device.queue(0).forceUsed(3, 0);
    });
  };

  it('resets: the call ends with the reason at once, and all works again', async () => {
    const { device, driver, end } = make();
    lie(device);
    const failures: string[] = [];
    driver.on('failure', (error) => {
      failures.push(error.code);
      device.handle(0, (chain) => {
        chain.write(chain.bytes());
      });
      driver.reset();
    });
    expect(() => driver.echoSync()).toThrow(coded('DEVICE_MISBEHAVED'));
    expect(failures).toEqual(['DEVICE_MISBEHAVED']);
    expect(driver.failure).toBeUndefined();
    device.automatic = false;
    const first = driver.echo(0, { tag: 41 });
    const second = driver.echo(0, { tag: 42 });
    await Promise.resolve();
    await Promise.resolve();
    device.run();
    expect(await Promise.all([first, second])).toEqual([41, 42]);
    end();
  });

  it('disposes: the call ends with DISPOSED or the reason, and nothing is left', () => {
    const { device, driver } = make();
    lie(device);
    driver.on('failure', () => {
      driver[Symbol.dispose]();
    });
    expect(() => driver.echoSync()).toThrow(VirtioError);
    device.assertClean();
  });

  it('resets again and again: a reset that fails is told to its caller alone', () => {
    const { device, driver } = make(CommonFeatures.set('EVENT_IDX').bits);
    let resets = 0;
    driver.on('failure', () => {
      resets += 1;
      try {
        driver.reset();
      } catch {
        // As expected: the device came back with fewer features.
      }
    });
    device.features = CommonFeatures.set('VERSION_1').bits;
    device.needsReset();
    driver.pollEvents();
    expect(resets).toBe(1);
    expect(driver.failure).toMatchObject({ code: 'FEATURES_REFUSED' });
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('initialization', () => {
  it('refuses a transport that has a driver, until that one is disposed', () => {
    const { device, transport, driver } = make();
    expect(() => new EchoDriver(transport, device.hal)).toThrow(coded('ALREADY_USED'));
    expect(driver.echoSync()).toBeGreaterThan(0);
    driver[Symbol.dispose]();
    const other = new EchoDriver(transport, device.hal);
    expect(other.echoSync()).toBeGreaterThan(0);
    other[Symbol.dispose]();
    device.assertClean();
  });

  it('leaves out features that the driver drops as others are missing', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto, features: Echo.mask('LOUD'), queues: [] });
    const transport = new FakeTransport(device);
    const features = transport.beginInit({
      table: Echo,
      supported: ['LOUD'],
      choose: (accepted) => Echo.fromBits(accepted.bits & ~Echo.mask('LOUD')),
    });
    expect(features.names()).toEqual(['VERSION_1']);
  });

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
    const quiet = make(Echo.mask('LOUD'), { without: ['LOUD'] });
    expect(quiet.driver.features.has('LOUD')).toBe(false);
    quiet.driver.reset();
    expect(quiet.driver.features.has('LOUD')).toBe(false);
    quiet.end();
  });

  it('refuses a name in place of an array of names', () => {
    expect(() => make(0n, { without: 'RING_PACKED' as unknown as [] })).toThrow(coded('INVALID_PARAM'));
  });

  it('refuses to do without a feature that there is not', () => {
    const device = new FakeDevice({ type: DeviceType.Crypto });
    const without = ['RING_PAKCED' as 'RING_PACKED'];
    expect(() => new EchoDriver(new FakeTransport(device), device.hal, { without })).toThrow(
      /Crypto device \(fake\) was to be used without "RING_PAKCED", which .* LOUD, .*RING_PACKED/,
    );
    // It would have no effect: every driver needs it.
    expect(() => make(0n, { without: ['VERSION_1'] })).toThrow(coded('INVALID_PARAM'));
    expect(device.statusWrites).toEqual([]);
  });

  it('refuses a device of another type', () => {
    const device = new FakeDevice({ type: DeviceType.Block });
    expect(() => new EchoDriver(new FakeTransport(device), device.hal)).toThrow(
      'Block device (fake) is not a Crypto device; use the driver of its type',
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
    const token = driver.submit();
    driver.requests[0].kick();
    driver.pollEvents();
    driver.pollEvents();
    expect(driver.calls).toEqual(['size 5']);
    expect(driver.requests[0].isDone(token)).toBe(true);
    driver.finish(token);
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
    driver.requests[0].kick();
    const acknowledge = driver.transport.ackInterrupt.bind(driver.transport);
    driver.transport.ackInterrupt = () => {
      device.run(0);
      return acknowledge();
    };
    driver.pollEvents();
    expect(driver.requests[0].queue.pop(), 'nothing is left in the ring').toBe(-1);
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
    expect(driver.calls).toEqual(['failure DEVICE_NEEDS_RESET', 'reset', 'live']);
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

  it('is not disturbed by a listener that throws, whose error becomes an unhandled rejection', async () => {
    const { device, driver, end } = make(0n, {}, false);
    const rejected = new Promise((resolve) => process.once('unhandledRejection', resolve));
    const heard: string[] = [];
    driver.on('failure', () => {
      throw new RangeError('listener');
    });
    driver.on('failure', ({ code }) => heard.push(code));
    device.needsReset();
    driver.pollEvents();
    expect(heard).toEqual(['DEVICE_NEEDS_RESET']);
    expect(await rejected).toMatchObject({ message: 'listener' });
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

  it('brings the device back with the same features, and voids all tokens', async () => {
    const { device, driver, end } = make(CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits);
    const done = driver.submit();
    driver.requests[0].kick();
    driver.requests[0].drain();
    const outcome = await inFlight(driver, device);
    device.features |= CommonFeatures.mask('RING_PACKED');
    driver.reset();
    expect(await outcome()).toEqual(['DEVICE_RESET', 'DEVICE_RESET']);
    expect(driver.features.names()).toEqual(['INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1']);
    expect(() => driver.finish(done)).toThrow(coded('WRONG_TOKEN'));
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
    expect(driver.calls).toEqual(['queue 0 reset']);
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
    expect(driver.calls).toEqual(['failure DISPOSED', 'dispose']);
    driver[Symbol.dispose]();
    expect(transport.disposed).toBe(1);
    expect(() => driver.submit()).toThrow(coded('DISPOSED'));
    expect(() => {
      driver.reset();
    }).toThrow(coded('DISPOSED'));
  });
});
