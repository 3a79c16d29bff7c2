/**
 * Reads a second of 4 KiB, ours and libblkio's (C and Rust), from the same back ends: qemu-storage-daemon's null-co, and one that writes
 * the status only (`null-backend.c`). Medians of rounds in turn, and every ratio. libblkio comes from Debian 13's `libblkio-dev` and is
 * driven by `blkio-reads.c`; both programs are compiled with `cc` (Debian: gcc, libc6-dev).
 *
 * `VHOST_DEPTHS`, `VHOST_ROUNDS` and `VHOST_SECONDS` say what is measured.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { VirtioBlk } from '@virtio/blk';
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { openDriver } from '@virtio/vhost-user';

const DEPTHS = (process.env.VHOST_DEPTHS ?? '1,8,32,128').split(',').map(Number);
const ROUNDS = Number(process.env.VHOST_ROUNDS ?? 5);
const SECONDS = Number(process.env.VHOST_SECONDS ?? 0.4);
const BLOCK = 4096;
const late = { kick: false };

const folder = mkdtempSync(join(tmpdir(), 'virtio-bench-'));
const socket = join(folder, 'disk.sock');

/** Compiles one of the programs beside this file. */
function compile(name: string, args: readonly string[] = []): string {
  const program = join(folder, name);
  execFileSync('cc', ['-O2', '-o', program, join(import.meta.dirname, `${name}.c`), ...args]);
  return program;
}

/** The command that measures libblkio. */
async function libblkio(): Promise<readonly string[]> {
  const name = 'libblkio.so.1';
  const [loader = '', option = '', libraries = ''] = await ensureUnpacked(
    {
      package: 'libblkio1',
      path: `usr/lib/x86_64-linux-gnu/${name}`,
      suite: 'trixie',
      libraries: ['libblkio-dev', 'libc6', 'libgcc-s1'],
    },
    (line) => console.log(line),
  );
  const program = compile('blkio-reads', [
    `-I${join(libraries, '../../include')}`,
    join(libraries, name),
    '-Wl,--allow-shlib-undefined',
  ]);
  return [loader, option, libraries, program];
}

/** Starts a back end, which ends with the block. */
async function start(program: string, args: readonly string[]): Promise<Disposable> {
  rmSync(socket, { force: true });
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  for (let i = 0; i < 1000 && !existsSync(socket); i += 1) await delay(5);
  await delay(50);
  return { [Symbol.dispose]: () => child.kill('SIGKILL') };
}

async function promises(depth: number, spinUs: number): Promise<number> {
  using disk = await openDriver(VirtioBlk, `vhost-user:${socket}`, { spinUs, queueSize: 256 });
  using buffer = disk.hal.alloc(depth * BLOCK);
  const blocks = Math.floor(disk.capacity / 8);
  let done = 0;
  const end = performance.now() + SECONDS * 1000;
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: depth }, async (_, lane) => {
      const part = buffer.bytes.subarray(lane * BLOCK, (lane + 1) * BLOCK);
      let at = (lane * 7919) % blocks;
      while (performance.now() < end) {
        at = (at * 5 + 4_099) % blocks;
        await disk.read(at * 8, part);
        done += 1;
      }
    }),
  );
  return (done * 1000) / (performance.now() - begin);
}

async function tokens(depth: number): Promise<number> {
  using disk = await openDriver(VirtioBlk, `vhost-user:${socket}`, { interrupts: 'polling', queueSize: 256 });
  using buffer = disk.hal.alloc(depth * BLOCK);
  const blocks = Math.floor(disk.capacity / 8);
  const parts = Array.from({ length: depth }, (_, i) => buffer.bytes.subarray(i * BLOCK, (i + 1) * BLOCK));
  // By lane. The back ends finish requests in order or nearly so: the search for the lane of a token begins behind the last one.
  const tokens = new Int32Array(depth);
  let next = 0;
  let at = 1;
  const ask = (lane: number): void => {
    at = (at * 5 + 4_099) % blocks;
    tokens[lane] = disk.submitRead(at * 8, parts[lane] as Uint8Array, late);
  };
  const take = (token: number): number => {
    let lane = next;
    while (tokens[lane] !== token) lane = lane + 1 < depth ? lane + 1 : 0;
    next = lane + 1 < depth ? lane + 1 : 0;
    disk.complete(token);
    return lane;
  };
  for (let lane = 0; lane < depth; lane += 1) ask(lane);
  disk.kick();
  let done = 0;
  const begin = performance.now();
  const end = begin + SECONDS * 1000;
  // Like libblkio, it asks the time when something is done, not while it waits.
  while (performance.now() < end) {
    let token = disk.poll();
    while (token < 0) token = disk.poll();
    for (; token >= 0; token = disk.poll()) {
      ask(take(token));
      done += 1;
    }
    disk.kick();
  }
  const result = (done * 1000) / (performance.now() - begin);
  for (let left = depth; left > 0;) {
    const token = disk.poll();
    if (token < 0) continue;
    take(token);
    left -= 1;
  }
  return result;
}

function blkio(command: readonly string[], depth: number, way: 'eventfd' | 'polling'): number {
  const [program = '', ...args] = command;
  return Number(
    execFileSync(program, [...args, socket, String(depth), String(SECONDS), way], { encoding: 'utf8' }),
  );
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

async function measure(title: string, command: readonly string[]): Promise<void> {
  console.log(`\n${title}: reads of 4 KiB a second, medians of ${ROUNDS} rounds of ${SECONDS} s`);
  for (const depth of DEPTHS) {
    const ways: Record<string, () => Promise<number> | number> = {
      'libblkio eventfd': () => blkio(command, depth, 'eventfd'),
      'libblkio polling': () => blkio(command, depth, 'polling'),
      promises: () => promises(depth, 0),
      'promises, spinning': () => promises(depth, 50),
      'tokens, polling': () => tokens(depth),
    };
    const found: Record<string, number[]> = {};
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [name, way] of Object.entries(ways)) (found[name] ??= []).push(await way());
    }
    const results = Object.fromEntries(Object.entries(found).map(([name, values]) => [name, median(values)]));
    const against: Record<string, number | undefined> = {
      promises: results['libblkio eventfd'],
      'promises, spinning': results['libblkio eventfd'],
      'tokens, polling': results['libblkio polling'],
    };
    for (const [name, value] of Object.entries(results)) {
      const base = against[name];
      const ratio = base === undefined ? '' : `  ${(value / base).toFixed(2)}`;
      console.log(
        `  depth ${String(depth).padStart(3)}  ${name.padEnd(20)} ${String(Math.round(value)).padStart(9)}${ratio}`,
      );
    }
  }
}

try {
  const command = await libblkio();
  console.log(`${readFileSync('/proc/loadavg', 'utf8').trim()} (load); compare runs of a quiet machine only`);
  {
    using _daemon = await start('qemu-storage-daemon', [
      '--blockdev',
      'driver=null-co,node-name=disk,size=1073741824,read-zeroes=off',
      '--export',
      `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socket},writable=on`,
    ]);
    await measure('qemu-storage-daemon, null-co', command);
  }
  using _backend = await start(compile('null-backend'), [socket]);
  await measure('a back end that writes the status only', command);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
