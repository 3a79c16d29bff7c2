import { FakeDevice, FakeInterrupts, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { DeviceType } from '../device/device-type.ts';
import { BufferDriver } from '../device/buffer-driver.ts';
import { FeatureTable } from '../device/features.ts';
import { VirtioError } from '../errors.ts';
import type { Hal } from '../memory/hal.ts';
import type { Transport } from '../device/transport.ts';
import type { ReceiveQueue, ReceiveQueueOptions } from './receive-queue.ts';
import type { WaitOptions } from './wait.ts';
import { coded, turns } from '../../test/helpers.ts';

const None = new FeatureTable<never>('NoFeatures', {});

/** Hands on the first byte of each buffer that the device sends. */
class Bytes extends BufferDriver<never> {
  readonly received: ReceiveQueue;
  readonly bytes: number[] = [];
  looks = 0;
  restarts = 0;

  constructor(transport: Transport, hal: Hal, options: Partial<ReceiveQueueOptions> = {}) {
    super(transport, hal, { deviceType: DeviceType.Input, table: None, supported: [] });
    this.received = this.setUp(() =>
      this.createReceiveQueue({
        index: 0,
        bufferSize: 12,
        receive: () => {
          this.looks += 1;
          this.received.poll((chunk) => this.bytes.push(chunk[0] as number));
          return this.bytes.length > 0;
        },
        restarted: () => {
          this.restarts += 1;
        },
        ...options,
      }),
    );
    this.start();
  }

  async next(options?: WaitOptions): Promise<number> {
    for (;;) {
      this.received.drain();
      const byte = this.bytes.shift();
      if (byte !== undefined) return byte;
      await this.received.wait(options);
    }
  }
}

function rig(
  options: Partial<ReceiveQueueOptions> = {},
  {
    features = 0n,
    interrupts = new FakeInterrupts(),
  }: { readonly features?: bigint; readonly interrupts?: FakeInterrupts | false } = {},
) {
  const device = new FakeDevice({ type: DeviceType.Input, features, queues: [4] });
  const transport = new FakeTransport(device, { interrupts });
  const driver = new Bytes(transport, device.hal, options);
  const end = (): void => {
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { device, transport, driver, queue: driver.received, holds: () => transport.interrupts?.holds, end };
}

const manual = { receive: () => false };

describe.each(ringVariants)('a receive queue: $name', ({ features }) => {
  it('hands out what the device sent, in order, and gives the buffers back for ever', () => {
    const { device, queue, end } = rig(manual, { features });
    for (let n = 0; n < 50; n += 1) {
      expect(device.send(0, [n, 1])).toBe(true);
      expect(device.send(0, [n, 2, 3])).toBe(true);
      const seen: number[][] = [];
      expect(queue.poll((bytes) => seen.push([...bytes]))).toBe(2);
      expect(seen).toEqual([
        [n, 1],
        [n, 2, 3],
      ]);
    }
    expect(queue.poll(() => undefined)).toBe(0);
    end();
  });

  it('lets each of those who wait have what comes, and holds the event loop no longer than that', async () => {
    const { device, driver, holds, end } = rig({}, { features });
    const both = Promise.all([driver.next(), driver.next()]);
    await turns();
    expect(holds()).toBe(1);
    device.send(0, [1]);
    await turns();
    expect(holds()).toBe(1);
    device.send(0, [2]);
    expect(await both).toEqual([1, 2]);
    expect(holds()).toBe(0);
    end();
  });

  it('misses nothing that the device used before interrupts were asked for', async () => {
    const { device, driver, queue, transport, end } = rig({}, { features });
    device.send(0, [7]);
    await turns();
    expect(transport.interrupts?.delivered).toBe(0);
    await queue.wait();
    expect(driver.bytes).toEqual([7]);
    end();
  });

  it('begins anew after a reset, and a buffer from before it is void', () => {
    const { device, driver, queue, end } = rig(manual, { features });
    device.send(0, [1]);
    const buffer = queue.pop();
    driver.reset();
    expect(driver.restarts).toBe(1);
    expect(() => {
      queue.repost(buffer);
    }).toThrow(coded('INVALID_PARAM'));
    for (let n = 0; n < 4; n += 1) expect(device.send(0, [n])).toBe(true);
    expect(queue.poll(() => undefined)).toBe(4);
    end();
  });
});

describe('a receive queue', () => {
  it('keeps a buffer until it is given back', () => {
    const { device, queue, end } = rig(manual);
    device.send(0, [1]);
    const buffer = queue.pop();
    expect([queue.usedLength, queue.buffer(buffer).length, queue.buffer(buffer)[0]]).toEqual([1, 12, 1]);
    for (let n = 0; n < 3; n += 1) expect(device.send(0, [9])).toBe(true);
    expect(device.send(0, [9])).toBe(false);
    expect(queue.buffer(buffer)[0]).toBe(1);
    queue.repost(buffer);
    expect(() => {
      queue.repost(buffer);
    }).toThrow(coded('INVALID_PARAM'));
    queue.kick();
    expect(device.send(0, [2])).toBe(true);
    end();
  });

  it('gives a buffer back when its handler throws', () => {
    const { device, queue, end } = rig({ ...manual, buffers: 1 });
    device.send(0, [1]);
    expect(() =>
      queue.poll(() => {
        throw new Error('handler');
      }),
    ).toThrow('handler');
    expect(device.send(0, [2])).toBe(true);
    end();
  });

  it('takes each buffer once a round, however fast the device refills them', () => {
    const { device, queue, end } = rig(manual);
    device.send(0, [0]);
    let count = 0;
    const polled = queue.poll(() => {
      count += 1;
      device.send(0, [count]);
    });
    expect(polled).toBeLessThanOrEqual(4);
    end();
  });

  it('may be reset and disposed by a handler', () => {
    const { device, driver, queue, end } = rig(manual);
    device.send(0, [1]);
    device.send(0, [2]);
    queue.poll(() => {
      driver.reset();
    });
    expect(device.send(0, [3])).toBe(true);
    queue.poll(() => {
      driver[Symbol.dispose]();
    });
    end();
  });

  it('asks for no interrupts while nobody waits, unless they are always wanted', async () => {
    const { device, driver, transport, holds } = rig();
    const byte = driver.next();
    device.send(0, [1]);
    expect(await byte).toBe(1);
    const { delivered } = transport.interrupts as FakeInterrupts;
    device.send(0, [2]);
    await turns();
    expect(transport.interrupts?.delivered).toBe(delivered);
    expect(holds()).toBe(0);

    const always = rig({ always: true });
    always.device.send(0, [1]);
    await turns();
    expect(always.driver.bytes).toEqual([1]);
    expect(always.holds()).toBe(0);
  });

  it('lets waits be cancelled, one at a time, and loses nothing', async () => {
    const { device, driver, holds, end } = rig();
    const controller = new AbortController();
    const cancelled = driver.next({ signal: controller.signal });
    const other = driver.next();
    controller.abort('enough');
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    expect(holds()).toBe(1);
    device.send(0, [3]);
    expect(await other).toBe(3);
    await expect(driver.next({ signal: controller.signal })).rejects.toThrow(coded('ABORTED'));
    expect(holds()).toBe(0);
    end();
  });

  it('leaves no listener with a signal, however the wait ended', async () => {
    const { device, driver } = rig();
    const listeners = new Set<() => void>();
    const signal = {
      aborted: false,
      addEventListener: (_type: 'abort', listener: () => void) => void listeners.add(listener),
      removeEventListener: (_type: 'abort', listener: () => void) => void listeners.delete(listener),
    };
    const fulfilled = driver.next({ signal });
    device.send(0, [1]);
    await fulfilled;
    const failed = driver.next({ signal });
    driver.fail(new VirtioError('DEVICE_REMOVED', 'gone'));
    await expect(failed).rejects.toThrow(coded('DEVICE_REMOVED'));
    driver.reset();
    const cancelled = driver.next({ signal });
    expect(listeners.size).toBe(1);
    for (const listener of listeners) listener();
    await expect(cancelled).rejects.toThrow(coded('ABORTED'));
    expect(listeners.size).toBe(0);
  });

  it('ends waits with the error when the device lies', async () => {
    const { device, driver, queue, holds } = rig();
    const byte = driver.next();
    await turns();
    device.queue(0).forceUsed(99, 1);
    device.front?.interruptQueue(0);
    await expect(byte).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    await expect(queue.wait()).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    expect(driver.failure).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(holds()).toBe(0);
  });

  it('cannot wait without interrupts, and says so', async () => {
    const { queue } = rig({}, { interrupts: false });
    await expect(queue.wait()).rejects.toThrow(coded('UNSUPPORTED'));
  });

  it('lets other work have its turn while a device never stops sending', async () => {
    class Deferring extends FakeInterrupts {
      override defer(callback: () => void): void {
        setImmediate(callback);
      }
    }
    const { device, transport, queue } = rig({}, { interrupts: new Deferring() });
    // What is seen here is what the driver does by itself; real interrupts come between turns of the event loop.
    if (transport.interrupts !== undefined) transport.interrupts.masked = true;
    let flooding = true;
    const refill = (): void => {
      while (flooding && device.send(0, [1]));
    };
    device.onNotify = refill;
    refill();
    const listening = queue.listen(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, 5));
    flooding = false;
    listening();
  });

  it('refuses buffers that make no sense', () => {
    expect(() => rig({ bufferSize: 0 })).toThrow(coded('INVALID_PARAM'));
    expect(() => rig({ bufferSize: 1.5 })).toThrow(coded('INVALID_PARAM'));
    expect(() => rig({ buffers: 0 })).toThrow(coded('INVALID_PARAM'));
    expect(rig({ buffers: 5 }).queue.buffers).toBe(4);
    expect(() => rig().queue.buffer(4)).toThrow(coded('INVALID_PARAM'));
  });
});

describe('spinning on a receive queue', () => {
  it('fails the driver for what it sees of the device, and not for an older error of what is waited for', () => {
    const { device, driver, queue, end } = rig();
    const stale = new VirtioError('DEVICE_NEEDS_RESET', 'a connection ended before the last reset');
    const old = (): never => {
      throw stale;
    };
    expect(() => queue.spin(old)).toThrow(stale);
    expect(driver.failure).toBeUndefined();
    let looks = 0;
    const needing = (): boolean => {
      looks += 1;
      if (looks === 2) device.needsReset();
      return false;
    };
    expect(() => queue.spin(needing, { timeoutMs: 60_000 })).toThrow(coded('DEVICE_NEEDS_RESET'));
    expect(driver.failure?.code).toBe('DEVICE_NEEDS_RESET');
    end();
  });
});
