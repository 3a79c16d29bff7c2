import { describe, expect, it } from 'vitest';
import { type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';

const refused = (code: string): Error => expect.objectContaining({ code }) as Error;
const sector = (): Uint8Array => new Uint8Array(512);

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

describe('several queues', () => {
  it('are used in turn', async () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [8, 8, 8] });
    const { blk, disk } = open;
    expect(blk.queueCount).toBe(3);
    for (let n = 0; n < 4; n += 1) await blk.write(n, pattern(512, n));
    blk.readSync(0, sector());
    blk.complete(blk.submitRead(0, sector()));
    expect(disk.requests.map(({ queue }) => queue)).toEqual([0, 1, 2, 0, 1, 2]);
    close(open);
  });

  it('are used as the caller chooses', async () => {
    const open = openFakeDisk({ features: ['MQ', 'FLUSH'], queues: [8, 8, 8] });
    const { blk, disk } = open;
    await blk.write(0, sector(), { queue: 2 });
    blk.readSync(0, sector(), { queue: 1 });
    blk.complete(blk.submitRead(0, sector(), { queue: 2 }));
    await blk.flush({ queue: 0 });
    expect(disk.requests.map(({ queue }) => queue)).toEqual([2, 1, 2, 0]);
    for (const queue of [-1, 3, 0.5, NaN]) {
      await expect(blk.read(0, sector(), { queue })).rejects.toThrow(refused('INVALID_PARAM'));
      expect(() => blk.readSync(0, sector(), { queue })).toThrow(refused('INVALID_PARAM'));
      expect(() => blk.submitRead(0, sector(), { queue })).toThrow(refused('INVALID_PARAM'));
    }
    close(open);
  });

  it('have tokens of their own, and are all polled', () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [8, 8, 8, 8] });
    const { blk, disk } = open;
    disk.bytes.set(pattern(disk.bytes.length));
    disk.holdBack = true;
    const buffers = Array.from({ length: 8 }, sector);
    const tokens = buffers.map((buffer, n) => blk.submitRead(n, buffer));
    expect(new Set(tokens).size).toBe(8);
    expect(blk.poll()).toBe(-1);
    disk.release([...disk.held].reverse());
    const polled = tokens.map(() => blk.poll());
    expect([...polled].sort()).toEqual([...tokens].sort());
    expect(blk.poll()).toBe(-1);
    for (const token of polled) blk.complete(token);
    buffers.forEach((buffer, n) => expect(buffer).toEqual(disk.bytes.subarray(n * 512, n * 512 + 512)));
    close(open);
  });

  it('take a request that the next in turn has no room for', () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [4, 4] });
    const { blk, disk } = open;
    disk.holdBack = true;
    blk.submitRead(0, sector(), { queue: 0 });
    expect(() => blk.submitRead(2, sector(), { queue: 0 })).toThrow(refused('QUEUE_FULL'));
    blk.submitRead(1, sector());
    expect(() => blk.submitRead(2, sector())).toThrow(refused('QUEUE_FULL'));
    expect(disk.requests.map(({ queue }) => queue)).toEqual([0, 1]);
    disk.release();
    close(open);
  });

  it('take a synchronous request that the next in turn has no room for', () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [4, 4] });
    const { blk, disk } = open;
    disk.holdBack = true;
    blk.submitRead(0, sector(), { queue: 0 });
    disk.holdBack = false;
    blk.readSync(1, sector());
    blk.readSync(2, sector());
    expect(() => {
      blk.readSync(3, sector(), { queue: 0 });
    }).toThrow(refused('QUEUE_FULL'));
    expect(disk.requests.map(({ queue }) => queue)).toEqual([0, 1, 1]);
    expect(() => {
      blk.readSync(3, sector(), { timeoutMs: NaN });
    }).toThrow(refused('INVALID_PARAM'));
    expect(disk.requests).toHaveLength(3);
    disk.release();
    close(open);
  });

  it('limit a request to what the smallest of them holds', () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [64, 8] });
    expect(open.blk.maxSegments).toBe(6);
    close(open);
  });

  it('are as many as the device has, up to 16, or as the caller says', () => {
    const queues = Array.from({ length: 20 }, () => 8);
    const all = openFakeDisk({ features: ['MQ'], queues });
    expect(all.blk.queueCount).toBe(16);
    close(all);
    const some = openFakeDisk({ features: ['MQ'], queues, driver: { queues: 20, queueSize: 4 } });
    expect(some.blk.queueCount).toBe(20);
    expect(some.device.queues[19]?.size).toBe(4);
    close(some);
    for (const wrong of [0, 21, 1.5]) {
      expect(() => openFakeDisk({ features: ['MQ'], queues, driver: { queues: wrong } })).toThrow(
        refused('INVALID_PARAM'),
      );
    }
  });

  it('are not used without MQ [5.2.2]', () => {
    const open = openFakeDisk({ queues: [8, 8] });
    expect(open.blk.queueCount).toBe(1);
    expect(open.device.queues[1]?.ring).toBeUndefined();
    close(open);
  });
});
