/** An entropy device that reads from a file that both sides know: the guest must get the bytes of the file, in order. */
import { VirtioRng } from '@virtio/rng';
import { equal, ok, rejects } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type DeviceSpec,
  type GuestContext,
  guestTest,
  type HostEnv,
  pattern,
  type Properties,
} from '../../framework/define.ts';
import { openWith } from '../_open.ts';

const FILE_SIZE = 4 << 20;

/** Of a device with a limit, in milliseconds. */
const PERIOD = 500;

const makeFile = (directory: string): void => {
  writeFileSync(join(directory, 'entropy'), pattern(new Uint8Array(FILE_SIZE), 4));
};

/** An entropy device with a file behind it, read from its start. */
const fromFile = (properties: Properties = {}): DeviceSpec => ({
  model: 'virtio-rng',
  properties,
  before: ['-object', 'rng-random,id={id}-source,filename={dir}/entropy'],
  after: ['-set', 'device.{id}.rng={id}-source'],
});

const host = {
  /** The host's clock, in milliseconds: under emulation the guest's own may run slower. */
  clock: (_args: null): number => performance.now(),
  /** Waits so many milliseconds by that clock. */
  pause: async ({ ms }: { ms: number }): Promise<void> => {
    await delay(ms);
  },
  /** The SHA-256 of the first bytes of the file. */
  hash: async ({ length }: { length: number }, { directory }: HostEnv): Promise<string> => {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(join(directory, 'entropy'), { end: length - 1 })) {
      hash.update(piece as Buffer);
    }
    return hash.digest('hex');
  },
};

const openRng = (context: Pick<GuestContext, 'cell' | 'device'>): VirtioRng =>
  openWith(context, 'rng', VirtioRng);

export default [
  guestTest({
    device: 'rng',
    name: "gives the bytes of the host's file, in all three ways to ask",
    essential: true,
    devices: { rng: fromFile() },
    prepare: makeFile,
    host,
    async guest(context) {
      using rng = openRng(context);
      const hash = createHash('sha256');
      let total = 0;
      const take = (bytes: Uint8Array): void => {
        hash.update(bytes);
        total += bytes.length;
      };
      for (const length of [1, 7, 512, 4096, 65_536, 65_537, 300_000]) {
        take(await rng.fill(new Uint8Array(length)));
        take(rng.fillSync(new Uint8Array(length)));
        const buffer = new Uint8Array(length);
        const token = rng.submitRequestEntropy(buffer);
        while (rng.poll() !== token);
        take(buffer.subarray(0, rng.complete(token)));
        const values = rng.getRandomValues(new Uint32Array(length >> 2));
        take(new Uint8Array(values.buffer));
      }
      context.note(`${total} bytes`);
      ok(total > 1_300_000);
      equal(hash.digest('hex'), await context.host('hash', { length: total }));
    },
  }),

  guestTest({
    device: 'rng',
    name: 'waits for a host that limits the rate, and loses nothing',
    long: true,
    devices: { rng: fromFile({ 'max-bytes': 4096, period: PERIOD }) },
    prepare: makeFile,
    host,
    async guest(context) {
      using rng = openRng(context);
      const controller = new AbortController();
      // QEMU's first period begins with DRIVER_OK, the others with the first request after the one before. A request that comes just
      // as a period ends makes it forget its limit, and bytes: it asks its source twice.
      await context.host('pause', { ms: 2 * PERIOD });
      const began = await context.host('clock', null);
      const first = await rng.fill(new Uint8Array(10_000));
      const second = rng.fillSync(new Uint8Array(10_000));
      const ms = (await context.host('clock', null)) - began;
      context.note(`20,000 bytes at 4,096 each ${PERIOD} ms: ${Math.round(ms)} ms`);
      // Four whole periods must have gone by before the last byte came.
      ok(ms > 3.9 * PERIOD, `it took ${ms} ms only`);
      const all = createHash('sha256').update(first).update(second).digest('hex');
      equal(all, await context.host('hash', { length: 20_000 }));
      // Of a wait that is cancelled the device knows nothing: what it gives is thrown away, and bytes go on behind that.
      const { signal } = controller;
      setTimeout(() => controller.abort(), 50);
      await rejects(rng.fill(new Uint8Array(8192), { signal }), { code: 'ABORTED' });
      const next = await rng.fill(new Uint8Array(500));
      const file = Buffer.from(pattern(new Uint8Array(64 << 10), 4));
      const at = file.indexOf(next);
      context.note(`cancelled; the next byte was number ${at}`);
      ok(at > 20_000 && at <= 20_000 + 8192, `the bytes after the cancelled wait are those from ${at} on`);
    },
  }),

  guestTest({
    device: 'rng',
    name: 'is reset while a request waits, and goes on with the next byte of the file',
    long: true,
    devices: { rng: fromFile({ 'max-bytes': 1024, period: 3000 }) },
    prepare: makeFile,
    host,
    async guest(context) {
      using rng = openRng(context);
      const first = await rng.fill(new Uint8Array(1024));
      // The quota is used up: this one waits.
      const waiting = rejects(rng.fill(new Uint8Array(64)), { code: 'DEVICE_RESET' });
      await new Promise((resolve) => setTimeout(resolve, 100));
      rng.reset();
      await waiting;
      const second = await rng.fill(new Uint8Array(64));
      const all = createHash('sha256').update(first).update(second).digest('hex');
      equal(all, await context.host('hash', { length: 1088 }));
    },
  }),

  guestTest({
    device: 'rng',
    name: 'serves many at once from the entropy of the host',
    devices: { rng: { model: 'virtio-rng' } },
    async guest(context) {
      using rng = openRng(context);
      const buffers = await Promise.all(Array.from({ length: 100 }, () => rng.fill(new Uint8Array(1000))));
      const counts = new Array<number>(256).fill(0);
      for (const buffer of buffers) for (const byte of buffer) counts[byte] = (counts[byte] ?? 0) + 1;
      const chiSquare = counts.reduce((sum, count) => sum + (count - 390.625) ** 2 / 390.625, 0);
      context.note(`chi-square over bytes: ${chiSquare.toFixed(1)} (255 expected)`);
      // Bytes that are drawn evenly exceed this once in 10^12 runs.
      ok(chiSquare < 430);
      equal(new Set(buffers.map((buffer) => Buffer.from(buffer).toString('hex'))).size, 100);
    },
  }),
];
