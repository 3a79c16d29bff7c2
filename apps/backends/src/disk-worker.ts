/**
 * A thread that drives one queue of a disk. It writes its own sectors and reads them back until it is told to stop or the
 * device is gone. It counts the completed requests, and the errors of the others.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import { type QueuePlan, VirtioError } from '@virtio/core';
import { openQueue } from '@virtio/linux';

/** What the thread is told. */
export interface DiskWork {
  readonly plan: QueuePlan;
  /** Its first sector, and how many. */
  readonly first: number;
  readonly count: number;
  /** Requests at a time. */
  readonly depth: number;
  /** Whether it polls, so that it can be terminated at any time. */
  readonly polling?: boolean;
}

/** What it is told: to say when it has done so many requests more, or to stop. */
export type DiskOrder = number | 'stop';

/** What it tells at the end. Before that it answers a number with `'done'`. */
export interface DiskReport {
  readonly done: number;
  /** How many requests ended with each code. */
  readonly errors: Readonly<Record<string, number>>;
  /** Sectors that held something else than was written. */
  readonly wrong: number;
  /** What the events `failure` were. */
  readonly failures: readonly string[];
}

const { plan, first, count, depth, polling } = workerData as DiskWork;
const port = parentPort;
if (port === null) throw new Error('this is to be run as a worker thread');
const errors: Record<string, number> = {};
const failures: string[] = [];
let done = 0;
let wrong = 0;
let stop = false;
let awaited = Infinity;

port.on('message', (order: DiskOrder) => {
  if (order === 'stop') stop = true;
  else awaited = done + order;
});

/** Lets messages and interrupts in. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

{
  using blk = openQueue(VirtioBlk, plan, polling === true ? { interrupts: 'polling' } : {});
  blk.on('failure', ({ code }) => failures.push(code));
  const step = Math.floor(count / depth);
  const run = async (lane: number): Promise<void> => {
    const data = new Uint8Array(512);
    const back = new Uint8Array(512);
    for (let n = 0; !stop; n += 1) {
      const sector = first + lane * step + (n % step);
      data.fill((n * 7 + lane) & 0xff);
      try {
        await blk.write(sector, data);
        await blk.read(sector, back);
        if (Buffer.compare(data, back) !== 0) wrong += 1;
        done += 2;
        if (done >= awaited) {
          awaited = Infinity;
          port.postMessage('done');
        }
      } catch (error) {
        const code = VirtioError.is(error) ? error.code : String(error);
        errors[code] = (errors[code] ?? 0) + 1;
        if (code !== 'DEVICE_RESET') return;
        // The device may take a while to be live again.
        await turn();
      }
      if (n % 64 === 63) await turn();
    }
  };
  await Promise.all(Array.from({ length: depth }, (_, lane) => run(lane)));
}
port.postMessage({ done, errors, wrong, failures } satisfies DiskReport);
port.close();
