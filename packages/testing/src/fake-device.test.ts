import {
  BufferChains,
  CommonFeatures,
  createQueue,
  DeviceStatus,
  DeviceType,
  FeatureTable,
  InterruptStatus,
  Layout,
  QUEUE_FEATURES,
  VirtioError,
} from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import type { Chain } from './chain.ts';
import { FakeDevice, type FakeDeviceOptions } from './fake-device.ts';
import { FakeTransport } from './fake-transport.ts';
import { ringVariants } from './ring-variants.ts';

const table = new FeatureTable('TestFeatures', { OWN: 3 });
const TestConfig = new Layout('test_config', { size: 'u32', wide: 'u64', byte: 'u8' });

function setUp(options: Partial<FakeDeviceOptions> = {}) {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [8, 4], config: 16, ...options });
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table, supported: [...QUEUE_FEATURES, 'OWN'] });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size: 8 });
  const goLive = () => {
    transport.finishInit();
    return { device, transport, queue };
  };
  return { device, transport, queue, goLive };
}

const live = (options: Partial<FakeDeviceOptions> = {}) => setUp(options).goLive();

describe.each(ringVariants)("core's queue against the device's side: $name", ({ features, packed }) => {
  it('carries requests there and back over several laps', () => {
    const { device, transport, queue } = live({ features });
    expect(device.queue(0) === (packed ? device.packedQueue(0) : device.splitQueue(0))).toBe(true);
    device.handle(0, (chain) => {
      chain.write(chain.bytes().map((byte) => byte ^ 0xff));
    });
    for (let n = 0; n < 50; n += 1) {
      const reply = new Uint8Array(6);
      const parts = [Uint8Array.of(n, 1, 2), Uint8Array.of(3), Uint8Array.of(4, 5)];
      const readable = parts.slice(0, 1 + (n % 3));
      const length = BufferChains.of(queue).addNotifyWaitPop(readable, [
        reply.subarray(0, 4),
        reply.subarray(4),
      ]);
      const sent = readable.flatMap((part) => [...part]);
      expect(length).toBe(sent.length);
      expect([...reply.subarray(0, length)]).toEqual(sent.map((byte) => byte ^ 0xff));
    }
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('is notified of each batch that it waits for, and of none that it does not', () => {
    const { device, queue } = live({ features });
    device.handle(0, () => undefined);
    const submit = () => {
      BufferChains.of(queue).add([Uint8Array.of(1)], []);
      const notified = queue.kick();
      if (!notified) device.run();
      BufferChains.of(queue).popUsed(BufferChains.of(queue).peekUsed());
      return notified;
    };
    for (let n = 0; n < 20; n += 1) expect(submit()).toBe(true);
    device.queue(0).suppressNotifications();
    for (let n = 0; n < 20; n += 1) expect(submit()).toBe(false);
    device.queue(0).enableNotifications();
    for (let n = 0; n < 20; n += 1) expect(submit()).toBe(true);
    expect(device.queues[0]?.notifications).toBe(40);
    device.assertObeyed();
  });
});

it('offers each combination of ring features once', () => {
  expect(new Set(ringVariants.map(({ features }) => features)).size).toBe(16);
  expect(ringVariants.map(({ name }) => name)).toContain('packed, indirect, event index, in order');
});

describe('handlers', () => {
  it('complete a chain when they return, with what they wrote', () => {
    const { device, queue } = live();
    device.handle(0, (chain) => {
      chain.write([1, 2]);
    });
    expect(BufferChains.of(queue).addNotifyWaitPop([], [new Uint8Array(4)])).toBe(2);
  });

  it('may be asynchronous', async () => {
    const { device, queue, transport } = live();
    const interrupt = vi.fn();
    transport.interrupts?.onQueue(0, interrupt);
    device.handle(0, async (chain) => {
      await Promise.resolve();
      chain.write([1]);
    });
    queue.enableInterrupts();
    const token = BufferChains.of(queue).add([], [new Uint8Array(4)]);
    queue.kick();
    expect(BufferChains.of(queue).peekUsed()).toBe(-1);
    await vi.waitFor(() => {
      expect(interrupt).toHaveBeenCalledOnce();
    });
    expect(BufferChains.of(queue).popUsed(token)).toBe(1);
  });

  it('may keep a chain and complete it later, in any order, or never', () => {
    const { device, queue } = live();
    const kept: Chain[] = [];
    device.handle(0, (chain) => {
      kept.push(chain);
      chain.defer();
    });
    const tokens = [1, 2, 3].map((n) => BufferChains.of(queue).add([Uint8Array.of(n)], []));
    queue.kick();
    expect(kept.map((chain) => [...chain.bytes()])).toEqual([[1], [2], [3]]);
    expect(BufferChains.of(queue).peekUsed()).toBe(-1);
    kept[2]?.complete();
    kept[0]?.complete();
    expect([queue.pop(), queue.pop(), queue.pop()]).toEqual([tokens[2], tokens[0], -1]);
    expect(kept.map((chain) => chain.pending)).toEqual([false, true, false]);
  });

  it('may complete a chain themselves, with a lie', () => {
    const { device, queue } = live();
    device.handle(0, (chain) => {
      chain.complete(99);
    });
    const quirks: string[] = [];
    queue.onQuirk = (message) => quirks.push(message);
    BufferChains.of(queue).add([], [new Uint8Array(4)]);
    queue.kick();
    queue.pop();
    expect(quirks).toEqual([expect.stringContaining('99 bytes')]);
  });

  it('may complete all of a run at once in another order', () => {
    const { device, queue, transport } = live();
    const interrupt = vi.fn();
    transport.interrupts?.onQueue(0, interrupt);
    device.handle(0, () => undefined);
    device.reorder = (chains) => chains.reverse();
    const tokens = [1, 2, 3].map((n) => BufferChains.of(queue).add([Uint8Array.of(n)], []));
    queue.kick();
    expect([queue.pop(), queue.pop(), queue.pop()]).toEqual(tokens.reverse());
  });

  it('run when the test says so, if it says so', () => {
    const { device, queue } = live();
    device.automatic = false;
    const handler = vi.fn();
    device.handle(0, handler);
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    BufferChains.of(queue).add([Uint8Array.of(2)], []);
    queue.kick();
    expect(handler).not.toHaveBeenCalled();
    expect(device.run()).toBe(2);
    expect(device.run()).toBe(0);
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('leave queues without one to the test', () => {
    const { device, queue } = live();
    const token = BufferChains.of(queue).add([Uint8Array.of(5)], [new Uint8Array(3)]);
    queue.kick();
    const chain = device.queue(0).pop();
    expect([...(chain?.bytes() ?? [])]).toEqual([5]);
    expect(device.queue(0).pop()).toBeUndefined();
    chain?.write([6]).complete();
    expect(BufferChains.of(queue).popUsed(token)).toBe(1);
  });
});

describe('sending unasked', () => {
  it('fills the next buffer of the driver', () => {
    const { device, queue } = live();
    expect(device.send(0, [1])).toBe(false);
    const buffer = new Uint8Array(4);
    const token = BufferChains.of(queue).add([], [buffer]);
    expect(device.send(0, [1, 2, 3])).toBe(true);
    expect(BufferChains.of(queue).popUsed(token)).toBe(3);
    expect([...buffer.subarray(0, 3)]).toEqual([1, 2, 3]);
  });

  it('does not happen before DRIVER_OK [2.1.2]', () => {
    const { device, queue, goLive } = setUp();
    BufferChains.of(queue).add([], [new Uint8Array(4)]);
    expect(device.send(0, [1])).toBe(false);
    device.handle(0, () => undefined);
    expect(device.run()).toBe(0);
    goLive();
    expect(device.run()).toBe(1);
  });
});

describe('the configuration space', () => {
  it('is read and written, little-endian', () => {
    const { device, transport } = live();
    const written = vi.fn();
    device.onConfigWrite = written;
    device.config.set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(transport.readConfigLayout(TestConfig)).toMatchObject({
      size: 0x04030201,
      wide: 0x0c0b0a0908070605n,
    });
    transport.writeConfigSpace(TestConfig.fields.size, 0xfffefdfc);
    expect([...device.config.subarray(0, 4)]).toEqual([0xfc, 0xfd, 0xfe, 0xff]);
    expect(written).toHaveBeenCalledWith(0, 4, 0xfffefdfc);
    device.assertObeyed();
  });

  it('changes with a new generation and an interrupt', async () => {
    const { device, transport } = live();
    const changed = vi.fn();
    transport.interrupts?.onConfig(changed);
    device.changeConfig((config) => {
      config.setUint32(0, 7, true);
    });
    expect(transport.readConfigSpace(TestConfig.fields.size)).toBe(7);
    expect(transport.readConfigGeneration()).toBe(1);
    expect(transport.ackInterrupt().bits).toBe(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT);
    expect(transport.ackInterrupt().bits).toBe(0);
    await Promise.resolve();
    expect(changed).toHaveBeenCalledOnce();
  });

  it('takes its bytes from the test, not by reference', () => {
    const bytes = Uint8Array.of(1, 2);
    const { device } = setUp({ config: bytes });
    device.config[0] = 9;
    expect(bytes[0]).toBe(1);
  });
});

describe('a device in trouble', () => {
  it('refuses features [3.1.1]', () => {
    const device = new FakeDevice({ type: DeviceType.Block });
    device.acceptsFeatures = () => false;
    const transport = new FakeTransport(device);
    expect(() => transport.beginInit({ table, supported: [] })).toThrow('does not accept');
    expect(device.status.has(DeviceStatus.FAILED)).toBe(true);
    device.assertObeyed();
  });

  it('takes its time to reset', () => {
    const { device, transport } = live();
    device.resetReads = 3;
    transport.setStatus(DeviceStatus.from(0));
    expect([0, 1, 2, 3].map(() => transport.getStatus().bits !== 0)).toEqual([true, true, true, false]);
  });

  it('never finishes a reset', () => {
    const { device, transport } = live();
    device.resetHangs = true;
    let now = 0;
    vi.spyOn(Date, 'now').mockImplementation(() => (now += 1000));
    expect(() => {
      transport.reset();
    }).toThrow('may hang');
  });

  it('needs a reset, and says so with a configuration interrupt [2.1.2]', async () => {
    const { device, transport } = live();
    const changed = vi.fn();
    transport.interrupts?.onConfig(changed);
    device.needsReset();
    await Promise.resolve();
    expect(changed).toHaveBeenCalledOnce();
    expect(() => {
      transport.checkAlive();
    }).toThrow('needs a reset');
    transport.setStatus(DeviceStatus.from(0x8f));
    expect(device.status.bits).toBe(0xcf);
    transport.reset();
    expect(device.status.bits).toBe(0);
  });

  it('is unplugged', async () => {
    const { device, transport, queue } = live();
    const removed = vi.fn();
    transport.interrupts?.onRemoval(removed);
    device.remove();
    await Promise.resolve();
    expect(removed).toHaveBeenCalledOnce();
    expect(transport.getStatus().bits).toBe(0xff);
    expect(transport.readConfigSpace(TestConfig.fields.size)).toBe(0xffffffff);
    expect(transport.readConfigSpace(TestConfig.fields.byte)).toBe(0xff);
    transport.setStatus(DeviceStatus.from(0));
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    expect(device.run()).toBe(0);
    // Memory may go back while a device that is gone still has it.
    BufferChains.of(queue).forget();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('forgets its chains when it is reset, and lets late completions be', () => {
    const { device, transport, queue } = live();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    const chain = device.queue(0).pop();
    const reset = vi.fn();
    device.onReset = reset;
    transport.reset();
    expect(reset).toHaveBeenCalledOnce();
    expect(chain?.pending).toBe(false);
    expect(chain?.complete()).toBe(false);
    expect(() => device.queue(0)).toThrow('has not enabled');
    expect(device.accepted).toBe(0n);
  });
});

describe('a driver that breaks the rules of initialization', () => {
  const status = (transport: FakeTransport, ...bits: number[]) => {
    for (const value of bits) transport.setStatus(DeviceStatus.from(value));
  };
  const bare = (options: Partial<FakeDeviceOptions> = {}) => {
    const device = new FakeDevice({ type: DeviceType.Block, queues: [8], config: 8, ...options });
    return { device, transport: new FakeTransport(device) };
  };
  const messages = (device: FakeDevice) => device.violations.map(({ message }) => message).join('; ');

  it.each<[string, (transport: FakeTransport, device: FakeDevice) => void, string]>([
    [
      'clearing a status bit [2.1.1]',
      (t) => {
        status(t, 3, 1);
      },
      'a bit was cleared',
    ],
    [
      'DRIVER before ACKNOWLEDGE [3.1.1]',
      (t) => {
        status(t, 2);
      },
      'before ACKNOWLEDGE',
    ],
    [
      'DRIVER_OK without FEATURES_OK [3.1.1]',
      (t) => {
        status(t, 3, 7);
      },
      'without FEATURES_OK',
    ],
    [
      'going on after FAILED [2.1.1]',
      (t) => {
        status(t, 1, 129, 131);
      },
      'after FAILED',
    ],
    [
      'accepting what is not offered [2.2.1]',
      (t) => {
        status(t, 3);
        t.writeDriverFeatures((1n << 32n) | 1n);
        status(t, 11);
      },
      'not offered',
    ],
    [
      'not accepting VERSION_1 [6.1]',
      (t) => {
        status(t, 3);
        t.writeDriverFeatures(0n);
        status(t, 11);
      },
      'VERSION_1',
    ],
    [
      'features after FEATURES_OK [3.1.1]',
      (t) => {
        status(t, 3);
        t.writeDriverFeatures(1n << 32n);
        status(t, 11);
        t.writeDriverFeatures(1n << 32n);
      },
      'after FEATURES_OK',
    ],
    [
      'DRIVER_OK without a look whether FEATURES_OK was kept [3.1.1]',
      (t) => {
        status(t, 3);
        t.writeDriverFeatures(1n << 32n);
        status(t, 11, 15);
      },
      'DRIVER_OK was set, and the status was not read',
    ],
    [
      'a queue without a look whether FEATURES_OK was kept [3.1.1]',
      (t, { hal }) => {
        status(t, 3);
        t.writeDriverFeatures(1n << 32n);
        status(t, 11);
        const { address } = hal.dmaAlloc(1, 'both', false);
        t.queueSet(0, 8, address, address + 128, address + 256);
      },
      'queue 0 was enabled, and the status was not read',
    ],
    [
      'starting before a reset is complete [4.1.4.3.2]',
      (t, device) => {
        status(t, 1);
        device.resetReads = 3;
        status(t, 0);
        t.setStatus(t.getStatus().with(2));
      },
      'before it read as 0 after a reset',
    ],
    [
      'writing the configuration before FEATURES_OK [3.1.1]',
      (t) => {
        status(t, 3);
        t.writeConfig(0, 1, 1);
      },
      'before FEATURES_OK',
    ],
    [
      'reading the configuration unaligned [4.2.2.2]',
      (t) => {
        t.readConfig(2, 4);
      },
      'not aligned',
    ],
  ])('is told of %s', (_, act, message) => {
    const { device, transport } = bare();
    act(transport, device);
    expect(messages(device)).toContain(message);
    expect(() => {
      device.assertClean();
    }).toThrow('violated the specification');
  });

  it('is told at once of what a device could not survive', () => {
    const { device, transport } = bare();
    expect(() => transport.readConfig(8, 1)).toThrow('has 8 bytes');
    expect(() => {
      transport.queueSet(0, 16, 4096, 4096, 4096);
    }).toThrow('8 is the limit');
    expect(() => {
      transport.queueSet(1, 8, 4096, 4096, 4096);
    }).toThrow('does not exist');
    expect(() => {
      transport.notify(0, 0);
    }).toThrow('not enabled');
    expect(messages(device)).toContain('before FEATURES_OK');
  });

  it('is told of FEATURES_OK through the legacy interface [3.1.2]', () => {
    const { device, transport } = bare({ legacy: true });
    status(transport, 3, 11);
    expect(messages(device)).toContain('legacy');
  });

  it('is told of a notification before DRIVER_OK [3.1.1]', () => {
    const { device, queue } = setUp();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    expect(() => queue.kick()).toThrow('before DRIVER_OK');
    expect(device.violations).toHaveLength(1);
  });

  it('is told of a queue enabled twice', () => {
    const { transport } = live();
    expect(() => {
      transport.queueSet(0, 8, 4096, 4096, 4096);
    }).toThrow('twice');
  });

  it('is told of memory taken back from a device that uses it [2.6.1.1]', () => {
    const { device, queue } = live();
    const buffer = Uint8Array.of(1);
    BufferChains.of(queue).add([buffer], []);
    queue.kick();
    const chain = device.queue(0).pop();
    const address = chain?.elements[0]?.address ?? 0;
    device.hal.unshare(address, buffer, 'driver-to-device', false);
    expect(messages(device)).toContain('shared buffer of 1 bytes was taken back');
    const [region] = device.hal.regions;
    if (region) device.hal.dmaDealloc(region, false);
    expect(messages(device)).toContain('DMA region');
  });

  it('is told of a notification that lies about the ring [2.9]', () => {
    const { device, transport, queue } = live({ features: CommonFeatures.set('NOTIFICATION_DATA').bits });
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    expect(() => {
      transport.notify(0, 5);
    }).toThrow('says that 0x5 is next; it is 0x1');
    transport.notify(0, 1);
    expect(device.notifications.map(({ next }) => next)).toEqual([5, 1]);
  });
});

describe('the fake transport', () => {
  it('records notifications and calls the test', () => {
    const { device, queue } = live();
    const seen = vi.fn();
    device.onNotify = seen;
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    device.recordNotifications = false;
    device.queue(0).pop();
    device.queue(0).pop();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    expect(seen).toHaveBeenCalledWith(0, 0);
    expect(device.notifications).toEqual([{ queue: 0, next: 0 }]);
    expect(device.queues[0]?.notifications).toBe(2);
  });

  it('resets one queue [2.6.1]', () => {
    const { device, transport, queue } = live({ features: CommonFeatures.set('RING_RESET').bits });
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    const ring = device.queue(0);
    transport.queueReset(0);
    expect(ring.live).toBe(false);
    expect(transport.queueUsed(0)).toBe(false);
    queue.reset();
    expect(device.queue(0)).not.toBe(ring);
    const other = live();
    expect(() => {
      other.transport.queueReset(0);
    }).toThrow(VirtioError);
  });

  it('may have no interrupts', () => {
    const device = new FakeDevice({ type: DeviceType.Block });
    expect(new FakeTransport(device, { interrupts: false }).interrupts).toBeUndefined();
    expect(new FakeTransport(device, { name: 'x' }).name).toBe('x');
  });

  it('takes a legacy device to the legacy layout', () => {
    const { device, transport, queue } = live({
      legacy: true,
      features: CommonFeatures.set('INDIRECT_DESC').bits,
    });
    expect(transport.requiresLegacyLayout()).toBe(true);
    expect(transport.guestPageSize).toBe(4096);
    device.handle(0, (chain) => {
      chain.write([1]);
    });
    expect(BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(1)], [new Uint8Array(1)])).toBe(1);
    device.assertObeyed();
  });

  it('resets a device that is still running when it is disposed', () => {
    const { device, transport } = live();
    transport[Symbol.dispose]();
    expect(transport.disposed).toBe(1);
    expect(device.status.bits).toBe(0);
  });

  it('tells of shared memory', () => {
    const { transport } = live({ sharedMemory: { 3: { address: 4096, length: 100 } } });
    expect(transport.sharedMemory(3)).toEqual({ address: 4096, length: 100 });
    expect(transport.sharedMemory(0)).toBeUndefined();
  });

  it('counts the queues that there are', () => {
    const { transport } = live();
    expect([0, 1, 2, 0x1_0000].map((queue) => transport.maxQueueSize(queue))).toEqual([8, 4, 0, 0]);
    transport.queueUnset(0);
    expect(transport.queueUsed(0)).toBe(false);
  });
});
