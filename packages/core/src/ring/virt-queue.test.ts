import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { spin } from '../queues/spin.ts';
import { VirtioError } from '../errors.ts';
import { BufferChains } from './buffer-chains.ts';
import { createQueue } from './create-queue.ts';
import { DeviceType } from '../device/device-type.ts';
import { CommonFeatures, type FeatureName } from '../device/features.ts';
import { QUEUE_FEATURES } from '../device/driver-spec.ts';
import type { QueueOptions } from './virt-queue.ts';
import { coded } from '../../test/helpers.ts';

function make(features: bigint, options: Partial<QueueOptions> = {}, max = 8) {
  const device = new FakeDevice({ type: DeviceType.EntropySource, features, queues: [max] });
  device.automatic = false;
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size: 8, ...options });
  transport.finishInit();
  const memory = device.hal.dmaAlloc(1, 'both', false);
  const end = () => {
    transport.reset();
    BufferChains.of(queue).forget();
    queue[Symbol.dispose]();
    device.hal.dmaDealloc(memory, false);
    device.assertClean();
  };
  return { device, transport, queue, hal: device.hal, at: memory.address, end };
}

const bits = (...names: FeatureName[]) => CommonFeatures.set(...names).bits;

describe.each(ringVariants)('a queue: $name', ({ features, indirect, inOrder }) => {
  it('shows a chain to the device as it was pushed', () => {
    const { device, queue, at, end } = make(features);
    queue.begin(3);
    queue.pushReadable(at, 16);
    queue.pushWritable(at + 64, 100);
    queue.pushWritable(at + 512, 1);
    expect(device.queue(0).available()).toBe(false);
    const token = queue.submit();
    expect(device.queue(0).available()).toBe(false);
    queue.publish();
    const chain = device.queue(0).pop();
    expect(chain).toMatchObject({ id: token, indirect, readable: 16, writable: 101 });
    expect(chain?.elements).toEqual([
      { address: at, length: 16, writable: false },
      { address: at + 64, length: 100, writable: true },
      { address: at + 512, length: 1, writable: true },
    ]);
    end();
  });

  it('publishes a batch at once', () => {
    const { device, queue, at, end } = make(features);
    for (let n = 0; n < 4; n += 1) {
      queue.begin(2);
      queue.pushReadable(at, 1 + n);
      queue.pushReadable(at + 64, 1);
      queue.submit();
      expect(device.queue(0).available()).toBe(false);
    }
    expect(queue.inFlight).toBe(0);
    queue.publish();
    expect(queue.inFlight).toBe(4);
    expect([0, 1, 2, 3].map(() => device.queue(0).pop()?.readable)).toEqual([2, 3, 4, 5]);
    end();
  });

  it('tells how many chains the device has not used, popped or not, failed or not', () => {
    const { device, queue, at, end } = make(features);
    const counts: number[] = [];
    const count = (): void => void counts.push(queue.countUnused());
    // Twice around the ring.
    for (let lap = 0; lap < 8; lap += 1) {
      for (let n = 0; n < 3; n += 1) {
        queue.begin(n === 1 && !indirect ? 2 : 1);
        queue.pushReadable(at, 1);
        if (n === 1 && !indirect) queue.pushWritable(at + 64, 1);
        queue.submit();
      }
      count();
      queue.publish();
      count();
      const ring = device.queue(0);
      const chains = [ring.pop(), ring.pop(), ring.pop()];
      ring.complete(chains[0]!);
      count();
      if (lap % 2 === 1) queue.pop();
      ring.complete(chains[1]!);
      count();
      ring.complete(chains[2]!);
      count();
      while (queue.pop() >= 0);
      count();
      expect(counts.splice(0)).toEqual([0, 3, 2, 1, 0, 0]);
    }
    queue.begin(1);
    queue.pushReadable(at, 1);
    queue.submit();
    queue.publish();
    queue.fail(new VirtioError('DEVICE_RESET', 'for the test'));
    expect(queue.countUnused()).toBe(1);
    end();
  });

  it('reports a full queue and loses nothing', () => {
    const { device, queue, at, end } = make(features);
    const submit = () => {
      queue.pushReadable(at, 1);
      return queue.submit();
    };
    const tokens: number[] = [];
    while (queue.tryBegin(1)) tokens.push(submit());
    expect(tokens).toHaveLength(8);
    expect(queue.availableDescriptors).toBe(0);
    expect(() => {
      queue.begin(1);
    }).toThrow(coded('QUEUE_FULL'));
    queue.publish();
    const ring = device.queue(0);
    for (let n = 0; n < 8; n += 1) ring.pop();
    ring.complete(ring.chains[0]!);
    expect(tokens).toContain(queue.pop());
    queue.begin(1);
    submit();
    expect(queue.tryBegin(1)).toBe(false);
    end();
  });

  it('rewinds a chain and is as before', () => {
    const { device, queue, at, end } = make(features);
    queue.begin(1);
    queue.pushReadable(at, 9);
    const kept = queue.submit();
    queue.begin(3);
    queue.pushReadable(at, 1);
    queue.pushWritable(at, 2);
    queue.rewind();
    queue.rewind();
    expect(queue.availableDescriptors).toBe(7);
    queue.begin(1);
    queue.pushWritable(at, 3);
    const after = queue.submit();
    queue.publish();
    const ring = device.queue(0);
    expect([ring.pop(), ring.pop()]).toMatchObject([
      { id: kept, readable: 9 },
      { id: after, readable: 0, writable: 3 },
    ]);
    expect(ring.pop()).toBeUndefined();
    end();
  });

  it('refuses buffers for a chain that was rewound', () => {
    const { queue, at, end } = make(features);
    queue.begin(2);
    queue.pushReadable(at, 1);
    queue.rewind();
    expect(() => {
      queue.pushReadable(at, 1);
    }).toThrow(coded('INVALID_PARAM'));
    expect(() => queue.submit()).toThrow(coded('INVALID_PARAM'));
    end();
  });

  it('takes used chains while another one is being built, and loses none of their descriptors', () => {
    const { device, queue, at, end } = make(features);
    const ring = device.queue(0);
    const submit = () => {
      queue.begin(1);
      queue.pushReadable(at, 1);
      return queue.submit();
    };
    for (let lap = 0; lap < 20; lap += 1) {
      const tokens = new Set(Array.from({ length: 5 }, submit));
      queue.publish();
      for (const token of tokens) expect(ring.pop()?.id).toBe(token);
      queue.begin(2);
      queue.pushReadable(at, 1);
      for (let n = 0; n < 3; n += 1) {
        ring.complete(ring.chains[0]!);
        expect(tokens.delete(queue.pop())).toBe(true);
      }
      queue.pushReadable(at, 2);
      if (lap % 2 === 0) {
        expect(tokens).not.toContain(queue.submit());
        queue.publish();
        expect(ring.pop()).toMatchObject({ readable: 3 });
      } else {
        queue.rewind();
      }
      while (queue.tryBegin(1)) {
        queue.pushReadable(at, 1);
        queue.submit();
      }
      queue.publish();
      while (ring.pop()) expect(ring.chains.length).toBeLessThanOrEqual(8);
      ring.completeBatch(ring.chains);
      while (queue.pop() >= 0);
      expect(queue.availableDescriptors).toBe(8);
    }
    end();
  });

  it('notifies of what was published, whatever was submitted since [2.9]', () => {
    const { device, queue, at, end } = make(features | bits('NOTIFICATION_DATA'));
    const submit = () => {
      queue.begin(1);
      queue.pushReadable(at, 1);
      queue.submit();
    };
    for (let n = 0; n < 20; n += 1) {
      // The device finds nothing and wants to hear of the next one.
      expect(device.queue(0).pop()).toBeUndefined();
      submit();
      queue.publish();
      submit();
      expect(queue.kick()).toBe(true);
      queue.publish();
      queue.kick();
      for (let chain = device.queue(0).pop(); chain; chain = device.queue(0).pop()) chain.complete();
      while (queue.pop() >= 0);
    }
    end();
  });

  it('forgets at a reset what it has not notified of', () => {
    const { transport, queue, at, end } = make(features);
    queue.begin(1);
    queue.pushReadable(at, 1);
    queue.submit();
    queue.publish();
    transport.reset();
    transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
    queue.reset();
    transport.finishInit();
    expect(queue.inFlight).toBe(0);
    expect(queue.kick()).toBe(false);
    end();
  });

  it('returns the length that the device wrote, and no more than was offered [2.7.8.3]', () => {
    const { device, queue, at, end } = make(features);
    const quirks: string[] = [];
    queue.onQuirk = (message) => quirks.push(message);
    const submit = () => {
      queue.begin(1);
      queue.pushWritable(at, 100);
      queue.submit();
      queue.publish();
      return device.queue(0).pop()!;
    };
    submit().complete(42);
    expect(queue.pop()).toBeGreaterThanOrEqual(0);
    expect(queue.usedLength).toBe(42);
    submit();
    device.queue(0).forceUsed(device.queue(0).chains[0]!.id, 101);
    expect(queue.pop()).toBeGreaterThanOrEqual(0);
    expect(queue.usedLength).toBe(100);
    expect(quirks).toEqual([expect.stringContaining('101 bytes')]);
    end();
  });

  it('fails for good after a lie, until it is reset', () => {
    const { device, transport, queue, at, end } = make(features);
    queue.begin(1);
    queue.pushWritable(at, 1);
    queue.submit();
    queue.publish();
    device.queue(0).forceUsed(7, 0);
    const failed = coded('DEVICE_MISBEHAVED');
    expect(() => queue.pop()).toThrow(failed);
    expect(() => queue.tryBegin(1)).toThrow(failed);
    expect(() => queue.enableInterrupts()).toThrow(failed);
    expect(() => {
      queue.disableInterrupts();
    }).toThrow(failed);
    expect(() => queue.kick()).toThrow(failed);
    expect(() => {
      queue.publish();
    }).toThrow(failed);
    expect(queue.failure).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
    queue.reset();
    transport.finishInit();
    expect(queue.failure).toBeUndefined();
    expect(queue.availableDescriptors).toBe(8);
    expect(queue.pop()).toBe(-1);
    end();
  });

  it('never takes a chain that was not published for used', () => {
    const { device, queue, at, end } = make(features);
    queue.begin(1);
    queue.pushWritable(at, 1);
    queue.submit();
    queue.publish();
    queue.begin(1);
    queue.pushWritable(at, 1);
    const staged = queue.submit();
    device.queue(0).forceUsed(staged, 0);
    expect(() => queue.pop()).toThrow(coded('DEVICE_MISBEHAVED'));
    end();
  });

  it('asks for interrupts after the used ones were taken, and tells of those that came in between', () => {
    const { device, queue, at, end } = make(features);
    const ring = device.queue(0);
    const submit = () => {
      queue.begin(1);
      queue.pushWritable(at, 1);
      queue.submit();
      queue.publish();
      return ring.pop()!;
    };
    expect(submit().complete()).toBe(false);
    expect(queue.enableInterrupts()).toBe(true);
    expect(queue.pop()).toBeGreaterThanOrEqual(0);
    expect(queue.enableInterrupts()).toBe(false);
    expect(submit().complete()).toBe(true);
    queue.pop();
    queue.disableInterrupts();
    expect(submit().complete()).toBe(false);
    end();
  });

  it('takes a batch that one used element stands for', () => {
    const { device, queue, at, end } = make(features);
    const tokens: number[] = [];
    for (let n = 1; n <= 3; n += 1) {
      queue.begin(1);
      queue.pushWritable(at, 10 * n);
      tokens.push(queue.submit());
    }
    queue.publish();
    const ring = device.queue(0);
    const chains = [ring.pop()!, ring.pop()!, ring.pop()!];
    for (const chain of chains) chain.write(Uint8Array.of(1, 2));
    ring.completeBatch(chains);
    const popped = tokens.map(() => [queue.pop(), queue.usedLength]);
    // In order, the skipped ones count as used completely [2.7.9, 2.8.8].
    expect(popped).toEqual(tokens.map((token, i) => [token, inOrder && i < 2 ? 10 * (i + 1) : 2]));
    expect(queue.pop()).toBe(-1);
    end();
  });
});

describe('chains', () => {
  it('refuses chains that are longer than the queue [2.7.5.3.1]', () => {
    const { queue, end } = make(bits('INDIRECT_DESC'), { tableLength: 100 });
    for (const count of [0, 9, -1, NaN]) expect(() => queue.tryBegin(count)).toThrow(coded('INVALID_PARAM'));
    expect(queue.tryBegin(8)).toBe(true);
    queue.rewind();
    end();
  });

  it('refuses a readable buffer behind a writable one [2.7.4.2]', () => {
    const { queue, at, end } = make(0n);
    queue.begin(2);
    queue.pushWritable(at, 1);
    expect(() => {
      queue.pushReadable(at, 1);
    }).toThrow(coded('INVALID_PARAM'));
    queue.pushWritable(at, 1);
    queue.submit();
    end();
  });

  it('refuses a chain of more than 4 GiB [2.7.5.2]', () => {
    const { queue, end } = make(0n);
    queue.begin(3);
    queue.pushReadable(0, 0xffffffff);
    expect(() => {
      queue.pushReadable(0, 2);
    }).toThrow(/4 GiB/);
    queue.pushReadable(0, 1);
    queue.rewind();
    end();
  });

  it('refuses buffers that are empty, too long or nowhere', () => {
    const { queue, at, end } = make(0n);
    queue.begin(1);
    for (const [address, length] of [
      [at, 0],
      [at, -1],
      [at, 2 ** 32],
      [at, NaN],
      [-1, 1],
      [NaN, 1],
      [2 ** 53, 1],
    ] as const) {
      expect(() => {
        queue.pushReadable(address, length);
      }).toThrow(coded('INVALID_PARAM'));
      expect(() => {
        queue.pushWritable(address, length);
      }).toThrow(coded('INVALID_PARAM'));
    }
    queue.pushWritable(at, 1);
    queue.submit();
    end();
  });

  it.each(ringVariants)(
    'offers nothing that was offered before if its author gives values of other types: $name',
    ({ features }) => {
      const { device, queue, at, end } = make(features);
      const given = (value: unknown): number => value as number;
      const refused = coded('INVALID_PARAM');
      // The first lap leaves its descriptors in the ring and the tables.
      for (let lap = 0; lap < 8; lap += 1) {
        queue.begin(2);
        queue.pushReadable(at, 1);
        queue.pushWritable(at + 64, 4);
        queue.submit();
        queue.publish();
        device.queue(0).pop()?.complete();
        queue.pop();
      }
      for (const count of [1.5, 2n, '2']) expect(() => queue.tryBegin(given(count))).toThrow(refused);
      queue.begin(2);
      for (const value of [BigInt(at), String(at)]) {
        expect(() => {
          queue.pushReadable(given(value), 1);
        }).toThrow(refused);
      }
      queue.pushReadable(at, 1);
      for (const value of [8n, '8']) {
        expect(() => {
          queue.pushWritable(at, given(value));
        }).toThrow(refused);
      }
      expect(() => queue.submit()).toThrow(/1 of the chain's 2/);
      queue.pushWritable(at + 128, 8);
      queue.submit();
      queue.publish();
      const chain = device.queue(0).pop();
      expect(chain?.elements.map(({ address, length }) => [address - at, length])).toEqual([
        [0, 1],
        [128, 8],
      ]);
      chain?.complete();
      end();
    },
  );

  it('refuses calls out of order', () => {
    const { queue, at, end } = make(0n);
    const refused = coded('INVALID_PARAM');
    const push = () => {
      queue.pushReadable(at, 1);
    };
    expect(push).toThrow(refused);
    expect(() => queue.submit()).toThrow(refused);
    queue.begin(2);
    push();
    expect(() => {
      queue.begin(1);
    }).toThrow(refused);
    expect(() => queue.submit()).toThrow(/1 of the chain's 2/);
    push();
    expect(push).toThrow(refused);
    expect(queue.submit()).toBe(0);
    end();
  });

  it('uses no table unless INDIRECT_DESC was negotiated [2.7.5.3.1]', () => {
    for (const [features, tableLength, expected] of [
      [bits(), 16, 5],
      [bits('INDIRECT_DESC'), 0, 5],
      [bits('INDIRECT_DESC'), 2, 5],
      [bits('INDIRECT_DESC'), 3, 7],
      [bits('RING_PACKED'), 16, 5],
      [bits('RING_PACKED', 'INDIRECT_DESC'), 16, 7],
    ] as const) {
      const { device, queue, at, end } = make(features, { tableLength });
      queue.begin(3);
      for (let n = 0; n < 3; n += 1) queue.pushReadable(at, 1);
      queue.submit();
      expect(queue.availableDescriptors).toBe(expected);
      queue.publish();
      expect(device.queue(0).pop()?.indirect).toBe(expected === 7);
      end();
    }
  });

  it('keeps the upper half of addresses above 4 GiB', () => {
    for (const features of [bits(), bits('INDIRECT_DESC'), bits('RING_PACKED')]) {
      const { device, queue, end } = make(features);
      const address = 0x12_3456_7890_1000 / 16;
      queue.begin(1);
      queue.pushReadable(address, 1);
      queue.submit();
      queue.publish();
      expect(device.queue(0).readDescriptor(0).address).toBe(address);
      end();
    }
  });

  it('passes the next position and wrap counter when it notifies [2.9]', () => {
    for (const features of [bits('NOTIFICATION_DATA'), bits('NOTIFICATION_DATA', 'RING_PACKED')]) {
      const { device, queue, at, end } = make(features);
      for (let n = 0; n < 20; n += 1) {
        queue.begin(1);
        queue.pushReadable(at, 1);
        queue.submit();
        queue.publish();
        // The fake refuses a position that is not the next one.
        expect(queue.kick()).toBe(true);
        device.queue(0).pop()?.complete();
        queue.pop();
      }
      expect(new Set(device.notifications.map(({ next }) => next)).size).toBeGreaterThan(15);
      end();
    }
  });
});

describe('add and popUsed', () => {
  it('carries buffers there and back, in DMA memory or not', () => {
    const { device, queue, hal, end } = make(bits('INDIRECT_DESC'));
    const region = hal.dmaAlloc(1, 'both', false);
    const reply = region.bytes.subarray(8, 12);
    const token = BufferChains.of(queue).add(
      [Uint8Array.of(1, 2), Uint8Array.of(3)],
      [reply, new Uint8Array(9)],
    );
    const chain = device.queue(0).pop()!;
    expect([...chain.bytes()]).toEqual([1, 2, 3]);
    expect(chain.elements[2]?.address).toBe(region.address + 8);
    chain.write([5, 6, 7, 8, 9]).complete();
    expect(BufferChains.of(queue).popUsed(token)).toBe(5);
    expect([...reply]).toEqual([5, 6, 7, 8]);
    hal.dmaDealloc(region, false);
    expect(hal.shares).toEqual([]);
    end();
  });

  it('says whether nothing is used yet or another chain is next, and takes nothing', () => {
    const { device, queue, end } = make(0n);
    const first = BufferChains.of(queue).add([Uint8Array.of(1)], []);
    const second = BufferChains.of(queue).add([Uint8Array.of(2)], []);
    expect(() => BufferChains.of(queue).popUsed(first)).toThrow(coded('NOT_READY'));
    const ring = device.queue(0);
    ring.pop();
    ring.pop()?.complete();
    expect(() => BufferChains.of(queue).popUsed(first)).toThrow(coded('WRONG_TOKEN'));
    expect(BufferChains.of(queue).popUsed(second)).toBe(0);
    end();
  });

  it('gives buffers back when it cannot share them all', () => {
    const { queue, hal, end } = make(0n);
    hal.failShare({ after: 1 });
    expect(() => BufferChains.of(queue).add([Uint8Array.of(1)], [new Uint8Array(1)])).toThrow(
      coded('DMA_ERROR'),
    );
    expect(hal.shares).toEqual([]);
    expect(queue.availableDescriptors).toBe(8);
    expect(() => BufferChains.of(queue).add([new Uint8Array(0)], [])).toThrow(coded('INVALID_PARAM'));
    expect(() => BufferChains.of(queue).add([], [])).toThrow(coded('INVALID_PARAM'));
    end();
  });

  it('spins until the device answers', () => {
    const { device, queue, end } = make(0n);
    device.automatic = true;
    device.handle(0, (chain) => {
      chain.write([4, 2]);
    });
    const reply = new Uint8Array(4);
    expect(BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(1)], [reply])).toBe(2);
    expect([...reply.subarray(0, 2)]).toEqual([4, 2]);
    end();
  });

  it('gives up on a device that does not answer, needs a reset, or is gone', () => {
    const { device, queue, end } = make(0n);
    const ask = () => BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(1)], [], { timeoutMs: 5 });
    expect(ask).toThrow(coded('NOT_READY'));
    const never = (timeoutMs: number) => () => {
      spin(queue.transport, () => false, { timeoutMs }, 'a word');
    };
    expect(never(NaN)).toThrow(coded('INVALID_PARAM'));
    expect(never(1)).toThrow(/a word did not come within 1 ms/);
    device.needsReset();
    expect(ask).toThrow(coded('DEVICE_NEEDS_RESET'));
    end();
    const other = make(0n);
    other.device.remove();
    expect(() => BufferChains.of(other.queue).addNotifyWaitPop([Uint8Array.of(1)], [])).toThrow(
      coded('DEVICE_REMOVED'),
    );
  });
});

describe('createQueue', () => {
  it('takes the size wanted, the device allows and the format has', () => {
    for (const [features, wanted, max, size] of [
      [bits(), 256, 1024, 256],
      [bits(), 100, 1024, 64],
      [bits(), 32768, 32768, 32768],
      [bits(), 256, 100, 64],
      [bits(), 1, 8, 1],
      [bits('RING_PACKED'), 100, 1024, 100],
      [bits('RING_PACKED'), 32768, 32767, 32767],
      [bits('RING_PACKED'), 1, 1, 1],
    ] as const) {
      const { queue, end } = make(features, { size: wanted }, max);
      expect(queue.size).toBe(size);
      end();
    }
    expect(make(bits(), {}, 1024).queue.size).toBe(8);
  });

  it('fills, drains and refills queues of every size from 1 to 32768 [2.7, 2.8]', () => {
    const powers = [1, 2, 4, 64, 1024, 32768];
    for (const [format, sizes] of [
      [bits(), powers],
      [bits('RING_PACKED'), [...powers, 3, 5, 7, 100, 999, 32767]],
    ] as const) {
      for (const size of sizes) {
        const { device, queue, at, end } = make(format | bits('EVENT_IDX'), { size }, size);
        expect(queue.size).toBe(size);
        const ring = device.queue(0);
        for (let lap = 0; lap < 2; lap += 1) {
          const tokens = new Set<number>();
          while (queue.tryBegin(1)) {
            queue.pushWritable(at, 1 + lap);
            tokens.add(queue.submit());
          }
          queue.publish();
          expect(tokens.size).toBe(size);
          const chains = Array.from({ length: size }, () => ring.pop()!);
          expect(ring.pop()).toBeUndefined();
          ring.completeBatch(chains.reverse());
          for (let n = 0; n < size; n += 1) if (!tokens.delete(queue.pop())) throw new Error(`size ${size}`);
          expect(queue.pop()).toBe(-1);
          expect(queue.availableDescriptors).toBe(size);
        }
        end();
      }
    }
  });

  it('refuses sizes that no queue has, queues that the device lacks and queues that are set up', () => {
    for (const size of [0, -1, 32769, 1.5, NaN]) {
      expect(() => make(0n, { size })).toThrow(coded('INVALID_PARAM'));
    }
    expect(() => make(0n, { index: 1 })).toThrow(coded('UNSUPPORTED'));
    const { transport, hal } = make(0n);
    expect(() => createQueue(transport, hal, CommonFeatures.set(), { index: 0 })).toThrow(
      coded('ALREADY_USED'),
    );
  });

  it('gives memory back when it cannot have all of it', () => {
    for (const after of [0, 1, 2]) {
      const device = new FakeDevice({ type: DeviceType.Block, features: bits('INDIRECT_DESC'), queues: [8] });
      const transport = new FakeTransport(device);
      const features = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
      device.hal.failAlloc({ after });
      expect(() => createQueue(transport, device.hal, features, { index: 0 })).toThrow(coded('DMA_ERROR'));
      device.assertClean();
    }
  });

  it('throws DISPOSED after its end', () => {
    const { queue, end } = make(0n);
    end();
    expect(() => queue.tryBegin(1)).toThrow(coded('DISPOSED'));
    expect(() => {
      queue.reset();
    }).toThrow(coded('DISPOSED'));
    queue[Symbol.dispose]();
  });
});
