/** Queues of one disk of qemu-storage-daemon, each driven by a worker thread. */
import { once } from 'node:events';
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, forThreads } from '@virtio/core';
import { openVhostUser } from '@virtio/vhost-user';
import { describe, expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import type { DiskOrder, DiskReport, DiskWork } from '../src/disk-worker.ts';
import { rawFile, StorageDaemon } from '../src/storage-daemon.ts';

const SIZE = 16 << 20;
const SHARE = 4096;
const QUEUES = 4;
/** Requests of a thread at a time. */
const DEPTH = 8;
/**
 * So many requests more show that a thread is at work with the device as it is now: those that it had answers to before it heard of a
 * reset are fewer.
 */
const SOME = 8 * DEPTH;

/** A thread on a queue of a disk. */
class Thread {
  readonly #worker: Worker;
  readonly #exit: Promise<unknown>;

  private constructor(work: DiskWork) {
    this.#worker = new Worker(new URL('../src/disk-worker.ts', import.meta.url), {
      workerData: work,
      execArgv: ['--conditions=@virtio/source'],
    });
    this.#exit = once(this.#worker, 'exit');
  }

  /** Starts a thread. It works when this resolves. */
  static async start(blk: VirtioBlk, index: number, polling = false): Promise<Thread> {
    const plan = blk.queueFor(index);
    const thread = new Thread({ plan, first: index * SHARE, count: SHARE, depth: DEPTH, polling });
    await thread.progress();
    return thread;
  }

  /** Waits until it has done some requests more. */
  async progress(): Promise<void> {
    const message = this.#message();
    this.#worker.postMessage(SOME satisfies DiskOrder);
    expect(await message).toBe('done');
  }

  /** Has it stop. Returns what it says of its work. */
  async finish(): Promise<DiskReport> {
    const report = this.report();
    this.#worker.postMessage('stop' satisfies DiskOrder);
    return report;
  }

  /** What it says of its work when it ends. */
  async report(): Promise<DiskReport> {
    const report = await this.#message();
    await this.#exit;
    return report as DiskReport;
  }

  /** Ends it wherever it is. */
  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  async #message(): Promise<unknown> {
    const [message] = (await once(this.#worker, 'message')) as [unknown];
    return message;
  }
}

const descriptors = () => readdirSync('/proc/self/fd').length;

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
      using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: forThreads(QUEUES - 1) });
      expect(blk.queueCount).toBe(1);
      const threads = await Promise.all([1, 2, 3].map((index) => Thread.start(blk, index)));
      const mine = new Uint8Array(512).fill(0xab);
      for (let lap = 0; lap < 5; lap += 1) {
        await blk.write(lap, mine);
        blk.reset();
        // Each hears of this reset before the next one.
        await Promise.all(threads.map((thread) => thread.progress()));
      }
      await blk.write(5, mine);
      for (const { done, errors, wrong, failures } of await Promise.all(
        threads.map((thread) => thread.finish()),
      )) {
        expect(done).toBeGreaterThanOrEqual(6 * SOME);
        expect(wrong).toBe(0);
        expect(Object.keys(errors)).toEqual(['DEVICE_RESET']);
        expect(failures).toEqual(Array(5).fill('DEVICE_RESET'));
      }
      // The threads have given their queues back, which a reset lets others have.
      expect(() => blk.queueFor(1)).toThrow(expect.objectContaining({ code: 'ALREADY_USED' }));
      blk.reset();
      const again = await Thread.start(blk, 1);
      expect(await again.finish()).toEqual(expect.objectContaining({ errors: {}, wrong: 0, failures: [] }));
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
    using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: forThreads(2) });
    const threads = await Promise.all([2, 3].map((index) => Thread.start(blk, index)));
    const reports = threads.map((thread) => thread.report());
    await daemon.kill();
    for (const { errors, wrong, failures } of await Promise.all(reports)) {
      expect(Object.keys(errors)).toEqual(['DEVICE_REMOVED']);
      expect(failures).toEqual(['DEVICE_REMOVED']);
      expect(wrong).toBe(0);
    }
  });

  it('outlives threads that poll and are terminated in the middle of their work', async () => {
    using folder = new Folder();
    await using daemon = await serve(folder);
    using device = await openVhostUser(daemon.socket, { deviceType: DeviceType.Block });
    using blk = new VirtioBlk(device.transport, device.hal, { threadQueues: forThreads(3) });
    let before = 0;
    for (let lap = 0; lap < 5; lap += 1) {
      const threads = await Promise.all([1, 2, 3].map((index) => Thread.start(blk, index, true)));
      await Promise.all(threads.map((thread) => thread.terminate()));
      for (const index of [1, 2, 3]) blk.reclaimQueue(index);
      blk.reset();
      await blk.write(0, new Uint8Array(512));
      // Whatever the first threads of a process leave open for those that follow is there after the first lap.
      if (lap === 0) before = descriptors();
    }
    expect(descriptors()).toBe(before);
  });
});
