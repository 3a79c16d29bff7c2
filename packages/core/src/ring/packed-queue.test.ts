import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { createQueue } from './create-queue.ts';
import { DeviceType } from '../device/device-type.ts';
import { QUEUE_FEATURES } from '../device/driver-spec.ts';
import { CommonFeatures, type FeatureName } from '../device/features.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 1 << 7;
const USED = 1 << 15;

function make(names: readonly FeatureName[] = [], size = 8, ignoreEvent = false) {
  const features = CommonFeatures.set('RING_PACKED', ...names).bits;
  const device = new FakeDevice({ type: DeviceType.Block, features, queues: [size] });
  device.automatic = false;
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size, ignoreEvent });
  transport.finishInit();
  const { address } = device.hal.dmaAlloc(1, 'both', false);
  const submit = (count = 1): number => {
    queue.begin(count);
    for (let n = 0; n < count; n += 1) queue.pushReadable(address, 1);
    return queue.submit();
  };
  const add = (count = 1): number => {
    const token = submit(count);
    queue.publish();
    return token;
  };
  return { device, transport, queue, ring: device.packedQueue(0), address, submit, add };
}

describe('descriptors of a packed ring', () => {
  it('aligns the parts of the ring [2.8.11]', () => {
    for (const size of [1, 3, 8, 100, 32768]) {
      const [ring, driver, device] = make([], size).ring.areas;
      expect((ring?.address ?? 1) % 16).toBe(0);
      expect((driver?.address ?? 1) % 4).toBe(0);
      expect((device?.address ?? 1) % 4).toBe(0);
    }
  });

  it('writes flags by the wrap counter, and the id with the last buffer [2.8.6]', () => {
    const { queue, ring, address, add } = make([], 4);
    queue.begin(3);
    queue.pushReadable(address, 16);
    queue.pushWritable(address + 512, 512);
    queue.pushWritable(address + 1024, 1);
    const token = queue.submit();
    queue.publish();
    expect([0, 1, 2].map((index) => ring.readDescriptor(index))).toMatchObject([
      { address, length: 16, flags: NEXT | AVAIL },
      { address: address + 512, length: 512, flags: NEXT | WRITE | AVAIL },
      { address: address + 1024, length: 1, flags: WRITE | AVAIL, extra: token },
    ]);
    ring.pop()?.complete();
    queue.pop();
    add(3);
    // Over the end of the ring: the wrap counter is 1 for the last descriptor, 0 for the first two.
    expect(ring.readDescriptor(3).flags).toBe(NEXT | AVAIL);
    expect(ring.readDescriptor(0).flags).toBe(NEXT | USED);
    expect(ring.readDescriptor(1).flags).toBe(USED);
  });

  it('makes the first descriptor of a batch available last [2.8.17]', () => {
    const { queue, ring, submit } = make();
    submit(2);
    submit(1);
    expect(ring.readDescriptor(0).flags).toBe(0);
    expect(ring.readDescriptor(2).flags).toBe(AVAIL);
    expect(ring.available()).toBe(false);
    queue.publish();
    expect(ring.readDescriptor(0).flags).toBe(NEXT | AVAIL);
    expect(ring.pop()?.descriptors).toBe(2);
    expect(ring.pop()?.descriptors).toBe(1);
  });

  it('describes a chain in a table with WRITE as its only flag [2.8.19]', () => {
    const { device, queue, ring, address } = make(['INDIRECT_DESC']);
    queue.begin(2);
    queue.pushReadable(address, 16);
    queue.pushWritable(address + 512, 512);
    const token = queue.submit();
    queue.publish();
    const { address: table, length, flags, extra } = ring.readDescriptor(0);
    expect({ length, flags, extra }).toEqual({ length: 32, flags: INDIRECT | AVAIL, extra: token });
    const view = new DataView(device.hal.read(table, 32).buffer);
    expect([0, 16].map((at) => [view.getUint32(at, true), view.getUint32(at + 8, true)])).toEqual([
      [address, 16],
      [address + 512, 512],
    ]);
    expect([0, 16].map((at) => view.getUint16(at + 14, true))).toEqual([0, WRITE]);
  });

  it('leaves descriptors alone that are with the device [2.8.16]', () => {
    const { device, queue, ring, address, add } = make();
    add(3);
    const before = device.hal.read(ring.areas[0]!.address, 48);
    add(2);
    queue.begin(2);
    queue.pushReadable(address, 1);
    queue.rewind();
    queue.kick();
    expect(device.hal.read(ring.areas[0]!.address, 48)).toEqual(before);
  });

  it('leaves nothing of an abandoned chain for the device to see', () => {
    const { queue, ring, address, add } = make([], 4);
    for (let lap = 0; lap < 9; lap += 1) {
      queue.begin(4);
      for (let n = 0; n < 4; n += 1) queue.pushWritable(address, 9);
      queue.rewind();
      add(1);
      const chain = ring.pop();
      expect(chain?.readable).toBe(1);
      expect(ring.pop()).toBeUndefined();
      chain?.complete();
      queue.pop();
    }
  });
});

describe('notifications of a packed ring', () => {
  it('notifies unless the device disabled that [2.8.14]', () => {
    const { queue, ring, add } = make();
    for (const [flags, notified] of [
      [0, true],
      [1, false],
      // Reserved: better one notification too many.
      [3, true],
    ] as const) {
      ring.deviceEvent = { flags, offset: 0, wrap: 0 };
      add();
      expect(queue.kick()).toBe(notified);
    }
    expect(queue.kick()).toBe(false);
  });

  it('notifies when the descriptor that the device waits for becomes available [2.8.10]', () => {
    const { queue, ring, add } = make(['EVENT_IDX'], 5);
    let position = 0;
    for (let n = 0; n < 60; n += 1) {
      const count = 1 + (n % 3);
      const first = position;
      position += count;
      // The device waits for the last descriptor of this chain, or for the first one of the next.
      const waits = n % 2 === 0 ? position - 1 : position;
      ring.deviceEvent = { flags: 2, offset: waits % 5, wrap: Math.floor(waits / 5) % 2 === 0 ? 1 : 0 };
      add(count);
      expect(queue.kick(), `${first} to ${position}, waits for ${waits}`).toBe(n % 2 === 0);
      ring.pop()?.complete();
      queue.pop();
    }
  });

  it('notifies a device whose event is out of date, if it is to be ignored, unless that is disabled', () => {
    for (const ignoreEvent of [false, true]) {
      const { queue, ring, add } = make(['EVENT_IDX'], 8, ignoreEvent);
      const kicks = Array.from({ length: 12 }, () => {
        // QEMU, after its back end was blocked: it asks for the place that it has just passed, and sleeps.
        const next = add();
        ring.pop()?.complete();
        ring.deviceEvent = { flags: 2, offset: 0, wrap: 1 };
        const notified = queue.kick();
        expect(queue.pop()).toBe(next);
        return notified;
      });
      expect(kicks).toEqual(kicks.map((_, n) => ignoreEvent || n === 0));
      ring.deviceEvent = { flags: 1, offset: 0, wrap: 1 };
      add();
      expect(queue.kick()).toBe(false);
      // Nothing was added, so there is nothing to tell.
      ring.deviceEvent = { flags: 2, offset: 0, wrap: 1 };
      expect(queue.kick()).toBe(false);
    }
  });

  it('notifies for every place, step and event if the event is among what became available [2.8.10, 2.8.21.3]', () => {
    for (const size of [1, 2, 3, 5, 8]) {
      const { queue, ring, submit } = make(['EVENT_IDX'], size);
      // Positions count on; the lower laps, in which the wrap counter is 1, are the even ones.
      let position = 0;
      const step = (count: number, whole: boolean): boolean => {
        if (whole) submit(count);
        else for (let n = 0; n < count; n += 1) submit();
        queue.publish();
        const notified = queue.kick();
        for (let chain = ring.pop(); chain; chain = ring.pop()) chain.complete();
        while (queue.pop() >= 0);
        position += count;
        return notified;
      };
      for (let start = 0; start < 2 * size; start += 1) {
        for (let count = 1; count <= size; count += 1) {
          for (let event = 0; event < 2 * size; event += 1) {
            while (position % (2 * size) !== start) step(1, true);
            ring.suppressNotifications();
            ring.deviceEvent = { flags: 2, offset: event % size, wrap: event < size ? 1 : 0 };
            const wanted = Array.from({ length: count }, (_, n) => (start + n) % (2 * size)).includes(event);
            // After a whole lap a notification may be one too many, but none may be missing.
            const notified = step(count, event % 2 === 0);
            if (count < size || wanted) {
              expect(notified, `size ${size}, from ${start}, ${count} more, event ${event}`).toBe(wanted);
            }
          }
        }
      }
    }
  });

  it('notifies at the far ends of the largest ring [2.8.10]', () => {
    const size = 32768;
    for (const [start, count, event, wanted] of [
      [0, 32767, 0, true],
      [0, 32767, 32766, true],
      [0, 32767, 32767, false],
      [0, 32767, 32768, false],
      [0, 32767, 65535, false],
      [32767, 1, 32767, true],
      [32767, 1, 65535, false],
      [32767, 2, 32768, true],
      [32767, 2, 0, false],
      [65535, 1, 65535, true],
      [65535, 1, 32767, false],
      [65535, 2, 0, true],
      [65535, 32767, 32765, true],
      [65535, 32767, 32766, false],
    ] as const) {
      const { queue, ring, submit } = make(['EVENT_IDX'], size);
      const move = (count: number): void => {
        for (let n = 0; n < count; n += 1) submit();
        queue.publish();
      };
      for (let position = 0; position < start; position += 32767) {
        move(Math.min(32767, start - position));
        queue.kick();
        ring.drain(0);
        while (queue.pop() >= 0);
      }
      ring.deviceEvent = { flags: 2, offset: event % size, wrap: event < size ? 1 : 0 };
      move(count);
      expect(queue.kick(), `from ${start}, ${count} more, event ${event}`).toBe(wanted);
    }
  });

  it('notifies after a whole lap without a kick, wherever the event is [2.8.10]', () => {
    for (let event = 0; event < 6; event += 1) {
      const { queue, ring, add } = make(['EVENT_IDX'], 3);
      ring.suppressNotifications();
      for (let n = 0; n < 7; n += 1) {
        add();
        ring.pop()?.complete();
        queue.pop();
      }
      ring.deviceEvent = { flags: 2, offset: event % 3, wrap: event < 3 ? 1 : 0 };
      expect(queue.kick()).toBe(true);
    }
  });

  it('asks for interrupts by place with EVENT_IDX, by switch without', () => {
    const plain = make();
    expect(plain.ring.driverEvent.flags).toBe(1);
    plain.queue.enableInterrupts();
    expect(plain.ring.driverEvent.flags).toBe(0);
    plain.queue.disableInterrupts();
    expect(plain.ring.driverEvent.flags).toBe(1);
    const { queue, ring, add } = make(['EVENT_IDX'], 3);
    for (let n = 0; n < 7; n += 1) {
      expect(queue.enableInterrupts()).toBe(false);
      expect(ring.driverEvent).toEqual({
        flags: 2,
        offset: n % 3,
        wrap: Math.floor(n / 3) % 2 === 0 ? 1 : 0,
      });
      add();
      expect(ring.pop()?.complete()).toBe(true);
      queue.pop();
    }
  });
});

describe('lies of a packed device', () => {
  const misbehaved = expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }) as Error;

  it('catches ids that are out of range, free, or used twice', () => {
    for (const id of [8, 5, 0xffff]) {
      const { queue, ring, add } = make();
      add();
      ring.forceUsed(id, 0);
      expect(() => queue.pop()).toThrow(misbehaved);
    }
    const { queue, ring, add } = make();
    const token = add();
    add();
    ring.forceUsed(token, 0);
    expect(queue.pop()).toBe(token);
    ring.forceUsed(token, 0);
    expect(() => queue.pop()).toThrow(misbehaved);
  });

  it('takes nothing for used while nothing is in flight, whatever the flags say', () => {
    const { queue, ring } = make();
    for (let index = 0; index < 8; index += 1) {
      ring.writeDescriptor(index, { flags: AVAIL | USED, extra: index });
    }
    expect(queue.pop()).toBe(-1);
    expect(queue.enableInterrupts()).toBe(false);
  });

  it('takes nothing for used whose wrap counter is that of another lap', () => {
    const { queue, ring, add } = make();
    add();
    ring.writeDescriptor(0, { flags: 0 });
    expect(queue.pop()).toBe(-1);
    ring.writeDescriptor(0, { flags: USED });
    expect(queue.pop()).toBe(-1);
  });

  it('reads a length without the WRITE flag only where it is possible [2.8.4]', () => {
    for (const [flag, length, expected] of [
      [WRITE, 10, 10],
      // QEMU never sets the flag.
      [0, 10, 10],
      [0, 99, 0],
    ] as const) {
      const { queue, ring, address } = make();
      queue.begin(1);
      queue.pushWritable(address, 10);
      const token = queue.submit();
      queue.publish();
      ring.writeDescriptor(0, { length, extra: token, flags: AVAIL | USED | flag });
      expect(queue.pop()).toBe(token);
      expect(queue.usedLength).toBe(expected);
    }
  });
});
