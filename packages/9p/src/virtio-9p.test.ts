import { CommonFeatures, DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { seal, Out } from '../test/memory-server.ts';
import { config, failure, MOUNT_TAG, pattern, same, setUp, settle, usual } from '../test/set-up.ts';
import { encodeMessage } from './codec.ts';
import { T } from './protocol.ts';
import { Virtio9p } from './virtio-9p.ts';

/** A `Tversion`, which is its own answer but for its type. */
function hello(tag = 7): Uint8Array {
  const target = new Uint8Array(64);
  return target.slice(0, encodeMessage(target, tag, T.version, { msize: 8192, version: '9P2000.L' }));
}

/** A device that answers each message with itself, the type one up. */
function echo(features = usual, queue = 128) {
  const device = new FakeDevice({
    type: DeviceType.P9,
    queues: [queue],
    config: config('t'),
    features: features | MOUNT_TAG,
  });
  device.handle(0, (chain) => {
    const message = chain.bytes();
    message[4] = (message[4] ?? 0) + 1;
    chain.write(message);
  });
  const transport = new FakeTransport(device);
  return { device, transport, driver: new Virtio9p(transport, device.hal) };
}

/** Submits a request that the device does not see before a kick. */
function submit(
  driver: Virtio9p,
  ...buffers: [Uint8Array, Uint8Array, (Uint8Array | undefined)?, (Uint8Array | undefined)?]
): number {
  const [request, reply, requestData, replyData] = buffers;
  return driver.submitRequest(request, reply, requestData, replyData, { kick: false });
}

describe('the mount tag', () => {
  it.each(['share', 'x', 'sdílené 共有', 'a'.repeat(300)])('is read: %s', (tag) => {
    expect(setUp({ config: config(tag) }).driver.mountTag).toBe(tag);
  });

  it('is read again while the configuration changes under it [2.5.1]', () => {
    const device = new FakeDevice({
      type: DeviceType.P9,
      queues: [128],
      config: config('before'),
      features: MOUNT_TAG,
    });
    let reads = 0;
    device.onConfigRead = () => {
      reads += 1;
      if (reads === 4) {
        device.config.set(config('after!'));
        device.generation += 1;
      }
    };
    expect(new Virtio9p(new FakeTransport(device), device.hal).mountTag).toBe('after!');
  });

  it('is undefined if the device has none', () => {
    const device = new FakeDevice({ type: DeviceType.P9, queues: [128] });
    expect(new Virtio9p(new FakeTransport(device), device.hal).mountTag).toBeUndefined();
  });

  it('that is empty, or longer than the configuration space, is refused, and the device is marked as failed', () => {
    for (const [bytes, code] of [
      [Uint8Array.of(0, 0), 'INVALID_DEVICE'],
      [Uint8Array.of(0xff, 0xff, 0x41), 'CONFIG_SPACE_TOO_SMALL'],
      [new Uint8Array(0), 'CONFIG_SPACE_MISSING'],
    ] as const) {
      const device = new FakeDevice({
        type: DeviceType.P9,
        queues: [128],
        config: bytes,
        features: MOUNT_TAG,
      });
      expect(() => new Virtio9p(new FakeTransport(device), device.hal)).toThrow(
        expect.objectContaining({ code }) as Error,
      );
      expect(device.status.toString()).toContain('FAILED');
      device.assertClean();
    }
  });
});

it('refuses devices of another type', () => {
  const device = new FakeDevice({ type: DeviceType.Block });
  expect(() => new Virtio9p(new FakeTransport(device), device.hal)).toThrow(/is not a P9 device/);
});

it('accepts MOUNT_TAG and what all drivers accept', () => {
  const { device, driver } = echo(~0n);
  expect(driver.features.has('MOUNT_TAG')).toBe(true);
  expect(device.accepted & 0xfffffen).toBe(0n);
  expect(driver.features.names()).toEqual(
    expect.arrayContaining(['RING_PACKED', 'EVENT_IDX', 'INDIRECT_DESC', 'VERSION_1']),
  );
});

describe.each(ringVariants)('raw requests on a ring that is $name', ({ features }) => {
  it('are made without blocking, many at once, in up to four parts', () => {
    const { device, driver } = echo(features);
    const large = pattern(20_000);
    const count = driver.capacity;
    const replies = new Map<number, { header: Uint8Array; data: Uint8Array }>();
    for (let i = 0; i < count; i += 1) {
      const header = new Uint8Array(23);
      const length = encodeMessage(
        header,
        i,
        T.write,
        { fid: 1, offset: i, count: large.length },
        large.length,
      );
      const reply = { header: new Uint8Array(23), data: new Uint8Array(large.length) };
      replies.set(submit(driver, header.subarray(0, length), reply.header, large, reply.data), reply);
    }
    expect(driver.poll()).toBe(-1);
    driver.kick();
    for (let i = 0; i < count; i += 1) {
      const token = driver.poll();
      expect(driver.complete(token)).toBe(23 + large.length);
      expect(same(replies.get(token)?.data, large)).toBe(true);
      expect(replies.get(token)?.header[4]).toBe(119);
      replies.delete(token);
    }
    expect([driver.poll(), driver.inFlight, replies.size]).toEqual([-1, 0, 0]);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('are made synchronously and with promises, all at once, more than there is room for', async () => {
    const { device, driver } = echo(features, 8);
    const reply = new Uint8Array(64);
    expect(driver.requestSync(hello(), reply)).toBe(21);
    expect(reply.subarray(5, 21)).toEqual(hello().subarray(5));
    const large = pattern(20_000);
    const header = new Uint8Array(23);
    encodeMessage(header, 1, T.write, { fid: 1, offset: 0, count: large.length }, large.length);
    const [room, data] = [new Uint8Array(23), new Uint8Array(large.length)];
    expect(driver.requestSync(header, room, large, data)).toBe(23 + large.length);
    expect(same(data, large)).toBe(true);
    data.fill(0);
    expect(await driver.request(header, room, large, data)).toBe(23 + large.length);
    expect(same(data, large)).toBe(true);
    const replies = Array.from({ length: 50 }, () => new Uint8Array(30));
    const lengths = await Promise.all(replies.map((buffer, i) => driver.request(hello(i), buffer)));
    expect(new Set(lengths)).toEqual(new Set([21]));
    expect(replies.map((buffer) => buffer[5])).toEqual(replies.map((_, i) => i));
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a raw request', () => {
  it('that is no message, or leaves no room for a reply, is refused before the device sees it', async () => {
    const { driver, device } = echo();
    const reply = new Uint8Array(64);
    const wrongSize = hello();
    wrongSize[0] = 22;
    for (const [request, room, data, replyData] of [
      [new Uint8Array(0), reply],
      [hello().subarray(0, 6), reply],
      [wrongSize, reply],
      [hello(), new Uint8Array(10)],
      [hello(), reply, new Uint8Array(1)],
      [hello(), reply, new Uint8Array(0)],
      [hello(), reply, undefined, new Uint8Array(0)],
    ] as const) {
      expect(() => submit(driver, request, room, data, replyData)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }) as Error,
      );
      expect(await failure(() => driver.request(request, room, data, replyData))).toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
    expect(device.queue(0).chains).toHaveLength(0);
    expect(driver.inFlight).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('is refused when there is no room in the queue, and nothing is lost', () => {
    const { driver, device } = echo(0n, 8);
    const reply = new Uint8Array(64);
    const tokens = Array.from({ length: 4 }, () => submit(driver, hello(), reply));
    expect(() => submit(driver, hello(), reply)).toThrow(
      expect.objectContaining({ code: 'QUEUE_FULL' }) as Error,
    );
    driver.kick();
    for (const token of tokens) expect(driver.complete(token)).toBe(21);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('cannot be completed before it is done, nor twice, nor if it is none', () => {
    const { driver, device } = echo();
    device.automatic = false;
    const token = submit(driver, hello(), new Uint8Array(64));
    driver.kick();
    expect(() => driver.complete(token)).toThrow(expect.objectContaining({ code: 'NOT_READY' }) as Error);
    expect(driver.isDone(token)).toBe(false);
    device.run();
    expect(driver.isDone(token)).toBe(true);
    driver.complete(token);
    for (const wrong of [token, -1, 500, 0.5]) {
      expect(() => driver.complete(wrong)).toThrow(expect.objectContaining({ code: 'WRONG_TOKEN' }) as Error);
    }
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('gives back what was shared when memory for the rest of it cannot be had', () => {
    const { driver, device } = echo();
    for (let after = 0; after < 4; after += 1) {
      device.hal.failShare({ after });
      const data = new Uint8Array(20_000);
      const header = new Uint8Array(23);
      encodeMessage(header, 1, T.write, { fid: 1, offset: 0, count: data.length }, data.length);
      const attempt = () => submit(driver, header, new Uint8Array(30), data, new Uint8Array(20_000));
      expect(attempt).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }) as Error);
    }
    expect(device.hal.shares).toHaveLength(0);
    expect(driver.requestSync(hello(), new Uint8Array(64))).toBe(21);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('whose reply does not have the size that it says is refused, and no other request is', () => {
    const { driver, device } = echo();
    const lies: [(reply: Uint8Array) => Uint8Array | number, string][] = [
      [(reply) => reply.subarray(0, 20), 'DEVICE_MISBEHAVED'],
      [(reply) => Uint8Array.of(...reply, 0), 'DEVICE_MISBEHAVED'],
      [() => Uint8Array.of(3, 0, 0), 'DEVICE_MISBEHAVED'],
      [() => Uint8Array.of(6, 0, 0, 0, 101, 7), 'DEVICE_MISBEHAVED'],
      [() => new Uint8Array(64).fill(0xff), 'DEVICE_MISBEHAVED'],
    ];
    for (const [lie, code] of lies) {
      device.handle(0, (chain) => {
        chain.write(lie(seal(101, 7, new Out().u32(8192).string('9P2000.L'))) as Uint8Array);
      });
      expect(() => driver.requestSync(hello(), new Uint8Array(64))).toThrow(
        expect.objectContaining({ code }) as Error,
      );
      expect(driver.failure).toBeUndefined();
    }
    device.handle(0, (chain) => void chain.complete(0));
    expect(driver.requestSync(hello(), new Uint8Array(64))).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it.each([
    ['split', usual],
    ['packed', usual | CommonFeatures.set('RING_PACKED').bits],
  ])(
    'for which the device reports more bytes than there is room for is judged by its header (%s)',
    async (_name, features) => {
      const { driver, device } = echo(features);
      device.handle(0, (chain) => {
        chain.write(seal(101, 7, new Out().u32(8192).string('9P2000.L'))).complete(chain.writable + 1);
      });
      const quirks: string[] = [];
      driver.on('quirk', ({ message }) => quirks.push(message));
      expect(await failure(() => driver.request(hello(), new Uint8Array(64)))).toMatchObject({
        code: 'DEVICE_MISBEHAVED',
      });
      // A reply that fills its room is what the header says.
      expect(await driver.request(hello(), new Uint8Array(21))).toBe(21);
      expect([driver.quirks, quirks.length, driver.failure]).toEqual([2, 2, undefined]);
      driver[Symbol.dispose]();
      device.assertClean();
    },
  );

  it('that nobody waits for any more gives its slot back when it is answered', async () => {
    const { driver, device } = echo(usual, 8);
    device.automatic = false;
    const now = vi.spyOn(Date, 'now');
    let time = 0;
    now.mockImplementation(() => (time += 1000));
    for (let i = 0; i < 8; i += 1) {
      const reply = new Uint8Array(64);
      expect(() => driver.requestSync(hello(), reply, undefined, undefined, { timeoutMs: 10 })).toThrow(
        /did not\. The device still has the request/,
      );
    }
    now.mockRestore();
    expect(() => submit(driver, hello(), new Uint8Array(64))).toThrow(
      expect.objectContaining({ code: 'QUEUE_FULL' }) as Error,
    );
    const waiting = driver.request(hello(), new Uint8Array(64));
    device.automatic = true;
    device.run();
    expect(await waiting).toBe(21);
    expect(driver.poll()).toBe(-1);
    expect(driver.requestSync(hello(), new Uint8Array(64))).toBe(21);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('with a promise needs interrupts, and does not lose its slot without them', async () => {
    const { driver, device } = setUp({ interrupts: false, queues: [4] });
    for (let i = 0; i < 20; i += 1) {
      expect(await failure(() => driver.request(hello(), new Uint8Array(64)))).toMatchObject({
        code: 'UNSUPPORTED',
      });
    }
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('in flight is lost to a reset, a failure, a removal or disposal, with its buffers given back', async () => {
    const ends: [string, (rig: ReturnType<typeof echo>) => void, string][] = [
      ['reset', ({ driver }) => driver.reset(), 'DEVICE_RESET'],
      ['needs reset', ({ device }) => device.needsReset(), 'DEVICE_NEEDS_RESET'],
      ['removal', ({ device }) => device.remove(), 'DEVICE_REMOVED'],
      ['disposal', ({ driver }) => driver[Symbol.dispose](), 'DISPOSED'],
    ];
    for (const [what, end, code] of ends) {
      const rig = echo();
      rig.device.automatic = false;
      const waiting = [0, 1, 2].map((tag) =>
        failure(() => rig.driver.request(hello(tag), new Uint8Array(64))),
      );
      await settle();
      end(rig);
      for (const error of await Promise.all(waiting)) expect(error, what).toMatchObject({ code });
      rig.driver[Symbol.dispose]();
      rig.device.assertClean();
    }
  });

  it('that is done when the driver is disposed gives its buffers back, and cannot be completed', () => {
    const { driver, device } = echo();
    const token = submit(driver, hello(), new Uint8Array(64));
    driver.kick();
    expect(driver.isDone(token)).toBe(true);
    driver[Symbol.dispose]();
    device.assertClean();
    expect(() => driver.complete(token)).toThrow(expect.objectContaining({ code: 'DISPOSED' }) as Error);
  });

  it('allocates nothing that lives on in the steady state', () => {
    const { driver } = echo();
    const memory = driver.messageMemory(8192);
    expect(driver.messageMemory(4096).byteOffset).toBe(memory.byteOffset);
    expect(() => driver.messageMemory(1 << 20)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }) as Error,
    );
    const request = memory.subarray(0, 21);
    request.set(hello());
    const reply = memory.subarray(4096, 4160);
    // Memory for DMA is used as it is: no bounce buffer.
    for (let i = 0; i < 1000; i += 1) {
      const token = submit(driver, request, reply);
      driver.kick();
      expect(driver.poll()).toBe(token);
      expect(driver.complete(token)).toBe(21);
    }
  });
});
