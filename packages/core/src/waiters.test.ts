import { FakeDevice, FakeInterrupts, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import type { WaitOptions } from './wait.ts';
import { createQueue } from './create-queue.ts';
import { DeviceType } from './device-type.ts';
import { QUEUE_FEATURES } from './driver.ts';
import { VirtioError } from './errors.ts';
import { CommonFeatures } from './features.ts';
import { OwningQueue } from './owning-queue.ts';
import { Waiters, type WaitersOptions } from './waiters.ts';

const coded = (code: string): Error => expect.objectContaining({ code }) as Error;
const ticks = async (): Promise<void> => {
  for (let i = 0; i < 8; i += 1) await Promise.resolve();
};

interface RigOptions extends Pick<WaitersOptions, 'always'> {
  readonly features?: bigint;
  readonly interrupts?: FakeInterrupts | false;
}

/** Hands on the first byte of each buffer that the device sends. */
function rig({ features = 0n, interrupts = new FakeInterrupts(), always = false }: RigOptions = {}) {
  const device = new FakeDevice({ type: DeviceType.Input, features, queues: [4] });
  const transport = new FakeTransport(device, { interrupts });
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0 });
  const owning = new OwningQueue(queue, device.hal, { bufferSize: 8, accessPlatform: false });
  transport.finishInit();
  owning.postAll();
  const bytes: number[] = [];
  const reports: VirtioError[] = [];
  let looks = 0;
  const drain = (): void => {
    looks += 1;
    try {
      owning.poll((chunk) => bytes.push(chunk[0] as number));
    } catch (error) {
      report(error as VirtioError);
    }
    if (bytes.length > 0) waiters.wake();
    else waiters.settle();
  };
  const report = (error: VirtioError): void => {
    reports.push(error);
    waiters.fail(error);
  };
  const waiters = new Waiters(transport, queue, { drain, report, always });
  const next = async (options?: WaitOptions): Promise<number> => {
    for (;;) {
      drain();
      const byte = bytes.shift();
      if (byte !== undefined) return byte;
      await waiters.wait(options);
    }
  };
  const holds = (): number | undefined => transport.interrupts?.holds;
  const end = (): void => {
    transport.reset();
    queue[Symbol.dispose]();
    owning[Symbol.dispose]();
    device.assertClean();
  };
  return { device, transport, queue, waiters, reports, next, holds, looks: () => looks, end };
}

describe.each(ringVariants)('waiters: $name', ({ features }) => {
  it('lets each of those who wait have what comes, and holds the event loop no longer than that', async () => {
    const { device, next, holds, end } = rig({ features });
    const both = Promise.all([next(), next()]);
    await ticks();
    expect(holds()).toBe(1);
    device.send(0, [1]);
    await ticks();
    expect(holds()).toBe(1);
    device.send(0, [2]);
    expect(await both).toEqual([1, 2]);
    expect(holds()).toBe(0);
    end();
  });

  it('misses nothing that the device used before interrupts were asked for', async () => {
    const { device, waiters, queue, transport } = rig({ features });
    queue.disableInterrupts();
    device.send(0, [7]);
    await ticks();
    expect(transport.interrupts?.delivered).toBe(0);
    await waiters.wait();
  });
});

describe('waiters', () => {
  it('ask for no interrupts while nobody waits', async () => {
    const { device, next, transport } = rig();
    const byte = next();
    device.send(0, [1]);
    expect(await byte).toBe(1);
    const { delivered } = transport.interrupts as FakeInterrupts;
    device.send(0, [2]);
    await ticks();
    expect(transport.interrupts?.delivered).toBe(delivered);
  });

  it('leave interrupts on if the driver always wants them', async () => {
    const { device, next, looks, holds } = rig({ always: true });
    const byte = next();
    device.send(0, [1]);
    expect(await byte).toBe(1);
    const before = looks();
    device.send(0, [2]);
    await ticks();
    expect(looks()).toBeGreaterThan(before);
    expect(holds()).toBe(0);
  });

  it('are cancelled by a signal, one at a time, and lose nothing', async () => {
    const { device, next, holds } = rig();
    const controller = new AbortController();
    const cancelled = next({ signal: controller.signal });
    const other = next();
    controller.abort('enough');
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    expect(holds()).toBe(1);
    device.send(0, [3]);
    expect(await other).toBe(3);
    await expect(next({ signal: controller.signal })).rejects.toThrow(coded('ABORTED'));
    expect(holds()).toBe(0);
  });

  it('leave no listener with a signal, however the wait ended', async () => {
    const { device, next, waiters } = rig();
    const listeners = new Set<() => void>();
    const signal = {
      aborted: false,
      addEventListener: (_type: 'abort', listener: () => void) => void listeners.add(listener),
      removeEventListener: (_type: 'abort', listener: () => void) => void listeners.delete(listener),
    };
    const fulfilled = next({ signal });
    device.send(0, [1]);
    await fulfilled;
    const failed = next({ signal });
    waiters.fail(new VirtioError('DEVICE_REMOVED', 'gone'));
    await expect(failed).rejects.toThrow(coded('DEVICE_REMOVED'));
    const cancelled = next({ signal });
    expect(listeners.size).toBe(1);
    for (const listener of listeners) listener();
    await expect(cancelled).rejects.toThrow(coded('ABORTED'));
    expect(listeners.size).toBe(0);
  });

  it('end with the error when the device lies, and so do later ones', async () => {
    const { device, next, waiters, reports, holds } = rig();
    const byte = next();
    await ticks();
    device.queue(0).forceUsed(99, 1);
    device.front?.interruptQueue(0);
    await expect(byte).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    await expect(waiters.wait()).rejects.toThrow(coded('DEVICE_MISBEHAVED'));
    expect(reports.length).toBeGreaterThan(0);
    expect(holds()).toBe(0);
  });

  it('cannot be kept without interrupts, and say so', async () => {
    const { waiters } = rig({ interrupts: false });
    await expect(waiters.wait()).rejects.toThrow(coded('UNSUPPORTED'));
  });
});
