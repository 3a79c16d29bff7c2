/** Queues of one disk of qemu-storage-daemon, each driven by a worker thread. */
import { once } from 'node:events';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { openVhostUser } from '@virtio/vhost-user';
import { describe, expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import type { DiskReport, DiskWork } from '../src/disk-worker.ts';
import { rawFile, StorageDaemon } from '../src/storage-daemon.ts';

const SIZE = 16 << 20;
const SHARE = 4096;
const QUEUES = 4;

/** Starts a thread on a queue; it works when this resolves. */
async function start(blk: VirtioBlk, index: number, polling = false): Promise<Worker> {
  const work: DiskWork = { plan: blk.queueFor(index), first: index * SHARE, count: SHARE, depth: 8, polling };
  const worker = new Worker(new URL('../src/disk-worker.ts', import.meta.url), {
    workerData: work,
    execArgv: ['--conditions=@virtio/source'],
  });
  await once(worker, 'message');
  return worker;
}

async function finish(worker: Worker): Promise<DiskReport> {
  const report = once(worker, 'message') as Promise<[DiskReport]>;
  worker.postMessage('stop');
  const [found] = await report;
  await once(worker, 'exit');
  return found;
}

async function serve(folder: Folder): Promise<StorageDaemon> {
  const path = folder.file('disk.img');
  writeFileSync(path, '');
  truncateSync(path, SIZE);
  return StorageDaemon.start(folder, { blockdevs: rawFile(path), queues: QUEUES });
}

describe('a disk with a thread for each queue', () => {
  it('works on all queues at once, through resets of the device, and holds what was written', async () => {
    using folder = new Folder();
    await using daemon = await serve(folder);
    {
      using device = await openVhostUser(daemon.socket, { deviceType: DeviceType.Block });
      using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: QUEUES - 1 });
      expect(blk.queueCount).toBe(1);
      const workers = await Promise.all([1, 2, 3].map((index) => start(blk, index)));
      const mine = new Uint8Array(512).fill(0xab);
      for (let lap = 0; lap < 5; lap += 1) {
        await delay(100);
        await blk.write(lap, mine);
        blk.reset();
      }
      await delay(100);
      await blk.write(5, mine);
      for (const { done, errors, wrong, failures } of await Promise.all(workers.map(finish))) {
        expect(done).toBeGreaterThan(50);
        expect(wrong).toBe(0);
        expect(Object.keys(errors)).toEqual(['DEVICE_RESET']);
        expect(failures).toEqual(Array(5).fill('DEVICE_RESET'));
      }
      // The threads have given their queues back, which a reset lets others have.
      expect(() => blk.queueFor(1)).toThrow(expect.objectContaining({ code: 'ALREADY_USED' }));
      blk.reset();
      const again = await start(blk, 1);
      await delay(50);
      expect(await finish(again)).toEqual(expect.objectContaining({ errors: {}, wrong: 0, failures: [] }));
    }
    const image = readFileSync(folder.file('disk.img'));
    for (let n = 0; n <= 5; n += 1) expect(image[n * 512]).toBe(0xab);
    for (const index of [1, 2, 3]) {
      // The first sectors of a lane were written by it, each with one byte all over.
      const sector = image.subarray((index * SHARE + 1) * 512, (index * SHARE + 2) * 512);
      expect(new Set(sector)).toEqual(new Set([sector[0]]));
    }
  });

  it('tells the threads that the back end is gone', async () => {
    using folder = new Folder();
    await using daemon = await serve(folder);
    using device = await openVhostUser(daemon.socket, { deviceType: DeviceType.Block });
    using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: 2 });
    const workers = await Promise.all([2, 3].map((index) => start(blk, index)));
    const reports = workers.map((worker) => once(worker, 'message') as Promise<[DiskReport]>);
    await delay(50);
    await daemon.kill();
    for (const [{ errors, wrong, failures }] of await Promise.all(reports)) {
      expect(Object.keys(errors)).toEqual(['DEVICE_REMOVED']);
      expect(failures).toEqual(['DEVICE_REMOVED']);
      expect(wrong).toBe(0);
    }
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
  });

  it('outlives threads that poll and are terminated in the middle of their work', async () => {
    using folder = new Folder();
    await using daemon = await serve(folder);
    using device = await openVhostUser(daemon.socket, { deviceType: DeviceType.Block });
    using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: 3 });
    for (let lap = 0; lap < 5; lap += 1) {
      const workers = await Promise.all([1, 2, 3].map((index) => start(blk, index, true)));
      await delay(20);
      await Promise.all(workers.map((worker) => worker.terminate()));
      for (const index of [1, 2, 3]) blk.reclaimQueue(index);
      blk.reset();
      await blk.write(0, new Uint8Array(512));
    }
  });
});
