/** A disk with a thread for one of its queues. */
import { forThreads, type QueuePlan, VirtioError } from '@virtio/core';
import { VirtioBlk } from '@virtio/blk';
import { openQueue } from '@virtio/linux';
import { deepEqual, equal, throws } from 'node:assert/strict';
import { once } from 'node:events';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { disk, guestTest, type HostEnv } from '../../framework/define.ts';
import { openWith } from '../_open.ts';
import { MIB, SECTOR } from './_disk.ts';

/** The share of the thread: its first sector, how many lanes, and the sectors of each. */
const FIRST = 1024;
const DEPTH = 8;
const EACH = 16;

/** What came of a thread's work. */
interface Report {
  readonly done: number;
  readonly wrong: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly failures: readonly string[];
}

/** The byte that a sector of the thread's share has in a round. */
const byteOf = (lane: number, round: number): number => (lane * 31 + round) & 0xff;

/** Writes and reads back, several sectors at a time, until it is told to stop. */
async function work(): Promise<void> {
  const errors: Record<string, number> = {};
  const failures: string[] = [];
  let [done, wrong, stop, wanted] = [0, 0, false, Infinity];
  {
    using blk = openQueue(VirtioBlk, workerData as QueuePlan);
    blk.on('failure', ({ code }) => failures.push(code));
    parentPort?.on('message', (what: number | 'stop') => {
      if (what === 'stop') stop = true;
      else wanted = done + what;
    });
    const run = async (lane: number): Promise<void> => {
      const data = new Uint8Array(SECTOR);
      const back = new Uint8Array(SECTOR);
      for (let round = 0; !stop; round += 1) {
        const sector = FIRST + lane * EACH + (round % EACH);
        data.fill(byteOf(lane, round));
        try {
          await blk.write(sector, data);
          await blk.read(sector, back);
          if (Buffer.compare(data, back) !== 0) wrong += 1;
          done += 1;
        } catch (error) {
          const code = VirtioError.is(error) ? error.code : String(error);
          errors[code] = (errors[code] ?? 0) + 1;
          // The device may take a while to be live again.
          await new Promise((resolve) => setImmediate(resolve));
        }
        if (done >= wanted) {
          wanted = Infinity;
          parentPort?.postMessage('done');
        }
        // Requests that polling ends at once leave messages no turn.
        if (round % 16 === 15) await new Promise((resolve) => setImmediate(resolve));
      }
      // The last round of each lane is what the host will look for.
      for (let n = 0; n < EACH; n += 1) {
        await blk.write(FIRST + lane * EACH + n, data.fill(byteOf(lane, n)));
      }
    };
    await Promise.all(Array.from({ length: DEPTH }, (_, lane) => run(lane)));
  }
  parentPort?.postMessage({ done, wrong, errors, failures } satisfies Report);
  parentPort?.close();
}

export default [
  guestTest({
    device: 'blk',
    name: 'has a queue driven by another thread, through resets of the device while both are busy',
    // The thread loads all suites first.
    long: true,
    timeoutS: 90,
    devices: { disk: disk({ size: 4 * MIB }, { 'num-queues': 2 }) },
    skip: ({ transport, ring }) =>
      ring.name === 'split' && (transport === 'pci-vfio' || transport === 'mmio-v2')
        ? undefined
        : 'shown with interrupts (VFIO) and by polling (MMIO); rings are shown with threads on fakes',
    host: {
      /** The first byte of each sector of the thread's, and whether all of a sector are alike. */
      share: async (_args: null, env: HostEnv) => {
        const bytes = await env.readImage('disk', FIRST * SECTOR, DEPTH * EACH * SECTOR);
        const firsts: number[] = [];
        let alike = true;
        for (let at = 0; at < bytes.length; at += SECTOR) {
          firsts.push(bytes[at] ?? -1);
          alike &&= new Set(bytes.subarray(at, at + SECTOR)).size === 1;
        }
        return { firsts, alike };
      },
    },
    apart: { thread: () => void work() },
    async guest(context) {
      {
        using blk = openWith(context, 'disk', VirtioBlk, { queues: 1, threadQueues: forThreads(1) });
        equal(blk.queueCount, 1);
        const start = (): { ask: (what: number | 'stop') => Promise<unknown>; gone: Promise<unknown> } => {
          const [file, ...argv] = context.apart('thread');
          const options = { argv, workerData: blk.queueFor(1), stdout: true, stderr: true };
          const worker = new Worker(file, options);
          return {
            gone: once(worker, 'exit'),
            ask: async (what) => {
              const answer = once(worker, 'message');
              worker.postMessage(what);
              const [found] = (await answer) as [unknown];
              return found;
            },
          };
        };
        const thread = start();
        const mine = new Uint8Array(SECTOR);
        const rounds = 5;
        for (let round = 0; round < rounds; round += 1) {
          await thread.ask(20);
          await blk.write(round, mine.fill(round));
          const reads = Array.from({ length: 20 }, (_, n) => blk.read(n, new Uint8Array(SECTOR)));
          blk.reset();
          const ends = await Promise.allSettled(reads);
          for (const end of ends) {
            if (end.status === 'rejected') equal((end.reason as { code: string }).code, 'DEVICE_RESET');
          }
        }
        await thread.ask(20);
        const { done, wrong, errors, failures } = (await thread.ask('stop')) as Report;
        await thread.gone;
        context.note(`${done} sectors were written and read back by the other thread`);
        equal(wrong, 0);
        deepEqual(Object.keys(errors), ['DEVICE_RESET']);
        deepEqual(failures, Array(rounds).fill('DEVICE_RESET'));
        throws(() => blk.queueFor(1), { code: 'ALREADY_USED' });
        blk.reset();
        const next = start();
        await next.ask(20);
        const again = (await next.ask('stop')) as Report;
        await next.gone;
        deepEqual([again.errors, again.wrong, again.failures], [{}, 0, []]);
      }
      const { firsts, alike } = await context.host('share', null);
      equal(alike, true);
      deepEqual(
        firsts,
        Array.from({ length: DEPTH * EACH }, (_, n) => byteOf(Math.floor(n / EACH), n % EACH)),
      );
    },
  }),
];
