/**
 * Frames of 64 bytes a second that go round between two processes, each on a processor of its own: DPDK's testpmd with `net_vhost` sends back what
 * comes, and the other side, too. The other side is testpmd with `net_virtio_user` (C), our bare queues, or the driver. Medians of
 * rounds in turn, and every ratio. DPDK comes from Debian 13's `dpdk-dev`.
 *
 * `VHOST_ROUNDS` and `VHOST_SECONDS` say what is measured.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { createQueue, DeviceType, type FeatureName, type VirtQueue } from '@virtio/core';
import { NetFeatures, VirtioNet } from '@virtio/net';
import { openDriver, openVhostUser } from '@virtio/vhost-user';
import { Folder } from '../src/backend.ts';
import { Testpmd, testpmdCommand } from '../src/testpmd.ts';

const ROUNDS = Number(process.env.VHOST_ROUNDS ?? 5);
const SECONDS = Number(process.env.VHOST_SECONDS ?? 0.5);
const SIZE = 256;
/** Frames on their way. */
const FRAMES = 128;
const HEADER = 12;
const FRAME = 64;

const FORMS: Readonly<Record<string, readonly FeatureName[]>> = { split: ['RING_PACKED'], packed: [] };

/** Waits a moment, as testpmd begins to take frames before it can send any. */
const settle = () => delay(100);

/** testpmd as the front end. */
async function dpdk(socket: string, form: string): Promise<number> {
  const packed = form === 'packed' ? 1 : 0;
  const [program = '', ...args] = await testpmdCommand(
    `net_virtio_user0,path=${socket},queues=1,queue_size=${SIZE},in_order=1,packed_vq=${packed}`,
    [
      '-i',
      '--forward-mode=io',
      '--port-topology=loop',
      '--total-num-mbufs=8192',
      `--rxd=${SIZE}`,
      `--txd=${SIZE}`,
    ],
  );
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  let started = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  // What it prints comes when it ends; its errors come at once, and that there is no promiscuous mode is the last before it is ready.
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
    if (text.includes('promiscuous')) started = true;
  });
  const gone = new Promise((resolve) => child.once('close', resolve));
  try {
    while (!started) {
      if (child.exitCode !== null) throw new Error(`testpmd ended: ${said.slice(-2000)}`);
      await delay(5);
    }
    await delay(300);
    child.stdin.write(`start tx_first ${FRAMES / 32}\n`);
    await delay(300);
    // What it says of a rate is since the time before.
    child.stdin.write('show port stats 0\n');
    await delay(SECONDS * 1000);
    child.stdin.write('show port stats 0\nstop\nquit\n');
    await gone;
    const rates = [...said.matchAll(/Rx-pps:\s+(\d+)/g)];
    if (rates.length !== 2) throw new Error(`testpmd did not say how fast it was: ${said.slice(-2000)}`);
    return Number(rates[1]?.[1]);
  } finally {
    child.kill('SIGKILL');
    await gone;
  }
}

/** Turns for as long as it is measured. Returns how much was counted a second. */
function spin(turn: () => number): number {
  const warm = performance.now() + 200;
  while (performance.now() < warm) for (let n = 0; n < 64; n += 1) turn();
  let count = 0;
  const begin = performance.now();
  const end = begin + SECONDS * 1000;
  while (performance.now() < end) for (let n = 0; n < 64; n += 1) count += turn();
  return (count * 1000) / (performance.now() - begin);
}

/** The two queues alone: buffers go from one to the other. */
async function bare(socket: string, form: string): Promise<number> {
  using device = await openVhostUser(socket, { deviceType: DeviceType.Network, interrupts: 'polling' });
  const { transport, hal } = device;
  const common: FeatureName[] = ['VERSION_1', 'EVENT_IDX', 'IN_ORDER'];
  if (form === 'packed') common.push('RING_PACKED');
  const features = transport.beginInit({ table: NetFeatures, supported: ['MRG_RXBUF', ...common] });
  using receive = createQueue(transport, hal, features, { index: 0, size: SIZE });
  using send = createQueue(transport, hal, features, { index: 1, size: SIZE });
  transport.finishInit();
  const memory = hal.dmaAlloc(SIZE / 2, 'both', false);
  const received = new Float64Array(65536);
  const sent = new Float64Array(65536);
  const post = (address: number): void => {
    receive.begin(1);
    receive.pushWritable(address, 2048);
    received[receive.submit()] = address;
  };
  const forward = (address: number): void => {
    send.begin(1);
    send.pushReadable(address, HEADER + FRAME);
    sent[send.submit()] = address;
  };
  const tell = (queue: VirtQueue): void => {
    queue.publish();
    queue.kick();
  };
  // As many buffers as each ring holds: some are posted, the others begin as frames.
  for (let n = FRAMES; n < SIZE; n += 1) post(memory.address + n * 2048);
  tell(receive);
  await settle();
  for (let n = 0; n < FRAMES; n += 1) forward(memory.address + n * 2048);
  tell(send);
  const result = spin(() => {
    let free = 0;
    for (let token = send.pop(); token >= 0; token = send.pop()) {
      post(sent[token] as number);
      free += 1;
    }
    if (free > 0) tell(receive);
    let count = 0;
    for (let token = receive.pop(); token >= 0 && count < 32; token = receive.pop()) {
      forward(received[token] as number);
      count += 1;
    }
    if (count > 0) tell(send);
    return count;
  });
  transport.reset();
  return result;
}

/** The driver: it looks at each frame that comes, and copies one to be sent. */
async function driver(socket: string, form: string): Promise<number> {
  using net = await openDriver(VirtioNet, `vhost-user:${socket}`, {
    interrupts: 'polling',
    queueSize: SIZE,
    without: FORMS[form] ?? [],
  });
  const frame = new Uint8Array(FRAME).fill(2);
  const late = { kick: false };
  let lost = 0;
  const handler = ({ length }: { readonly length: number }): void => {
    if (length !== FRAME) throw new Error(`a frame of ${length} bytes came, and none was sent`);
    if (!net.trySend(frame, late)) lost += 1;
  };
  await settle();
  for (let n = 0; n < FRAMES; n += 1) net.trySend(frame, late);
  net.kick();
  const result = spin(() => {
    const count = net.poll(handler);
    if (count > 0) net.kick();
    return count;
  });
  if (lost > 0) throw new Error(`there was no room for ${lost} of the frames`);
  return result;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;

const WAYS = { "DPDK's virtio-user": dpdk, 'bare queues': bare, VirtioNet: driver };

console.log(`${readFileSync('/proc/loadavg', 'utf8').trim()} (load); compare runs of a quiet machine only`);
console.log(`frames of ${FRAME} bytes a second through testpmd, medians of ${ROUNDS} rounds of ${SECONDS} s`);
for (const form of Object.keys(FORMS)) {
  const found: Record<string, number[]> = {};
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, way] of Object.entries(WAYS)) {
      using folder = new Folder();
      await using testpmd = await Testpmd.start(folder);
      (found[name] ??= []).push(await way(testpmd.socket, form));
    }
  }
  let base: number | undefined;
  for (const [name, values] of Object.entries(found)) {
    const value = median(values);
    const ratio = base === undefined ? '' : `  ${(value / base).toFixed(2)}`;
    base ??= value;
    console.log(`  ${form.padEnd(7)} ${name.padEnd(20)} ${String(Math.round(value)).padStart(10)}${ratio}`);
  }
}
