import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { createQueue } from './create-queue.ts';
import { DeviceType } from './device-type.ts';
import { QUEUE_FEATURES } from './driver.ts';
import { CommonFeatures } from './features.ts';
import { OwningQueue, type OwningQueueOptions } from './owning-queue.ts';

const coded = (code: string): Error => expect.objectContaining({ code }) as Error;

function make(features = 0n, options: Partial<OwningQueueOptions> = {}) {
  const device = new FakeDevice({ type: DeviceType.Input, features, queues: [4] });
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0 });
  const owning = new OwningQueue(queue, device.hal, { bufferSize: 12, accessPlatform: false, ...options });
  transport.finishInit();
  const end = () => {
    transport.reset();
    queue[Symbol.dispose]();
    owning[Symbol.dispose]();
    owning[Symbol.dispose]();
    device.assertClean();
  };
  return { device, transport, owning, end };
}

describe.each(ringVariants)('a queue that owns its buffers: $name', ({ features }) => {
  it('hands out what the device sent, in order, and gives the buffers back for ever', () => {
    const { device, owning, end } = make(features);
    owning.postAll();
    for (let n = 0; n < 50; n += 1) {
      expect(device.send(0, [n, 1])).toBe(true);
      expect(device.send(0, [n, 2, 3])).toBe(true);
      const seen: number[][] = [];
      expect(owning.poll((bytes) => seen.push([...bytes]))).toBe(2);
      expect(seen).toEqual([
        [n, 1],
        [n, 2, 3],
      ]);
    }
    expect(owning.poll(() => undefined)).toBe(0);
    end();
  });
});

describe('a queue that owns its buffers', () => {
  it('keeps a buffer until it is reposted', () => {
    const { device, owning, end } = make();
    owning.postAll();
    device.send(0, [1]);
    const buffer = owning.pop();
    expect([owning.usedLength, owning.buffer(buffer).length, owning.buffer(buffer)[0]]).toEqual([1, 12, 1]);
    for (let n = 0; n < 3; n += 1) expect(device.send(0, [9])).toBe(true);
    expect(device.send(0, [9])).toBe(false);
    expect(owning.buffer(buffer)[0]).toBe(1);
    owning.repost(buffer);
    expect(() => {
      owning.repost(buffer);
    }).toThrow(coded('INVALID_PARAM'));
    owning.flush();
    expect(device.send(0, [2])).toBe(true);
    end();
  });

  it('gives a buffer back when its handler throws', () => {
    const { device, owning, end } = make(0n, { count: 1 });
    owning.postAll();
    device.send(0, [1]);
    expect(() =>
      owning.poll(() => {
        throw new Error('handler');
      }),
    ).toThrow('handler');
    expect(device.send(0, [2])).toBe(true);
    end();
  });

  it('takes each buffer once a round, however fast the device refills them', () => {
    const { device, owning, end } = make();
    owning.postAll();
    device.send(0, [0]);
    let count = 0;
    const polled = owning.poll(() => {
      count += 1;
      device.send(0, [count]);
    });
    expect(polled).toBeLessThanOrEqual(4);
    end();
  });

  it('begins anew after a reset', () => {
    const { device, transport, owning, end } = make();
    owning.postAll();
    device.send(0, [1]);
    transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
    owning.queue.reset();
    owning.reclaim();
    transport.finishInit();
    owning.postAll();
    for (let n = 0; n < 4; n += 1) expect(device.send(0, [n])).toBe(true);
    expect(owning.poll(() => undefined)).toBe(4);
    end();
  });

  it('refuses buffers that make no sense', () => {
    expect(() => make(0n, { bufferSize: 0 })).toThrow(coded('INVALID_PARAM'));
    expect(() => make(0n, { count: 5 })).toThrow(coded('INVALID_PARAM'));
    expect(() => make().owning.buffer(4)).toThrow(coded('INVALID_PARAM'));
  });
});
