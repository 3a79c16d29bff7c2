/** A thread that reads from one queue at a given depth for a given time, and reports its reads per second. */
import { parentPort, workerData } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import type { QueuePlan } from '@virtio/core';
import { openQueue } from '@virtio/linux';
import { readFor } from './read-for.ts';

const { plan, depth } = workerData as { plan: QueuePlan; depth: number };
const port = parentPort;
if (port === null) throw new Error('this is to be run as a worker thread');
{
  using blk = openQueue(VirtioBlk, plan);
  await readFor(blk, blk.hal, depth, 300);
  port.postMessage('ready');
  const go = new Promise<number>((resolve) => port.once('message', resolve));
  port.postMessage(await readFor(blk, blk.hal, depth, await go));
}
port.close();
