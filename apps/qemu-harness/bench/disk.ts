/** The guest's half of `disk.bench.ts`. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/linux';
import { bindKernel, finish, loadModules, median } from './_linux.ts';

const DEVICE = '0000:00:01.0';
const DISK = '/dev/vda';
const DEPTHS = [1, 8, 32] as const;
const ROUNDS = 3;
const SECONDS = 2;
const BLOCK = 4096;
const late = { kick: false };

/** fio on Linux' own driver; returns reads a second. */
function fio(engine: string, depth: number): number {
  const printed = execFileSync(
    '/usr/bin/fio',
    [
      ...['--name=reads', `--filename=${DISK}`, '--rw=randread', `--bs=${BLOCK}`, '--direct=1'],
      ...[`--ioengine=${engine}`, `--iodepth=${depth}`, '--norandommap', '--randrepeat=0', '--thread'],
      ...[`--runtime=${SECONDS}`, '--time_based', '--output-format=json'],
    ],
    { encoding: 'utf8' },
  );
  // A line about the clock may come ahead of it.
  const result = JSON.parse(printed.slice(printed.indexOf('{'))) as { jobs: { read: { iops: number } }[] };
  return result.jobs[0]?.read.iops ?? NaN;
}

/** Buffers for a number of reads. */
function buffers(disk: Awaited<ReturnType<typeof open>>, depth: number, dma: boolean): Uint8Array[] {
  const bytes = dma ? disk.hal.alloc(depth * BLOCK).bytes : new Uint8Array(depth * BLOCK);
  return Array.from({ length: depth }, (_, lane) => bytes.subarray(lane * BLOCK, (lane + 1) * BLOCK));
}

const open = () => openDriver(VirtioBlk, DEVICE);

async function promises(depth: number, dma: boolean): Promise<number> {
  using disk = open();
  const blocks = Math.floor(disk.capacity / 8);
  const begin = performance.now();
  const end = begin + SECONDS * 1000;
  let done = 0;
  const lanes = buffers(disk, depth, dma).map(async (buffer, lane) => {
    for (let at = (lane * 7919) % blocks; performance.now() < end; done += 1) {
      at = (at * 5 + 4099) % blocks;
      await disk.read(at * 8, buffer);
    }
  });
  await Promise.all(lanes);
  return (done * 1000) / (performance.now() - begin);
}

function tokens(depth: number, dma: boolean): number {
  using disk = open();
  const blocks = Math.floor(disk.capacity / 8);
  const lanes = buffers(disk, depth, dma);
  const laneOf = new Map<number, Uint8Array>();
  let at = 1;
  const ask = (buffer: Uint8Array): void => {
    at = (at * 5 + 4099) % blocks;
    laneOf.set(disk.submitRead(at * 8, buffer, late), buffer);
  };
  /** Takes all that is done; returns how much. */
  const take = (again: boolean): number => {
    let count = 0;
    for (let token = disk.poll(); token >= 0; token = disk.poll()) {
      const buffer = laneOf.get(token) as Uint8Array;
      laneOf.delete(token);
      disk.complete(token);
      count += 1;
      if (again) ask(buffer);
    }
    if (again && count > 0) disk.kick();
    return count;
  };
  for (const buffer of lanes) ask(buffer);
  disk.kick();
  const begin = performance.now();
  const end = begin + SECONDS * 1000;
  let done = 0;
  while (performance.now() < end) done += take(true);
  const rate = (done * 1000) / (performance.now() - begin);
  while (laneOf.size > 0) take(false);
  return rate;
}

const LINUX: Readonly<Record<string, (depth: number) => number>> = {
  'fio, io_uring': (depth) => fio('io_uring', depth),
  'fio, libaio': (depth) => fio('libaio', depth),
};
const OURS: Readonly<Record<string, (depth: number) => Promise<number> | number>> = {
  'promises, copied': (depth) => promises(depth, false),
  'promises, DMA memory': (depth) => promises(depth, true),
  'tokens, copied': (depth) => tokens(depth, false),
  'tokens, DMA memory': (depth) => tokens(depth, true),
};

const found = new Map<string, number[]>();
const key = (name: string, depth: number): string => `${name} ${depth}`;
async function measure(ways: typeof OURS): Promise<void> {
  for (const depth of DEPTHS) {
    for (const [name, way] of Object.entries(ways)) {
      const rate = await way(depth);
      found.set(key(name, depth), [...(found.get(key(name, depth)) ?? []), rate]);
    }
  }
}

loadModules();
for (let round = 0; round < ROUNDS; round += 1) {
  console.log(`  round ${round + 1} of ${ROUNDS} …`);
  bindKernel(DEVICE, true);
  for (let n = 0; n < 100 && !existsSync(DISK); n += 1) await delay(50);
  await measure(LINUX);
  bindKernel(DEVICE, false);
  await measure(OURS);
}
console.log(
  `reads of 4 KiB a second, medians of ${ROUNDS} rounds of ${SECONDS} s; ratios to fio by io_uring and by libaio`,
);
for (const depth of DEPTHS) {
  const [uring = NaN, aio = NaN] = Object.keys(LINUX).map((name) =>
    median(found.get(key(name, depth)) ?? []),
  );
  for (const name of [...Object.keys(LINUX), ...Object.keys(OURS)]) {
    const rate = median(found.get(key(name, depth)) ?? []);
    const ratios = name in OURS ? `  ${(rate / uring).toFixed(2)}  ${(rate / aio).toFixed(2)}` : '';
    console.log(
      `  depth ${String(depth).padStart(2)}  ${name.padEnd(22)} ${rate.toFixed(0).padStart(8)}${ratios}`,
    );
  }
}
finish();
