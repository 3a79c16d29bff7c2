import { CommonFeatures, DeviceType, VirtioError } from '@virtio/core';
import {
  FakeDevice,
  FakeInterrupts,
  FakeTransport,
  type FakeTransportOptions,
  ringVariants,
} from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { VirtioRng } from './index.ts';

const usual = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;

/** Bytes that the device gives, one after the other over all requests. */
const stream = (at: number): number => (at * 31 + (at >> 8)) & 0xff;

/** A device that gives the bytes of {@link stream}, as many at once as `give` says. */
function setUp(
  give: (asked: number) => number = (asked) => asked,
  features = usual,
  options: FakeTransportOptions & { readonly queue?: number } = {},
) {
  const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [options.queue ?? 8], features });
  let given = 0;
  device.handle(0, (chain) => {
    expect(chain.readable).toBe(0);
    chain.write(Uint8Array.from({ length: give(chain.writable) }, () => stream(given++)));
  });
  const { interrupts } = options;
  const transport = new FakeTransport(device, interrupts === undefined ? {} : { interrupts });
  const rng = new VirtioRng(transport, device.hal);
  const expected = (length: number, from = 0) => Uint8Array.from({ length }, (_, i) => stream(from + i));
  return { device, transport, rng, expected };
}

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

async function failure(attempt: () => unknown): Promise<unknown> {
  try {
    await attempt();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

describe.each(ringVariants)('VirtioRng on a ring that is $name', ({ features }) => {
  it('places only buffers that the device writes, and goes by the length that was written [5.4.6.1]', () => {
    const { rng, device, expected } = setUp((asked) => Math.min(asked, 5), features);
    const buffer = new Uint8Array(8);
    expect(rng.requestEntropySync(buffer)).toBe(5);
    expect(buffer.subarray(0, 5)).toEqual(expected(5));
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('fills buffers of any length, in all three ways', async () => {
    const { rng, device, expected } = setUp((asked) => Math.ceil(asked / 3), features);
    let at = 0;
    for (const length of [0, 1, 2, 100, 65_536, 65_537, 200_000]) {
      const buffer = new Uint8Array(length);
      expect(await rng.fill(buffer)).toBe(buffer);
      expect(Buffer.compare(buffer, expected(length, at))).toBe(0);
      at += length;
      rng.fillSync(buffer);
      expect(Buffer.compare(buffer, expected(length, at))).toBe(0);
      at += length;
    }
    const buffers = Array.from({ length: rng.queueSize }, () => new Uint8Array(9));
    const tokens = buffers.map((buffer) => rng.submitRequestEntropy(buffer, { kick: false }));
    rng.kick();
    for (const expectedToken of tokens) {
      const token = rng.poll();
      expect(token).toBe(expectedToken);
      expect(rng.complete(token)).toBe(3);
    }
    expect(rng.poll()).toBe(-1);
    expect(buffers.flatMap((buffer) => [...buffer.subarray(0, 3)])).toEqual([
      ...expected(rng.queueSize * 3, at),
    ]);
    rng[Symbol.dispose]();
    device.assertClean();
  });
});

describe('VirtioRng', () => {
  it('accepts no feature that it does not know [5.4.3]', () => {
    const { rng, device } = setUp(undefined, ~0n);
    expect(device.accepted & 0xffffffn).toBe(0n);
    expect(rng.features.names()).toContain('RING_PACKED');
  });

  it('refuses devices of another type, and devices without a queue', () => {
    const block = new FakeDevice({ type: DeviceType.Block });
    expect(() => new VirtioRng(new FakeTransport(block), block.hal)).toThrow(code('INVALID_PARAM'));
    const bare = new FakeDevice({ type: DeviceType.EntropySource, queues: [0] });
    expect(() => new VirtioRng(new FakeTransport(bare), bare.hal)).toThrow(code('UNSUPPORTED'));
    bare.assertClean();
  });

  it('serves a legacy device', () => {
    const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [8], legacy: true });
    device.handle(0, (chain) => void chain.write(new Uint8Array(chain.writable).fill(4)));
    using rng = new VirtioRng(new FakeTransport(device), device.hal);
    expect(rng.fillSync(new Uint8Array(4))).toEqual(Uint8Array.of(4, 4, 4, 4));
  });

  it('has more requests waiting than there is room for', async () => {
    const { rng, device } = setUp();
    const buffers = await Promise.all(Array.from({ length: 100 }, () => rng.fill(new Uint8Array(10))));
    expect(new Set(buffers.map(String)).size).toBeGreaterThan(90);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('fills any buffer from any mix of short answers', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(70_000),
        fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 }),
        fc.boolean(),
        async (length, answers, sync) => {
          // No more than a few hundred requests a run.
          const least = Math.ceil(length / 300);
          let n = 0;
          const { rng, device, expected } = setUp((asked) =>
            Math.min(asked, Math.max(least, answers[n++ % answers.length] ?? 1)),
          );
          const buffer = sync ? rng.fillSync(new Uint8Array(length)) : await rng.fill(new Uint8Array(length));
          expect(Buffer.compare(buffer, expected(length))).toBe(0);
          rng[Symbol.dispose]();
          device.assertClean();
        },
      ),
      { numRuns: 30 },
    );
  });

  it('fills part of a larger buffer, and memory for DMA without a copy', () => {
    const { rng, device, expected } = setUp();
    const large = new Uint8Array(20);
    rng.fillSync(large.subarray(5, 10));
    expect(large).toEqual(Uint8Array.of(0, 0, 0, 0, 0, ...expected(5), ...new Uint8Array(10)));
    const region = device.hal.dmaAlloc(1, 'device-to-driver', false);
    rng.fillSync(region.bytes.subarray(100, 110));
    expect(region.bytes.slice(100, 110)).toEqual(expected(10, 5));
    device.hal.dmaDealloc(region, false);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('refuses empty buffers before the device sees them', async () => {
    const { rng, device } = setUp();
    const empty = new Uint8Array(0);
    expect(() => rng.submitRequestEntropy(empty, { kick: false })).toThrow(code('INVALID_PARAM'));
    expect(() => rng.requestEntropySync(empty)).toThrow(code('INVALID_PARAM'));
    expect(await failure(() => rng.requestEntropy(empty))).toMatchObject({ code: 'INVALID_PARAM' });
    // An array of wider integers would get 8 random bits each.
    for (const wrong of [undefined, 32, 'abc', new Uint32Array(4)] as unknown as Uint8Array[]) {
      for (const name of [
        'submitRequestEntropy',
        'requestEntropySync',
        'fillSync',
        'requestEntropy',
        'fill',
      ] as const) {
        expect(await failure(() => rng[name](wrong))).toMatchObject({ code: 'INVALID_PARAM' });
      }
    }
    rng.kick();
    expect(device.queue(0).chains).toHaveLength(0);
  });

  it('says when there is no room, and loses nothing', () => {
    const { rng } = setUp(undefined, usual, { queue: 2 });
    const tokens = [
      rng.submitRequestEntropy(new Uint8Array(1), { kick: false }),
      rng.submitRequestEntropy(new Uint8Array(1), { kick: false }),
    ];
    expect(() => rng.submitRequestEntropy(new Uint8Array(1), { kick: false })).toThrow(code('QUEUE_FULL'));
    rng.kick();
    for (const token of tokens) expect(rng.complete(token)).toBe(1);
    expect(() => rng.complete(0)).toThrow(code('WRONG_TOKEN'));
    rng.submitRequestEntropy(new Uint8Array(1), { kick: false });
  });

  it('gives a slot back when its buffer cannot be shared', () => {
    const { rng, device } = setUp();
    device.hal.failShare({ count: 20 });
    for (let i = 0; i < 20; i += 1) {
      expect(() => rng.submitRequestEntropy(new Uint8Array(1), { kick: false })).toThrow(code('DMA_ERROR'));
    }
    expect(rng.fillSync(new Uint8Array(1))).toHaveLength(1);
  });

  it('waits as long as the host takes, with a promise', async () => {
    const { rng, device, expected } = setUp();
    device.automatic = false;
    let filled = false;
    const filling = rng.fill(new Uint8Array(10)).then((buffer) => {
      filled = true;
      return buffer;
    });
    for (let i = 0; i < 50; i += 1) await Promise.resolve();
    expect(filled).toBe(false);
    device.run();
    expect(await filling).toEqual(expected(10));
  });

  it('can be told to wait no longer, for an answer or for room, and loses no slot', async () => {
    const { rng, device, expected, transport } = setUp();
    device.automatic = false;
    const controller = new AbortController();
    const { signal } = controller;
    const buffers = Array.from({ length: rng.queueSize + 3 }, () => new Uint8Array(4));
    const cancelled = buffers.map((buffer) => failure(() => rng.fill(buffer, { signal })));
    const patient = rng.fill(new Uint8Array(4));
    for (let i = 0; i < 10; i += 1) await Promise.resolve();
    controller.abort('enough');
    for (const error of await Promise.all(cancelled)) {
      expect(error).toMatchObject({ code: 'ABORTED', cause: 'enough' });
    }
    expect(await failure(() => rng.requestEntropy(new Uint8Array(4), { signal }))).toMatchObject({
      code: 'ABORTED',
    });
    device.automatic = true;
    device.run();
    expect(await patient).toEqual(expected(4, 4 * rng.queueSize));
    for (const buffer of buffers) expect(buffer).toEqual(new Uint8Array(4));
    const all = await Promise.all(
      Array.from({ length: 3 * rng.queueSize }, () => rng.fill(new Uint8Array(1))),
    );
    expect(all).toHaveLength(3 * rng.queueSize);
    expect(transport.interrupts?.holds).toBe(0);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('does not take a buffer for filled that was transferred or resized between two requests', async () => {
    for (const resize of [
      (buffer: Uint8Array<ArrayBuffer>) => buffer.buffer.transfer(),
      (buffer: Uint8Array<ArrayBuffer>) => {
        buffer.buffer.resize(2);
      },
      (buffer: Uint8Array<ArrayBuffer>) => {
        buffer.buffer.resize(8);
      },
    ]) {
      const buffer = new Uint8Array(new ArrayBuffer(4, { maxByteLength: 8 }));
      const interrupts = new FakeInterrupts({ synchronous: true });
      const { rng, device } = setUp((asked) => Math.min(asked, 1), usual, { interrupts });
      device.automatic = false;
      const filling = failure(() => rng.fill(buffer));
      for (let i = 0; i < 10; i += 1) await Promise.resolve();
      // The first request is answered; the second is made after this turn.
      device.run();
      resize(buffer);
      device.automatic = true;
      expect(await filling).toEqual(code('INVALID_PARAM'));
    }
  });

  it('stops spinning after a time, and is not confused by the late answer', async () => {
    const { rng, device, expected } = setUp();
    device.automatic = false;
    let time = 0;
    const now = vi.spyOn(Date, 'now').mockImplementation(() => (time += 100));
    const buffers = Array.from({ length: rng.queueSize }, () => new Uint8Array(4));
    for (const buffer of buffers) {
      expect(() => rng.fillSync(buffer, { timeoutMs: 1000 })).toThrow(code('NOT_READY'));
    }
    now.mockRestore();
    expect(() => rng.submitRequestEntropy(new Uint8Array(4), { kick: false })).toThrow(code('QUEUE_FULL'));
    device.automatic = true;
    device.run();
    expect(rng.poll()).toBe(-1);
    // What was given up is not written any more.
    for (const buffer of buffers) expect(buffer).toEqual(new Uint8Array(4));
    expect(await rng.fill(new Uint8Array(4))).toEqual(expected(4, 4 * rng.queueSize));
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('needs interrupts for promises, and loses no slot without them', async () => {
    const { rng, device, expected } = setUp(undefined, usual, { interrupts: false });
    for (let i = 0; i < 20; i += 1) {
      expect(await failure(() => rng.fill(new Uint8Array(1)))).toMatchObject({ code: 'UNSUPPORTED' });
    }
    expect(rng.fillSync(new Uint8Array(3))).toHaveLength(3);
    expect(expected(1)).toHaveLength(1);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('resets, and forgets what was in flight and what was answered', async () => {
    const { rng, device } = setUp();
    device.automatic = false;
    const lost = failure(() => rng.fill(new Uint8Array(4)));
    const polled = rng.submitRequestEntropy(new Uint8Array(4), { kick: false });
    rng.kick();
    device.run();
    rng.reset();
    expect(await lost).toMatchObject({ code: 'DEVICE_RESET' });
    expect(() => rng.complete(polled)).toThrow(code('WRONG_TOKEN'));
    device.automatic = true;
    expect(await rng.fill(new Uint8Array(4))).toHaveLength(4);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it.each<[string, string, (device: FakeDevice, rng: VirtioRng) => void]>([
    ['needs a reset', 'DEVICE_NEEDS_RESET', (device) => device.needsReset()],
    ['was unplugged', 'DEVICE_REMOVED', (device) => device.remove()],
    ['was disposed', 'DISPOSED', (_device, rng) => rng[Symbol.dispose]()],
  ])('rejects all that waits when the device %s', async (_what, expected, end) => {
    const { rng, device } = setUp();
    device.automatic = false;
    const waiting = Array.from({ length: 20 }, () => failure(() => rng.fill(new Uint8Array(4))));
    for (let i = 0; i < 10; i += 1) await Promise.resolve();
    end(device, rng);
    for (const error of await Promise.all(waiting)) expect(error).toMatchObject({ code: expected });
    expect(() => rng.submitRequestEntropy(new Uint8Array(1), { kick: false })).toThrow(VirtioError);
    rng[Symbol.dispose]();
    device.assertClean();
  });
});

describe.each([
  ['split', usual],
  ['packed', usual | CommonFeatures.set('RING_PACKED').bits],
])('a device that lies (%s ring)', (_name, features) => {
  it('by giving no byte fails that request, and no loop runs without end [5.4.6.2]', async () => {
    let give = 0;
    const { rng, device } = setUp(() => give, features);
    expect(() => rng.fillSync(new Uint8Array(4))).toThrow(code('DEVICE_MISBEHAVED'));
    expect(await failure(() => rng.fill(new Uint8Array(4)))).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    give = 4;
    expect(rng.fillSync(new Uint8Array(4))).toHaveLength(4);
    rng[Symbol.dispose]();
    device.assertClean();
  });

  it('about how much it wrote gets no further than what it was offered, and is counted', async () => {
    const { rng, device } = setUp(undefined, features);
    device.handle(0, (chain) => void chain.complete(chain.writable + 1));
    const buffer = new Uint8Array(4).fill(9);
    expect(await rng.fill(buffer)).toBe(buffer);
    expect(rng.quirks).toBe(1);
    rng.reset();
    device.handle(0, (chain) => void chain.write(new Uint8Array(chain.writable).fill(1)));
    expect(await rng.fill(buffer)).toEqual(new Uint8Array(4).fill(1));
    rng[Symbol.dispose]();
    device.assertClean();
  });
});

describe('getRandomValues', () => {
  it('fills all arrays of integers, also without its object', () => {
    const { rng, expected } = setUp();
    const { getRandomValues } = rng;
    let at = 0;
    for (const array of [
      new Uint8Array(3),
      new Int8Array(3),
      new Uint8ClampedArray(3),
      new Uint16Array(3),
      new Int16Array(3),
      new Uint32Array(30_000),
      new Int32Array(3),
      new BigUint64Array(3),
      new BigInt64Array(3),
      new Uint32Array(new ArrayBuffer(16), 4, 2),
      new Uint8Array(0),
    ]) {
      expect(getRandomValues(array)).toBe(array);
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      expect(Buffer.compare(bytes, expected(bytes.length, at))).toBe(0);
      at += bytes.length;
    }
  });

  it('refuses all else', () => {
    const { rng } = setUp();
    const getRandomValues = rng.getRandomValues as (array: unknown) => unknown;
    for (const bad of [
      new Float32Array(1),
      new Float64Array(1),
      new DataView(new ArrayBuffer(1)),
      [1],
      'x',
      undefined,
      new ArrayBuffer(1),
    ]) {
      expect(() => getRandomValues(bad)).toThrow(code('INVALID_PARAM'));
    }
  });
});
