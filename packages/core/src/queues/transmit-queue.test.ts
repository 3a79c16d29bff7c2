import { type Chain, FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { DeviceType } from '../device/device-type.ts';
import { BufferDriver } from '../device/buffer-driver.ts';
import { FeatureTable } from '../device/features.ts';
import type { Transport } from '../device/transport.ts';
import type { Hal } from '../memory/hal.ts';
import type { TransmitQueue } from './transmit-queue.ts';
import { coded } from '../../test/helpers.ts';

const None = new FeatureTable<never>('NoFeatures', {});

class Sender extends BufferDriver<never> {
  readonly sent: TransmitQueue;

  constructor(transport: Transport, hal: Hal, buffers?: number, head?: number) {
    super(transport, hal, { deviceType: DeviceType.Console, table: None, supported: [] });
    this.sent = this.setUp(() => this.createTransmitQueue({ index: 0, bufferSize: 16, buffers, head }));
    this.start();
  }
}

function rig(features = 0n, buffers?: number, head?: number) {
  const device = new FakeDevice({ type: DeviceType.Console, features, queues: [4] });
  const got: number[][] = [];
  const pieces: number[][] = [];
  device.handle(0, (chain) => {
    got.push([...chain.bytes()]);
    pieces.push(chain.elements.map(({ length }) => length));
  });
  const transport = new FakeTransport(device);
  const driver = new Sender(transport, device.hal, buffers, head);
  const end = (): void => {
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { device, transport, driver, queue: driver.sent, got, pieces, end };
}

describe.each(ringVariants)('a transmit queue: $name', ({ features }) => {
  it('sends what was filled, and takes buffers back without interrupts', () => {
    const { transport, queue, got, end } = rig(features);
    for (let n = 0; n < 50; n += 1) {
      const number = queue.take();
      queue.buffer(number).set([n, n + 1, n + 2]);
      queue.send(number, 3);
      queue.kick();
    }
    expect(got).toEqual(Array.from({ length: 50 }, (_, n) => [n, n + 1, n + 2]));
    expect(transport.interrupts?.delivered).toBe(0);
    queue.drain();
    expect([queue.available, queue.idle]).toEqual([4, true]);
    end();
  });

  it('gives the head of each buffer a descriptor of its own, if that is wanted', () => {
    const { queue, pieces, got, end } = rig(features, undefined, 5);
    expect(queue.buffers).toBe(queue.queue.descriptorsFor(2) === 1 ? 4 : 2);
    for (let n = 0; n < 20; n += 1) {
      const number = queue.take();
      queue.buffer(number).fill(n);
      queue.send(number, n % 2 === 0 ? 5 : 16);
      queue.kick();
    }
    expect(pieces.slice(0, 2)).toEqual([[5], [5, 11]]);
    expect(got.at(-1)).toEqual(Array.from({ length: 16 }, () => 19));
    end();
  });

  it('tells whether there is something used, and takes nothing by that', () => {
    const { device, queue, end } = rig(features);
    device.automatic = false;
    queue.send(queue.take(), 1);
    queue.kick();
    expect(queue.queue.hasUsed()).toBe(false);
    device.run();
    expect([queue.queue.hasUsed(), queue.queue.hasUsed()]).toEqual([true, true]);
    queue.drain();
    expect([queue.queue.hasUsed(), queue.available]).toEqual([false, 4]);
    end();
  });

  it('is whole again after a reset, whatever was in flight or taken', () => {
    const { device, driver, queue, end } = rig(features);
    device.automatic = false;
    queue.send(queue.take(), 1);
    queue.kick();
    const taken = queue.take();
    driver.reset();
    expect(queue.available).toBe(4);
    expect(() => {
      queue.send(taken, 1);
    }).toThrow(coded('INVALID_PARAM'));
    end();
  });
});

describe('a transmit queue', () => {
  it('has no buffer while the device has all, and wakes who waits for one', async () => {
    const { device, transport, queue, end } = rig();
    device.automatic = false;
    for (let n = 0; n < 4; n += 1) queue.send(queue.take(), 1);
    queue.kickSoon();
    await Promise.resolve();
    expect(queue.take()).toBe(-1);
    const waiting = queue.wait();
    expect(transport.interrupts?.holds).toBe(1);
    device.run();
    await waiting;
    expect(queue.take()).toBeGreaterThanOrEqual(0);
    expect(transport.interrupts?.holds).toBe(0);
    end();
  });

  it('gets a buffer back unsent, once', () => {
    const { queue, end } = rig(0n, 1);
    const number = queue.take();
    expect(queue.take()).toBe(-1);
    queue.putBack(number);
    expect(() => {
      queue.putBack(number);
    }).toThrow(coded('INVALID_PARAM'));
    expect(queue.take()).toBe(number);
    expect(() => {
      queue.send(number, 17);
    }).toThrow(coded('INVALID_PARAM'));
    queue.send(number, 16);
    end();
  });
});

describe('a transmit queue that is never idle', () => {
  it('tells whether what was sent before is used, in whatever order the device does it', () => {
    const device = new FakeDevice({ type: DeviceType.Console, queues: [4] });
    const driver = new Sender(new FakeTransport(device), device.hal);
    const { sent: queue } = driver;
    const chains: (Chain | undefined)[] = [];
    const send = (): void => {
      queue.send(queue.take(), 3);
      queue.kick();
      chains.push(device.queue(0).pop());
    };
    const use = (nth: number): void => {
      chains[nth]?.complete();
      queue.drain();
    };
    expect([queue.sends, queue.hasUsedFirst(0)]).toEqual([0, true]);
    send();
    send();
    const { sends } = queue;
    send();
    expect([sends, queue.hasUsedFirst(sends)]).toEqual([2, false]);
    for (const [nth, isUsed] of [
      [2, false],
      [1, false],
      [0, true],
    ] as const) {
      use(nth);
      send();
      expect(queue.hasUsedFirst(sends)).toBe(isUsed);
      expect(queue.idle).toBe(false);
    }
    driver.reset();
    expect(queue.hasUsedFirst(queue.sends)).toBe(true);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});
