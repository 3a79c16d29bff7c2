import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { createQueue } from './create-queue.ts';
import { DeviceType } from '../device/device-type.ts';
import { QUEUE_FEATURES } from '../device/driver-spec.ts';
import { CommonFeatures, type FeatureName } from '../device/features.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

function make(names: readonly FeatureName[], { size = 8, legacy = false } = {}) {
  const device = new FakeDevice({
    type: DeviceType.Block,
    features: CommonFeatures.set(...names).bits,
    queues: [size],
    legacy,
  });
  device.automatic = false;
  const transport = new FakeTransport(device);
  const features = transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, features, { index: 0, size });
  transport.finishInit();
  const { address } = device.hal.dmaAlloc(1, 'both', false);
  /** Submits and publishes a chain of so many readable buffers. */
  const add = (count = 1): number => {
    queue.begin(count);
    for (let n = 0; n < count; n += 1) queue.pushReadable(address, 1);
    const token = queue.submit();
    queue.publish();
    return token;
  };
  return { device, transport, queue, ring: device.splitQueue(0), address, add };
}

describe('the memory of a split ring', () => {
  it('aligns the parts of the ring [2.7.1]', () => {
    for (const size of [1, 2, 4, 8, 256, 32768]) {
      const [table, avail, used] = make([], { size }).ring.areas;
      expect((table?.address ?? 1) % 16).toBe(0);
      expect((avail?.address ?? 1) % 2).toBe(0);
      expect((used?.address ?? 1) % 4).toBe(0);
    }
  });

  it('lays the legacy ring out in one region with the used ring on the next page [2.7.2]', () => {
    for (const size of [8, 256, 1024]) {
      const { device } = make([], { size, legacy: true });
      const { descriptors, driverArea, deviceArea } = device.queues[0]!;
      expect(descriptors % 4096).toBe(0);
      expect(driverArea - descriptors).toBe(16 * size);
      const align = (bytes: number) => Math.ceil(bytes / 4096) * 4096;
      expect(deviceArea - descriptors).toBe(align(16 * size + 2 * (3 + size)));
      expect(device.hal.allows(descriptors, deviceArea - descriptors + 6 + 8 * size, 'any')).toBe(true);
    }
  });

  it('lets the device write nothing but the used ring', () => {
    const { device, ring } = make(['INDIRECT_DESC']);
    const [table, avail, used] = ring.areas;
    expect(device.hal.allows(table!.address, table!.length, 'write')).toBe(false);
    expect(device.hal.allows(avail!.address, avail!.length, 'write')).toBe(false);
    expect(device.hal.allows(used!.address, used!.length, 'write')).toBe(true);
  });

  it('starts with zeroed rings [2.7.10.1]', () => {
    const { device, transport, queue, ring, add } = make([]);
    add();
    ring.pop()?.complete();
    ring.usedFlags = 1;
    transport.beginInit({ table: CommonFeatures, supported: QUEUE_FEATURES });
    // The fake refuses a ring whose indices or flags are not zero when it is enabled.
    queue.reset();
    expect(device.splitQueue(0).availIdx).toBe(0);
    device.assertObeyed();
  });
});

describe('descriptors of a split ring', () => {
  it('links the buffers of a chain', () => {
    const { ring, queue, address } = make([]);
    queue.begin(3);
    queue.pushReadable(address, 16);
    queue.pushWritable(address + 512, 512);
    queue.pushWritable(address + 1024, 1);
    expect(queue.submit()).toBe(0);
    expect([0, 1, 2].map((index) => ring.readDescriptor(index))).toEqual([
      { address, length: 16, flags: NEXT, extra: 1 },
      { address: address + 512, length: 512, flags: WRITE | NEXT, extra: 2 },
      { address: address + 1024, length: 1, flags: WRITE, extra: 0 },
    ]);
  });

  it('describes a chain in a table with one descriptor in the ring [2.7.5.3]', () => {
    for (const names of [['INDIRECT_DESC'], ['INDIRECT_DESC', 'IN_ORDER']] as const) {
      const { device, ring, queue, address } = make(names);
      queue.begin(3);
      queue.pushReadable(address, 16);
      queue.pushWritable(address + 512, 512);
      queue.pushWritable(address + 1024, 1);
      queue.submit();
      const { address: table, length, flags } = ring.readDescriptor(0);
      expect(flags).toBe(INDIRECT);
      expect(length).toBe(48);
      const view = new DataView(device.hal.read(table, 48).buffer);
      const words = [0, 16, 32].map((at) => [
        view.getUint32(at, true),
        view.getUint32(at + 8, true),
        view.getUint16(at + 12, true),
        view.getUint16(at + 14, true),
      ]);
      expect(words).toEqual([
        [address, 16, NEXT, 1],
        [address + 512, 512, WRITE | NEXT, 2],
        [address + 1024, 1, WRITE, 0],
      ]);
    }
  });

  it('takes descriptors in ring order when in order [2.7.5.2]', () => {
    const { device, ring, queue, add } = make(['IN_ORDER'], { size: 4 });
    for (let n = 0; n < 40; n += 1) {
      // The fake refuses a descriptor that is not the next one.
      add(1 + (n % 3));
      ring.pop()?.complete();
      expect(queue.pop()).toBeGreaterThanOrEqual(0);
    }
    device.assertObeyed();
  });

  it('rewinds a chain before it is in the ring, and never the index [2.7.6.1]', () => {
    const { ring, queue, address, add } = make([]);
    add();
    queue.begin(2);
    queue.pushReadable(address, 1);
    queue.rewind();
    queue.publish();
    expect(ring.availIdx).toBe(1);
    add();
    expect(ring.availIdx).toBe(2);
  });
});

describe('notifications of a split ring', () => {
  it('notifies by the flags without EVENT_IDX, whatever avail_event says [2.7.10.1]', () => {
    const { queue, ring, add } = make([]);
    for (const [flags, notified] of [
      [0, true],
      [1, false],
      [0, true],
    ] as const) {
      ring.usedFlags = flags;
      add();
      expect(queue.kick()).toBe(notified);
    }
    expect(queue.kick()).toBe(false);
  });

  it('notifies by avail_event with EVENT_IDX, whatever the flags say [2.7.10.1]', () => {
    const { queue, ring, add } = make(['EVENT_IDX']);
    for (const flags of [0, 1]) {
      ring.usedFlags = flags;
      ring.availEvent = ring.availIdx;
      add();
      expect(queue.kick()).toBe(true);
      add();
      expect(queue.kick()).toBe(false);
    }
    ring.availEvent = ring.availIdx + 1;
    add();
    add();
    expect(queue.kick()).toBe(true);
  });

  it('notifies across the wrap of the index, and after a whole lap without a kick', () => {
    const { queue, ring, add } = make(['EVENT_IDX'], { size: 2 });
    const turn = () => {
      add();
      ring.pop()?.complete();
      queue.pop();
    };
    for (let n = 0; n < 65535; n += 1) turn();
    queue.kick();
    ring.availEvent = 65535;
    turn();
    expect(ring.availIdx).toBe(0);
    expect(queue.kick()).toBe(true);
    for (let n = 0; n < 65536; n += 1) turn();
    ring.availEvent = 7;
    expect(queue.kick()).toBe(true);
  });

  it('suppresses and asks for interrupts by the flags without EVENT_IDX [2.7.7.1]', () => {
    const { queue, ring } = make([]);
    expect(ring.availFlags).toBe(1);
    queue.enableInterrupts();
    expect(ring.availFlags).toBe(0);
    queue.disableInterrupts();
    expect(ring.availFlags).toBe(1);
  });

  it('suppresses and asks for interrupts by used_event, with flags 0 [2.7.7.1]', () => {
    const { queue, ring, add } = make(['EVENT_IDX']);
    expect([ring.availFlags, ring.usedEvent]).toEqual([0, 65535]);
    add();
    ring.pop()?.complete();
    queue.pop();
    queue.enableInterrupts();
    expect([ring.availFlags, ring.usedEvent]).toEqual([0, 1]);
    queue.disableInterrupts();
    expect([ring.availFlags, ring.usedEvent]).toEqual([0, 0]);
  });
});

describe('lies of a split device', () => {
  const misbehaved = expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }) as Error;

  it('catches a used index that jumps ahead or goes back', () => {
    for (const index of [3, 65535, 32768]) {
      const { queue, ring, add } = make([]);
      add();
      add();
      ring.usedIdx = index;
      expect(() => queue.pop()).toThrow(misbehaved);
    }
  });

  it('catches ids that are out of range, free, or used twice', () => {
    for (const id of [8, 5, 0xffffffff]) {
      const { queue, ring, add } = make([]);
      add();
      ring.forceUsed(id, 0);
      expect(() => queue.pop()).toThrow(misbehaved);
    }
    // Lengths of a legacy device are not trusted, but its ids must be right.
    const old = make([], { legacy: true });
    old.add();
    old.ring.forceUsed(8, 0);
    expect(() => old.queue.pop()).toThrow(misbehaved);
    const { queue, ring, add } = make([]);
    const token = add();
    add();
    ring.forceUsed(token, 0);
    expect(queue.pop()).toBe(token);
    ring.forceUsed(token, 0);
    expect(() => queue.pop()).toThrow(misbehaved);
  });

  it('catches a device that is out of order, though it must not be', () => {
    const { queue, ring, add } = make(['IN_ORDER']);
    add();
    const second = add();
    ring.forceUsed(second, 0);
    expect(() => queue.pop()).toThrow(misbehaved);
  });

  it('takes a wrong length from a legacy device, up to what was offered [2.7.8.1]', () => {
    const { queue, ring, address } = make([], { legacy: true });
    queue.begin(2);
    queue.pushReadable(address, 16);
    queue.pushWritable(address, 10);
    const token = queue.submit();
    queue.publish();
    ring.forceUsed(token, 26);
    expect(queue.pop()).toBe(token);
    expect(queue.usedLength).toBe(10);
  });

  it('does not care what becomes of descriptors and of the available ring', () => {
    const { device, queue, ring, add } = make([]);
    const token = add(3);
    for (const { address, length } of ring.areas.slice(0, 2)) {
      device.hal.view(address, length, 'any').fill(0xff);
    }
    ring.writeUsed(0, token, 0);
    ring.usedIdx = 1;
    expect(queue.pop()).toBe(token);
    expect(queue.availableDescriptors).toBe(8);
  });

  it('keeps a chain that stays with the device while others go round for many laps', () => {
    const { queue, ring, add } = make([], { size: 2 });
    const old = add();
    const kept = ring.pop();
    for (let n = 0; n < 70_000; n += 1) {
      add();
      ring.pop()?.complete();
      if (queue.pop() === old) throw new Error('the old chain came back');
    }
    kept?.complete();
    expect(queue.pop()).toBe(old);
  });
});
