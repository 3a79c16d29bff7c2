import { FakeDevice, FakeTransport, ringVariants } from '@virtio/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createQueue } from './create-queue.ts';
import { DeviceType } from '../device/device-type.ts';
import { QUEUE_FEATURES } from '../device/driver-spec.ts';
import { CommonFeatures } from '../device/features.ts';

afterEach(() => {
  vi.restoreAllMocks();
});

/** A queue, and the order in which it touches what the device watches, with what the device could take at each step. */
function watched(features: bigint) {
  const device = new FakeDevice({ type: DeviceType.EntropySource, features, queues: [8] });
  device.automatic = false;
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size: 8 });
  transport.finishInit();
  const { address } = device.hal.dmaAlloc(1, 'both', false);
  const ring = device.queue(0);
  const log: string[] = [];
  const seen = (): string => (ring.available() ? 'shown' : 'hidden');
  // The overloads for numbers are all that rings use.
  const atomics: {
    load(array: Uint16Array, index: number): number;
    store(array: Uint16Array, index: number, value: number): number;
  } = Atomics;
  const { load, store } = atomics;
  vi.spyOn(atomics, 'store').mockImplementation((array, index, value) => {
    const before = seen();
    const result = store(array, index, value);
    log.push(`store: ${before}, then ${seen()}`);
    return result;
  });
  vi.spyOn(atomics, 'load').mockImplementation((array, index) => {
    log.push(`load: ${seen()}`);
    return load(array, index);
  });
  vi.spyOn(transport, 'notify').mockImplementation(() => log.push(`notify: ${seen()}`));
  const submit = (): void => {
    queue.begin(2);
    queue.pushReadable(address, 1);
    queue.pushWritable(address + 8, 1);
    queue.submit();
  };
  return { queue, ring, log, submit };
}

describe.each(ringVariants)('the order of memory accesses: $name', ({ features }) => {
  it('shows chains by one ordered store behind all others [2.7.13.3.1, 2.8.21.1.1]', () => {
    const { queue, ring, log, submit } = watched(features);
    submit();
    submit();
    expect(log).toEqual([]);
    queue.publish();
    expect(log).toEqual(['store: hidden, then shown']);
    // What the store shows is whole.
    expect([ring.pop(), ring.pop()]).toMatchObject([
      { readable: 1, writable: 1 },
      { readable: 1, writable: 1 },
    ]);
  });

  it('looks whether to notify by an ordered load behind that store, and then notifies [2.7.13.4.1, 2.8.21.3.1]', () => {
    const { queue, log, submit } = watched(features);
    submit();
    queue.publish();
    expect(queue.kick()).toBe(true);
    expect(log).toEqual(['store: hidden, then shown', 'load: shown', 'notify: shown']);
  });

  it('looks for used chains behind the store that asks for interrupts [2.7.14, 2.8.22]', () => {
    const { queue, ring, log, submit } = watched(features);
    submit();
    queue.publish();
    ring.pop()?.complete();
    log.length = 0;
    expect(queue.enableInterrupts()).toBe(true);
    expect(log).toEqual(['store: hidden, then hidden', 'load: hidden']);
  });
});
