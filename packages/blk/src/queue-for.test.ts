import { CommonFeatures, forThreads, openQueuePlan, type QueuePlan, type VirtioError } from '@virtio/core';
import { FakeThread } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import { VirtioBlk } from './virtio-blk.ts';

const refused = (code: string): Error => expect.objectContaining({ code }) as Error;
const sector = (): Uint8Array => new Uint8Array(512);
const turns = async (count = 8): Promise<void> => {
  for (let n = 0; n < count; n += 1) await new Promise((resolve) => setTimeout(resolve, 0));
};

interface Lent extends OpenDisk {
  /** What the other thread has. */
  readonly far: VirtioBlk;
  readonly thread: FakeThread;
  readonly plan: QueuePlan;
  readonly failures: VirtioError[];
}

/** A disk with two queues, the second of which another thread drives, played here. */
function lend(ring: bigint): Lent {
  const open = openFakeDisk({
    features: ['MQ', 'FLUSH'],
    ring,
    queues: [16, 16],
    driver: { threadQueues: forThreads(1) },
  });
  const { blk, transport } = open;
  const plan = structuredClone(blk.queueFor(1, { memory: 4096 }));
  const thread = new FakeThread(transport, plan);
  const far = openQueuePlan(VirtioBlk, plan, thread);
  const failures: VirtioError[] = [];
  far.on('failure', (error) => failures.push(error));
  return { ...open, far, thread, plan, failures };
}

function close({ far, blk, device }: Lent): void {
  far[Symbol.dispose]();
  blk[Symbol.dispose]();
  device.assertClean();
}

const rings = [
  ['split', CommonFeatures.set('EVENT_IDX').bits],
  ['split, indirect', CommonFeatures.set('INDIRECT_DESC').bits],
  ['packed', CommonFeatures.set('RING_PACKED', 'EVENT_IDX').bits],
  ['packed, indirect, in order', CommonFeatures.set('RING_PACKED', 'INDIRECT_DESC', 'IN_ORDER').bits],
  ['with data in notifications', CommonFeatures.set('NOTIFICATION_DATA').bits],
] as const;

describe.each(rings)('a queue for another thread, %s', (_name, ring) => {
  it('takes all forms of requests', async () => {
    const open = lend(ring);
    const { blk, far, disk } = open;
    disk.bytes.set(pattern(disk.bytes.length));
    expect([far.capacity, far.queueCount, blk.queueCount]).toEqual([blk.capacity, 1, 1]);
    for (let lap = 0; lap < 20; lap += 1) {
      const buffers = [sector(), sector(), sector()] as const;
      await far.read(lap, buffers[0]);
      far.readSync(lap + 1, buffers[1]);
      const token = far.submitRead(lap + 2, buffers[2]);
      expect(far.poll()).toBe(token);
      far.complete(token);
      buffers.forEach((buffer, n) => {
        expect(buffer).toEqual(disk.bytes.subarray((lap + n) * 512, (lap + n + 1) * 512));
      });
    }
    await far.write(3, pattern(512, 9));
    await far.flush();
    expect(disk.bytes.subarray(3 * 512, 4 * 512)).toEqual(pattern(512, 9));
    expect(new Set(disk.requests.map(({ queue }) => queue))).toEqual(new Set([1]));
    close(open);
  });

  it('ends requests with DEVICE_RESET when the device is reset, and works again', async () => {
    const open = lend(ring);
    const { blk, far, disk, failures } = open;
    for (let lap = 0; lap < 5; lap += 1) {
      disk.holdBack = true;
      const lost = [far.read(0, sector()), far.read(1, sector())];
      const token = far.submitRead(2, sector());
      await turns(1);
      blk.reset();
      disk.held.length = 0;
      disk.holdBack = false;
      const results = await Promise.allSettled(lost);
      expect(results).toEqual([
        { status: 'rejected', reason: refused('DEVICE_RESET') },
        { status: 'rejected', reason: refused('DEVICE_RESET') },
      ]);
      expect(() => far.complete(token)).toThrow(refused('WRONG_TOKEN'));
      expect(failures).toHaveLength(lap + 1);
      expect(failures.at(-1)).toEqual(refused('DEVICE_RESET'));
      await far.write(5, pattern(512, lap));
      await blk.read(5, sector());
      expect(disk.bytes.subarray(5 * 512, 6 * 512)).toEqual(pattern(512, lap));
    }
    close(open);
  });

  it('hears of a reset without an event loop, by polling and by spinning', () => {
    const open = lend(ring);
    const { blk, far, disk, failures } = open;
    disk.holdBack = true;
    const token = far.submitRead(2, sector());
    blk.reset();
    disk.held.length = 0;
    expect(() => far.poll()).toThrow(refused('DEVICE_RESET'));
    expect(far.poll()).toBe(-1);
    expect(() => far.complete(token)).toThrow(refused('WRONG_TOKEN'));
    disk.holdBack = false;
    far.readSync(0, sector());
    expect(failures.map(({ code }) => code)).toEqual(['DEVICE_RESET']);
    close(open);
  });

  it('writes to its old rings until it has heard, which the device never sees', () => {
    const open = lend(ring);
    const { blk, far, disk, device } = open;
    far.writeSync(0, pattern(512, 1));
    blk.reset();
    const before = disk.requests.length;
    // Twice, so that the rings that it has would be next.
    blk.reset();
    far.submitRead(1, sector(), { kick: false });
    far.submitRead(2, sector(), { kick: false });
    device.run();
    expect(disk.requests).toHaveLength(before);
    expect(() => far.poll()).toThrow(refused('DEVICE_RESET'));
    far.writeSync(1, pattern(512, 2));
    expect(disk.bytes.subarray(512, 1024)).toEqual(pattern(512, 2));
    close(open);
  });
});

describe('a queue for another thread', () => {
  const none = 0n;

  it('fails with the device, and works again after a reset', async () => {
    const open = lend(none);
    const { blk, far, disk, device, failures } = open;
    disk.holdBack = true;
    const lost = far.read(0, sector());
    await turns(1);
    device.needsReset();
    await expect(lost).rejects.toThrow(refused('DEVICE_NEEDS_RESET'));
    disk.held.length = 0;
    disk.holdBack = false;
    blk.reset();
    await turns();
    await far.read(0, sector());
    expect(failures.map(({ code }) => code)).toEqual(['DEVICE_NEEDS_RESET']);
    close(open);
  });

  it('that is opened while the device is being reset begins on no rings of the device, and works afterwards', async () => {
    const { blk, transport, disk, device } = openFakeDisk({
      features: ['MQ', 'FLUSH'],
      queues: [16, 16],
      driver: { threadQueues: forThreads(1) },
    });
    const plan = structuredClone(blk.queueFor(1, { memory: 4096 }));
    let far: VirtioBlk | undefined;
    const setStatus = transport.setStatus.bind(transport);
    const resetting = vi.spyOn(transport, 'setStatus').mockImplementation((status) => {
      // As another thread may do.
      if (status.bits === 0) far ??= openQueuePlan(VirtioBlk, plan, new FakeThread(transport, plan));
      setStatus(status);
    });
    blk.reset();
    resetting.mockRestore();
    expect(far).toBeInstanceOf(VirtioBlk);
    await turns();
    await far?.write(1, pattern(512, 3));
    expect(disk.bytes.subarray(512, 1024)).toEqual(pattern(512, 3));
    blk.reset();
    await turns();
    await far?.read(1, sector());
    far?.[Symbol.dispose]();
    blk[Symbol.dispose]();
    device.assertClean();
  });

  it('fails with DEVICE_REMOVED when the device is unplugged', async () => {
    const open = lend(none);
    const { far, disk, device } = open;
    disk.holdBack = true;
    const lost = far.read(0, sector());
    await turns(1);
    device.remove();
    await expect(lost).rejects.toThrow(refused('DEVICE_REMOVED'));
    await expect(far.read(0, sector())).rejects.toThrow(refused('DEVICE_REMOVED'));
    far[Symbol.dispose]();
    open.blk[Symbol.dispose]();
  });

  it('fails the driver of the device when it finds the device lying', async () => {
    const open = lend(none);
    const { blk, far, disk, device, transport } = open;
    const failed = new Promise<VirtioError>((resolve) => blk.on('failure', resolve));
    disk.holdBack = true;
    const lost = far.read(0, sector());
    await turns(1);
    const ring = device.splitQueue(1);
    ring.writeUsed(0, 7, 0);
    ring.usedIdx = 1;
    transport.interrupts?.fireQueue(1);
    await expect(lost).rejects.toThrow(refused('DEVICE_MISBEHAVED'));
    expect(await failed).toEqual(refused('DEVICE_MISBEHAVED'));
    await expect(blk.read(0, sector())).rejects.toThrow(refused('DEVICE_MISBEHAVED'));
    disk.held.length = 0;
    disk.holdBack = false;
    blk.reset();
    await turns();
    await far.read(0, sector());
    far[Symbol.dispose]();
    blk[Symbol.dispose]();
  });

  it('tells of a changed configuration', async () => {
    const open = lend(none);
    const { far, device } = open;
    const sizes: number[] = [];
    far.on('capacity', (size) => sizes.push(size));
    device.changeConfig((config) => {
      config.setBigUint64(0, 128n, true);
    });
    await turns();
    expect([sizes, far.capacity]).toEqual([[128], 128]);
    close(open);
  });

  it('is refused where it makes no sense', async () => {
    const open = lend(none);
    const { blk, far, transport, plan } = open;
    expect(() => blk.queueFor(0)).toThrow(refused('INVALID_PARAM'));
    expect(() => blk.queueFor(2)).toThrow(refused('INVALID_PARAM'));
    expect(() => blk.queueFor(1)).toThrow(refused('ALREADY_USED'));
    expect(() => openQueuePlan(VirtioBlk, plan, new FakeThread(transport, plan))).toThrow(
      refused('ALREADY_USED'),
    );
    expect(() => {
      far.reset();
    }).toThrow(refused('UNSUPPORTED'));
    await far.read(0, sector());
    expect(() => {
      far.setWriteCache('writeback');
    }).toThrow(refused('UNSUPPORTED'));
    close(open);
  });

  it('can be handed over again when it was given back and the device was reset', async () => {
    const open = lend(none);
    const { blk, far, transport, thread } = open;
    await far.read(0, sector());
    far[Symbol.dispose]();
    expect(thread.closed).toBe(1);
    expect(() => blk.queueFor(1)).toThrow(refused('ALREADY_USED'));
    blk.reset();
    const plan = blk.queueFor(1);
    const next = openQueuePlan(VirtioBlk, plan, new FakeThread(transport, plan));
    await next.read(0, sector());
    close({ ...open, far: next });
  });

  it('has its descriptors closed when the thread is gone, or never came', () => {
    const { blk, transport } = openFakeDisk({
      features: ['MQ'],
      queues: [16, 16],
      driver: { threadQueues: forThreads(1) },
    });
    const close = vi.fn<() => void>();
    const lendQueue = transport.lendQueue.bind(transport);
    vi.spyOn(transport, 'lendQueue').mockImplementation((queue) => ({ ...lendQueue(queue), close }));
    const plan = (): QueuePlan => {
      blk.reset();
      return blk.queueFor(1);
    };
    const open = (one: QueuePlan): VirtioBlk => openQueuePlan(VirtioBlk, one, new FakeThread(transport, one));
    plan();
    expect(() => plan()).toThrow(refused('ALREADY_USED'));
    blk.reclaimQueue(1);
    expect(close).toHaveBeenCalledTimes(1);
    blk.reclaimQueue(1);
    open(plan());
    blk.reclaimQueue(1);
    expect(close).toHaveBeenCalledTimes(2);
    open(plan())[Symbol.dispose]();
    blk.reclaimQueue(1);
    // The thread has closed them.
    expect(close).toHaveBeenCalledTimes(2);
    plan();
    blk[Symbol.dispose]();
    expect(close).toHaveBeenCalledTimes(3);
  });

  it('ends with DISPOSED when the device is closed, and leaves its memory alone', async () => {
    const open = lend(none);
    const { blk, far, disk } = open;
    disk.holdBack = true;
    const lost = far.read(0, sector());
    await turns(1);
    blk[Symbol.dispose]();
    await expect(lost).rejects.toThrow(refused('DISPOSED'));
    far[Symbol.dispose]();
  });

  it('refuses a plain number of queues, which would set aside nothing', () => {
    const options = { features: ['MQ'], queues: [8, 8], driver: { threadQueues: 1 as never } } as const;
    expect(() => openFakeDisk(options)).toThrow(/threadQueues is 1; pass the result of forThreads\(count\)/);
  });

  it('asks for as many queues as there are', () => {
    expect(() =>
      openFakeDisk({ features: ['MQ'], queues: [8, 8], driver: { threadQueues: forThreads(2) } }),
    ).toThrow(refused('INVALID_PARAM'));
    expect(() =>
      openFakeDisk({ features: ['MQ'], queues: [8, 8], driver: { threadQueues: forThreads(1), queues: 2 } }),
    ).toThrow(refused('INVALID_PARAM'));
  });
});
