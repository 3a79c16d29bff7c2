/**
 * Reads per second from one disk of qemu-storage-daemon: one thread with one queue, one thread with two queues, two threads
 * with a queue each. The back end runs on the same processors, so the gain of a second thread depends on their number.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, forThreads } from '@virtio/core';
import { openVhostUser } from '@virtio/vhost-user';
import { Folder } from '../src/backend.ts';
import { StorageDaemon } from '../src/storage-daemon.ts';
import { readFor } from './read-for.ts';

const MS = 500;
const LAPS = 3;
const THREADS = 2;

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? NaN;

async function alone(socket: string, queues: number, depth: number): Promise<number> {
  using device = await openVhostUser(socket, { deviceType: DeviceType.Block });
  using blk = new VirtioBlk(device.transport, device.hal, { queues });
  await readFor(blk, device.hal, depth, 300);
  return await readFor(blk, device.hal, depth, MS);
}

async function threads(socket: string, depth: number): Promise<number> {
  using device = await openVhostUser(socket, { deviceType: DeviceType.Block });
  using blk = new VirtioBlk(device.transport, device.hal, { queues: 1, threadQueues: forThreads(THREADS) });
  const workers = Array.from({ length: THREADS }, (_, n) => {
    const workerData = { plan: blk.queueFor(1 + n), depth: depth / THREADS };
    return new Worker(new URL('./threads-worker.ts', import.meta.url), { workerData });
  });
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  const found = workers.map((worker) => once(worker, 'message') as Promise<[number]>);
  for (const worker of workers) worker.postMessage(MS);
  const rates = await Promise.all(found);
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  return rates.reduce((sum, [rate]) => sum + rate, 0);
}

using folder = new Folder();
await using daemon = await StorageDaemon.start(folder, {
  blockdevs: ['driver=null-co,node-name=disk,size=1073741824,read-zeroes=off'],
  queues: 1 + THREADS,
});
for (const depth of [8, 32, 128]) {
  const rows: [string, number[], () => Promise<number>][] = [
    ['one thread, one queue', [], () => alone(daemon.socket, 1, depth)],
    ['one thread, two queues', [], () => alone(daemon.socket, 2, depth)],
    ['two threads, a queue each', [], () => threads(daemon.socket, depth)],
  ];
  for (let lap = 0; lap < LAPS; lap += 1) {
    for (const [, rates, measure] of rows) rates.push(await measure());
  }
  const [first] = rows.map(([, rates]) => median(rates));
  for (const [name, rates] of rows) {
    const rate = median(rates);
    console.log(
      `depth ${depth}, ${name}: ${Math.round(rate / 1000)} k reads a second, ${(rate / (first ?? NaN)).toFixed(2)}`,
    );
  }
}
