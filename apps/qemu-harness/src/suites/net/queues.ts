/** Several pairs of queues, with a tap of the host behind them: flows, hashes, and a pair that another thread drives. */
import { NetControl, VirtioNet } from '@virtio/net';
import { forThreads, type QueuePlan } from '@virtio/core';
import { openQueue } from '@virtio/linux';
import { deepEqual, equal, ok, throws } from 'node:assert/strict';
import { once } from 'node:events';
import { parentPort, Worker, workerData } from 'node:worker_threads';
import { guestTest } from '../../framework/define.ts';
import { host, onTap, prepare, withoutTap } from './_host-tap.ts';
import { PORTS, udpFrame, udpPayload } from './_ip.ts';
import { openNet } from './_net.ts';
import { ping, type Pings } from './_ping.ts';

/** The key that everybody tests with; its hashes are known [Receive side scaling, "Verifying the RSS hash calculation"]. */
const KEY = Uint8Array.from(
  Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex'),
);

/** The hash of Toeplitz, bit by bit. */
function toeplitz(input: Uint8Array): number {
  let hash = 0;
  let window = new DataView(KEY.buffer).getUint32(0);
  for (let bit = 0; bit < 8 * input.length; bit += 1) {
    if ((((input[bit >> 3] ?? 0) >> (7 - (bit & 7))) & 1) === 1) hash ^= window;
    const next = 32 + bit;
    window = ((window << 1) | (((KEY[next >> 3] ?? 0) >> (7 - (next & 7))) & 1)) >>> 0;
  }
  return hash >>> 0;
}

const none = (): Pings => ({ done: 0, lost: 0, errors: {} });

/** What a thread is given, and what it tells. */
interface Work {
  readonly plan: QueuePlan;
  readonly mac: readonly number[];
  readonly port: number;
}

/** A thread that pings on a pair of its own. */
class Pinger {
  readonly #worker: Worker;

  constructor([file, ...argv]: readonly [string, ...string[]], work: Work) {
    // Its output is not passed on: that would open the standard output of this process, which counts as left open.
    this.#worker = new Worker(file, { argv, workerData: work, stdout: true, stderr: true });
  }

  /** Waits until it has had so many answers more. */
  async more(count: number): Promise<void> {
    await this.#ask(count);
  }

  /** Ends it; what came of its work. */
  async end(): Promise<Pings & { readonly failures: readonly string[] }> {
    const gone = once(this.#worker, 'exit');
    const found = (await this.#ask('stop')) as Pings & { failures: string[] };
    await gone;
    return found;
  }

  async #ask(what: number | 'stop'): Promise<unknown> {
    const answer = once(this.#worker, 'message');
    this.#worker.postMessage(what);
    const [found] = (await answer) as [unknown];
    return found;
  }
}

/** The thread's own half. */
async function pingInThread(): Promise<void> {
  const { plan, mac, port } = workerData as Work;
  const pings = none();
  const failures: string[] = [];
  let stop = false;
  let wanted = Infinity;
  {
    using net = openQueue(VirtioNet, plan);
    net.on('failure', ({ code }) => failures.push(code));
    parentPort?.on('message', (what: number | 'stop') => {
      if (what === 'stop') stop = true;
      else wanted = pings.done + what;
    });
    await ping(net, Uint8Array.from(mac), port, pings, () => {
      if (pings.done >= wanted) {
        wanted = Infinity;
        parentPort?.postMessage('done');
      }
      return stop;
    });
  }
  parentPort?.postMessage({ ...pings, failures });
  parentPort?.close();
}

/** Sends flows on several pairs of a device with four, and sees on which pair each comes back. */
async function flows(
  context: Parameters<typeof openNet>[0],
  hostMac: Uint8Array,
  queuePairs: number,
  pairs: readonly number[],
): Promise<void> {
  using open = openNet(context, { queuePairs });
  const { net } = open;
  deepEqual([net.queuePairs, net.maxQueuePairs], [queuePairs, 4]);
  /** On which pair datagrams come back that are sent on a pair, once the host has learned it. */
  const comesBackOn = async (pair: number): Promise<number> => {
    const port = 6100 + pair;
    let found = -1;
    for (let n = 0; n < 10; n += 1) {
      const payload = Uint8Array.of(pair, n);
      await net.send(udpFrame(hostMac, [port, PORTS.echo], payload), { pair });
      const signal = AbortSignal.timeout(5000);
      for (let came: Uint8Array | undefined; came === undefined;) {
        using packet = await net.receive({ signal });
        came = udpPayload(packet.data, [PORTS.echo, port]);
        if (came !== undefined) deepEqual([...came], [...payload]);
        found = packet.pair;
      }
    }
    return found;
  };
  equal(await comesBackOn(0), 0);
  await net.control(NetControl.setQueuePairs(queuePairs));
  for (const pair of pairs) equal(await comesBackOn(pair), pair);
  await net.control(NetControl.setQueuePairs(1));
  equal(await comesBackOn(0), 0);
  throws(() => net.trySend(new Uint8Array(60), { pair: 1 }), { code: 'INVALID_PARAM' });
  equal(net.quirks, 0);
}

export default [
  guestTest({
    device: 'net',
    name: 'has a pair of queues driven by another thread, through resets of the device while both are busy',
    // The thread loads all suites first.
    long: true,
    timeoutS: 120,
    devices: { net: onTap(2) },
    skip: withoutTap,
    prepare,
    host,
    apart: { thread: () => void pingInThread() },
    async guest(context) {
      using open = openNet(context, { threadPairs: forThreads(1) });
      const { net } = open;
      deepEqual([net.maxQueuePairs, net.queuePairs, net.activePairs], [2, 1, 1]);
      const mac = await context.host('plug', null);
      const hostMac = Uint8Array.from(mac);
      const start = (): Pinger =>
        new Pinger(context.apart('thread'), { plan: net.pairFor(1), mac, port: 6001 });

      const pinger = start();
      await net.control(NetControl.setQueuePairs(2));
      const mine = none();
      let stop = false;
      const busy = ping(net, hostMac, 6000, mine, () => stop);
      const rounds = 5;
      for (let round = 0; round < rounds; round += 1) {
        await pinger.more(20);
        net.reset();
        await net.control(NetControl.setQueuePairs(2));
      }
      await pinger.more(20);
      const before = mine.done;
      while (mine.done < before + 20) await new Promise((resolve) => setImmediate(resolve));
      stop = true;
      await busy;
      const theirs = await pinger.end();
      context.note(
        `this thread: ${mine.done} back, ${mine.lost} sent again; the other: ${theirs.done} back, ${theirs.lost} sent again`,
      );
      deepEqual(Object.keys(mine.errors), ['DEVICE_RESET']);
      deepEqual(Object.keys(theirs.errors), ['DEVICE_RESET']);
      deepEqual(theirs.failures, Array(rounds).fill('DEVICE_RESET'));
      equal(net.quirks, 0);
      const echoed = await context.host('echoed', null);
      ok((echoed['6000'] ?? 0) >= mine.done);
      ok((echoed['6001'] ?? 0) >= theirs.done);

      // It was given back: after a reset another thread has it.
      throws(() => net.pairFor(1), { code: 'ALREADY_USED' });
      net.reset();
      const next = start();
      await net.control(NetControl.setQueuePairs(2));
      await next.more(20);
      const { errors, failures } = await next.end();
      deepEqual([errors, failures], [{}, []]);
    },
  }),

  guestTest({
    device: 'net',
    name: 'receives each flow on the pair that it is sent on, and on the first one alone when there is no other',
    timeoutS: 90,
    devices: { net: onTap(4) },
    skip: withoutTap,
    prepare,
    host,
    async guest(context) {
      const hostMac = Uint8Array.from(await context.host('plug', null));
      // The other two get queues, without buffers.
      await flows(context, hostMac, 2, [1, 0]);
      await flows(context, hostMac, 4, [3, 1, 2, 0]);
    },
  }),

  guestTest({
    device: 'net',
    name: 'receives by a hash where a table says, and is told the hash',
    timeoutS: 90,
    devices: { net: onTap(4, { rss: true, hash: true }) },
    skip: withoutTap,
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, { queuePairs: 4 });
      const { net } = open;
      const hostMac = Uint8Array.from(await context.host('plug', null));
      equal(net.features.has('RSS') && net.features.has('HASH_REPORT'), true);
      const table = [2, 0, 3, 1, 1, 3, 0, 2];
      await net.control(
        NetControl.setRss({
          types: ['IPv4', 'UDPv4'],
          key: KEY,
          indirectionTable: table,
          unclassifiedPair: 0,
        }),
      );
      const seen = new Set<number>();
      for (let port = 6200; port < 6240; port += 1) {
        await net.send(udpFrame(hostMac, [port, PORTS.echo], Uint8Array.of(1)));
        const signal = AbortSignal.timeout(5000);
        for (let found = false; !found;) {
          using packet = await net.receive({ signal });
          if (udpPayload(packet.data, [PORTS.echo, port]) === undefined) continue;
          found = true;
          // Addresses and ports of the answer, as they lie in the frame.
          const hash = toeplitz(
            Uint8Array.from([...packet.data.subarray(26, 34), ...packet.data.subarray(34, 38)]),
          );
          deepEqual(packet.header.hash, { value: hash, report: 'UDPv4' });
          equal(packet.pair, table[hash & 7]);
          seen.add(packet.pair);
        }
      }
      deepEqual([...seen].sort(), [0, 1, 2, 3]);
      equal(net.quirks, 0);
    },
  }),
];
