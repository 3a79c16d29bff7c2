import { FakeDevice, FakeInterrupts, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { BufferDriver } from './buffer-driver.ts';
import { DeviceType } from './device-type.ts';
import { FeatureTable } from './features.ts';
import type { Hal } from '../memory/hal.ts';
import type { ReceiveQueue } from '../queues/receive-queue.ts';
import type { RequestQueue } from '../queues/request-queue.ts';
import type { Transport } from './transport.ts';

const Features = new FeatureTable<never>('Features', {});

/** Far more calls than the stack has room for. */
const ANSWERS = 15_000;

class Sample extends BufferDriver<never> {
  readonly requests: RequestQueue<number>;
  readonly receive: ReceiveQueue;
  received = 0;
  changed = (): void => undefined;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, { deviceType: DeviceType.Crypto, table: Features, supported: [] });
    [this.requests, this.receive] = this.setUp(() => [
      this.createRequestQueue<number>({ index: 0, size: 4 }, { result: (_slot, usedLength) => usedLength }),
      this.createReceiveQueue({
        index: 1,
        size: 4,
        bufferSize: 8,
        always: true,
        receive: () => {
          this.received += this.receive.poll(() => undefined);
          return false;
        },
      }),
    ]);
    this.start();
  }

  submit(): number {
    const { requests } = this;
    const bytes = new Uint8Array(4);
    return requests.submitRequest({
      buffers: 1,
      fill: (slot) => {
        requests.shareWritable(slot, bytes);
      },
      result: (_slot, usedLength) => usedLength,
    });
  }

  completeAll(): void {
    const { requests } = this;
    for (let token = requests.poll(); token >= 0; token = requests.poll()) requests.complete(token);
  }

  protected override onConfigChange(): void {
    this.changed();
  }
}

/** A device whose interrupts are handled at once, inside the driver's notification. `defer` counts what was put off. */
function make() {
  const device = new FakeDevice({ type: DeviceType.Crypto, queues: [4, 4], config: 4 });
  const interrupts = new FakeInterrupts({ synchronous: true });
  let deferred = 0;
  interrupts.defer = (callback) => {
    deferred += 1;
    setImmediate(callback);
  };
  const driver = new Sample(new FakeTransport(device, { interrupts }), device.hal);
  const end = (): void => {
    expect(driver.failure).toBeUndefined();
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { device, driver, end, deferred: () => deferred };
}

describe('a device that interrupts inside each notification', () => {
  it('and fills a buffer each time it is given one, fills no stack and lets other work have a turn', async () => {
    const { device, driver, end, deferred } = make();
    let left = ANSWERS;
    device.onNotify = (queue) => {
      if (queue === 1 && left-- > 0) device.send(1, [1]);
    };
    device.send(1, [1]);
    while (left > 0) await new Promise(setImmediate);
    expect(driver.received).toBeGreaterThanOrEqual(ANSWERS);
    expect(deferred()).toBeGreaterThan(ANSWERS / 8);
    end();
  });

  it('and answers each request of a listener that asks the next one', async () => {
    const { device, driver, end, deferred } = make();
    let left = ANSWERS;
    device.onNotify = (queue) => {
      if (queue === 0) device.send(0, [1]);
    };
    driver.on('used', () => {
      driver.completeAll();
      if (left-- > 0) driver.submit();
    });
    driver.submit();
    while (left > 0) await new Promise(setImmediate);
    expect(deferred()).toBeGreaterThan(0);
    end();
  });

  it('and changes its configuration whenever a listener asks something', async () => {
    const { device, driver, end, deferred } = make();
    let left = ANSWERS;
    device.onNotify = (queue) => {
      if (queue !== 0) return;
      device.send(0, [1]);
      if (left-- > 0) device.changeConfig(() => undefined);
    };
    driver.changed = () => {
      driver.completeAll();
      driver.submit();
    };
    driver.submit();
    while (left > 0) await new Promise(setImmediate);
    expect(deferred()).toBeGreaterThan(ANSWERS / 2);
    end();
  });
});
