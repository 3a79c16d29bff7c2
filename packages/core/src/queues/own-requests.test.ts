/** Requests that a driver makes of its own accord, and signals that are objects of the caller's. */
import { FakeDevice, FakeInterrupts, FakePolling, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { BufferDriver } from '../device/buffer-driver.ts';
import { DeviceType } from '../device/device-type.ts';
import { CommonFeatures, FeatureTable } from '../device/features.ts';
import { VirtioError } from '../errors.ts';
import type { Hal } from '../memory/hal.ts';
import type { Transport } from '../device/transport.ts';
import type { ReceiveQueue } from './receive-queue.ts';
import type { Request } from './request.ts';
import type { RequestQueue } from './request-queue.ts';
import type { AbortSignalLike } from './wait.ts';
import { coded, turns } from '../../test/helpers.ts';

const Features = new FeatureTable<never>('Features', {});

/** A request queue of two descriptors, and a receive queue. */
class Sample extends BufferDriver<never> {
  readonly requests: RequestQueue<number>;
  readonly receive: ReceiveQueue;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Features, supported: [] });
    [this.requests, this.receive] = this.setUp(() => [
      this.createRequestQueue<number>({ index: 0, size: 2 }),
      this.createReceiveQueue({
        index: 1,
        size: 2,
        bufferSize: 8,
        receive: () => this.receive.poll(() => undefined) < 0,
      }),
    ]);
    this.start();
  }

  request(): Request<number> {
    return {
      buffers: 1,
      fill: (slot) => {
        this.requests.shareWritable(slot, new Uint8Array(4));
      },
      result: (_slot, usedLength) => usedLength,
    };
  }
}

function make(interrupts = new FakeInterrupts(), features = 0n) {
  const device = new FakeDevice({ type: DeviceType.Crypto, queues: [2, 2], features });
  device.automatic = false;
  const transport = new FakeTransport(device, { interrupts });
  const driver = new Sample(transport, device.hal);
  const { requests } = driver;
  /** The device answers the oldest request with a number of bytes. */
  const answer = (length = 4): void => void device.queue(0).pop()?.write(new Uint8Array(length)).complete();
  const ask = (options: object): Promise<unknown> =>
    requests.request(driver.request(), options).catch((error: unknown) => error);
  return { device, transport, driver, requests, interrupts, answer, ask };
}

describe('a request that does not keep the event loop alive', () => {
  it('is answered by an interrupt, and holds nothing', async () => {
    const { interrupts, answer, ask, device, driver } = make();
    const asked = ask({ holds: false });
    await turns();
    expect(interrupts.holds).toBe(0);
    answer();
    await expect(asked).resolves.toBe(4);
    expect(interrupts.holds).toBe(0);
    expect(device.queue(0).wantsInterrupt()).toBe(false);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('lets those who wait beside it hold, until their answer', async () => {
    const { interrupts, answer, ask } = make();
    const own = ask({ holds: false });
    const other = ask({});
    await turns();
    expect(interrupts.holds).toBe(1);
    answer();
    await expect(own).resolves.toBe(4);
    expect(interrupts.holds, 'the other still waits').toBe(1);
    const again = ask({ holds: false });
    await turns();
    answer(3);
    await expect(other).resolves.toBe(3);
    expect(interrupts.holds).toBe(0);
    answer(2);
    await expect(again, 'interrupts are still enabled for it').resolves.toBe(2);
  });

  it('waits for room without holding, in its turn', async () => {
    const { interrupts, answer, ask, requests } = make();
    for (let n = 0; n < 2; n += 1) requests.cancel(requests.submitRequest(requestOf(requests)));
    const own = ask({ holds: false });
    await turns();
    expect(requests.crowded).toBe(true);
    expect(interrupts.holds).toBe(0);
    const other = ask({});
    await turns();
    expect(interrupts.holds).toBe(1);
    answer();
    await turns();
    answer();
    await turns();
    answer(1);
    await expect(own).resolves.toBe(1);
    answer(2);
    await expect(other).resolves.toBe(2);
    expect(interrupts.holds).toBe(0);
  });

  it('can be cancelled; rejects when the device fails, and works after a reset', async () => {
    const { interrupts, answer, ask, driver, device } = make();
    const controller = new AbortController();
    const cancelled = ask({ holds: false, signal: controller.signal });
    await turns();
    controller.abort();
    await expect(cancelled).resolves.toEqual(coded('ABORTED'));
    const lost = ask({ holds: false });
    await turns();
    device.needsReset();
    await expect(lost).resolves.toEqual(coded('DEVICE_NEEDS_RESET'));
    driver.reset();
    const asked = ask({ holds: false });
    await turns();
    answer();
    await expect(asked).resolves.toBe(4);
    expect(interrupts.holds).toBe(0);
  });

  it('is found by a source that polls while another caller waits', async () => {
    const interrupts = new FakePolling();
    const { answer, ask } = make(interrupts);
    const own = ask({ holds: false });
    await turns();
    expect(interrupts.busy).toBe(false);
    answer();
    const other = ask({});
    await turns();
    interrupts.turn();
    await expect(own).resolves.toBe(4);
    answer();
    interrupts.turn();
    await expect(other).resolves.toBe(4);
    interrupts.turn();
    expect(interrupts.busy).toBe(false);
  });
});

/** A request of one buffer. */
function requestOf(requests: RequestQueue<number>): Request<number> {
  return {
    buffers: 1,
    fill: (slot) => {
      requests.shareWritable(slot, new Uint8Array(4));
    },
    result: (_slot, usedLength) => usedLength,
  };
}

/** A signal of the caller's own that does something inside its methods. */
function signal(inside: {
  add?: (listener: () => void) => void;
  remove?: () => void;
  aborted?: () => boolean;
}): AbortSignalLike & { count: number } {
  const own = {
    count: 0,
    get aborted(): boolean {
      return inside.aborted?.() ?? false;
    },
    addEventListener: (_type: string, listener: () => void): void => {
      own.count += 1;
      inside.add?.(listener);
    },
    removeEventListener: (): void => {
      own.count -= 1;
      inside.remove?.();
    },
  };
  return own;
}

describe("a signal that is an object of the caller's", () => {
  const waits: readonly [string, (made: ReturnType<typeof make>, options: object) => Promise<unknown>][] = [
    ['the answer', ({ ask }, options) => ask(options)],
    [
      'room',
      ({ ask, requests }, options) => {
        for (let n = 0; n < 2; n += 1) requests.cancel(requests.submitRequest(requestOf(requests)));
        return ask(options);
      },
    ],
    ['a message', ({ driver }, options) => driver.receive.wait(options).catch((error: unknown) => error)],
  ];
  for (const [what, wait] of waits) {
    it(`may be aborted while it is listened to: the wait for ${what} is over, and holds nothing`, async () => {
      const made = make();
      const calling = signal({ add: (listener) => listener() });
      await expect(wait(made, { signal: calling })).resolves.toEqual(coded('ABORTED'));
      await turns();
      expect(made.interrupts.holds).toBe(0);
      expect(made.requests.crowded).toBe(false);
      expect(calling.count, 'listeners').toBeLessThanOrEqual(0);
    });

    it(`may be aborted as it is listened to, and not say so: the wait for ${what} is over`, async () => {
      const made = make();
      let listened = false;
      const late = signal({ add: () => void (listened = true), aborted: () => listened });
      await expect(wait(made, { signal: late })).resolves.toEqual(coded('ABORTED'));
      await turns();
      expect(made.interrupts.holds).toBe(0);
      expect(late.count, 'listeners').toBeLessThanOrEqual(0);
    });

    it(`may throw: nobody waits for ${what} then`, async () => {
      const made = make();
      const throwing = signal({
        add: () => {
          throw new Error('not today');
        },
      });
      await expect(wait(made, { signal: throwing })).resolves.toEqual(
        expect.objectContaining({ message: 'not today' }),
      );
      await turns();
      expect(made.interrupts.holds).toBe(0);
      expect(made.requests.crowded).toBe(false);
    });
  }

  it('may be aborted while the request is built for which there was no room before', async () => {
    const { requests, answer, interrupts, ask } = make();
    for (let n = 0; n < 2; n += 1) requests.cancel(requests.submitRequest(requestOf(requests)));
    const controller = new AbortController();
    const aborting = {
      ...requestOf(requests),
      fill(slot: number) {
        requests.shareWritable(slot, new Uint8Array(4));
        controller.abort();
      },
    };
    const asked = requests.request(aborting, { signal: controller.signal }).catch((error: unknown) => error);
    const behind = ask({});
    answer();
    await turns();
    await expect(asked).resolves.toEqual(coded('ABORTED'));
    answer();
    await turns();
    answer(3);
    await turns();
    answer(2);
    await expect(behind).resolves.toBe(2);
    expect(interrupts.holds).toBe(0);
    expect(requests.inFlight).toBe(0);
  });

  it('may throw when its listener is removed: the request and the driver go on', async () => {
    const made = make();
    const errors: unknown[] = [];
    const listeners = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', (error) => errors.push(error));
    try {
      const throwing = signal({
        remove: () => {
          throw new Error('stays');
        },
      });
      const asked = made.ask({ signal: throwing });
      await turns();
      made.answer();
      await expect(asked).resolves.toBe(4);
      expect(made.driver.failure).toBeUndefined();
      await new Promise((resolve) => setImmediate(resolve));
      expect(errors).toEqual([expect.objectContaining({ message: 'stays' })]);
    } finally {
      process.removeAllListeners('unhandledRejection');
      for (const listener of listeners) process.on('unhandledRejection', listener);
    }
  });
});

describe('what a getter of the caller in its options does after the request was sent', () => {
  /** Options whose second look at `signal` does something; the first is before anything is sent. */
  const acting = (act: () => void): object => {
    let looks = 0;
    return {
      get signal(): undefined {
        looks += 1;
        if (looks === 2) act();
        return undefined;
      },
    };
  };

  it('a reset: the request is lost', async () => {
    const { ask, driver, device } = make();
    await expect(
      ask(
        acting(() => {
          driver.reset();
        }),
      ),
    ).resolves.toEqual(coded('DEVICE_RESET'));
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('takes the answer: the request has its result', async () => {
    const { ask, driver, requests, device } = make();
    const asked = ask(
      acting(() => {
        requests.kick();
        device.queue(0).drain(0);
        requests.drain();
      }),
    );
    await expect(asked).resolves.not.toBeInstanceOf(Error);
    expect(requests.poll()).toBe(-1);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('what a signal of the caller does when its listener is removed', () => {
  it('a reset: the others who wait are told why they wait no longer', async () => {
    const { ask, driver, device } = make();
    const resetting = signal({
      remove: () => {
        driver.reset();
      },
    });
    const first = ask({ signal: resetting });
    const second = ask({});
    const third = ask({});
    await turns();
    driver.fail(new VirtioError('IO_ERROR', 'all of it'));
    for (const one of [first, second, third]) await expect(one).resolves.toEqual(coded('IO_ERROR'));
    await turns();
    expect(driver.failure).toBeUndefined();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('a disposal while one queue is reset: the device is not touched any more', async () => {
    const { ask, driver, device, transport } = make(undefined, CommonFeatures.set('RING_RESET').bits);
    const disposing = signal({
      remove: () => {
        driver[Symbol.dispose]();
      },
    });
    const asked = ask({ signal: disposing });
    await turns();
    const disposed: boolean[] = [];
    const reset = transport.queueReset.bind(transport);
    vi.spyOn(transport, 'queueReset').mockImplementation((queue) => {
      disposed.push(driver.failure !== undefined);
      reset(queue);
    });
    driver.resetQueue(0);
    expect(disposed).toEqual([false]);
    await expect(asked).resolves.toEqual(coded('DEVICE_RESET'));
    await turns();
    expect(driver.failure?.code).toBe('DISPOSED');
    device.assertClean();
  });
});

describe('a source of interrupts that polls by itself', () => {
  it('is told of what its polls found, and not of those that found nothing', async () => {
    const interrupts = new FakePolling();
    const brought = vi.spyOn(interrupts.lookout, 'brought');
    try {
      const { ask, answer, driver, device } = make(interrupts);
      const waits = driver.receive.wait().catch((error: unknown) => error);
      const asked = ask({});
      await turns();
      for (let n = 0; n < 5; n += 1) interrupts.turn();
      expect(brought, 'the device has used nothing').not.toHaveBeenCalled();
      answer();
      interrupts.turn();
      await expect(asked).resolves.toBe(4);
      expect(brought).toHaveBeenCalledTimes(1);
      device.automatic = true;
      device.send(1, Uint8Array.of(1));
      interrupts.turn();
      expect(brought).toHaveBeenCalledTimes(2);
      interrupts.turn();
      expect(brought).toHaveBeenCalledTimes(2);
      driver[Symbol.dispose]();
      await expect(waits).resolves.toEqual(coded('DISPOSED'));
    } finally {
      brought.mockRestore();
    }
  });
});
