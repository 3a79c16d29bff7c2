/** The README's example of each device, on packages that npm installed: its words are true, and what is published suffices for them. */
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type DeviceSpec,
  disk,
  type GuestContext,
  type GuestTest,
  guestTest,
  type HostEnv,
  pattern,
} from '../../framework/define.ts';
import { makeShare, share } from '../9p/_share.ts';
import { consoleDevice, host as consoleHost } from '../console/_host.ts';
import { gpuDevice, host as gpuHost } from '../gpu/_screen.ts';
import { device as inputDevice, host as inputHost, tabletUpdate } from '../input/_input.ts';
import { GUEST_MAC, HOST_MAC, makeFrame } from '../net/_frames.ts';
import { host as netHost, prepare as prepareSwitch, switched } from '../net/_switch.ts';
import type { Running } from '../_program.ts';
import { socketDevice, unable } from '../socket/_device.ts';
import { host as socketHost } from '../socket/_host.ts';
import { wavSound } from '../sound/_sound.ts';
import { readWav } from '../sound/_wav.ts';
import { type DevicePackage, endExample, prepareInstalled, startExample } from './_installed.ts';

const SECTORS = 2048;
const RATE = 48_000;
/** QEMU writes its file of sound in pieces; the last one may be missing. */
const PIECE = 1024;
/** The colour of the picture: R, G, B. */
const COLOUR = [0x33, 0x66, 0x99] as const;
/** An update of a tablet that has a place and a button. */
const UPDATE = 6;

const host = {
  /** What the host finds in a sector. */
  sector: async ({ number }: { number: number }, env: HostEnv): Promise<string> =>
    Buffer.from(await env.readImage('blk', number * 512, 512)).toString('hex'),
  entropy: (_args: null, { directory }: HostEnv): readonly number[] =>
    Array.from(readFileSync(join(directory, 'entropy')).subarray(0, 32)),
  plug: netHost.plug,
  sendFrame: netHost.sendOne,
  seenFrames: netHost.seen,
  lastFrame: netHost.lastFrame,
  shown: gpuHost.shown,
  sendInput: inputHost.send,
  openPort: consoleHost.open,
  sendText: consoleHost.sendText,
  takeText: consoleHost.takeText,
  listen: socketHost.listen,
  sendSocket: socketHost.sendText,
  takeSocket: socketHost.takeText,
  endSocket: socketHost.end,
  /** What was written to a shared folder. */
  bootLog: ({ folder }: { folder: string }, { directory }: HostEnv): string =>
    readFileSync(join(directory, folder, 'logs/today/boot'), 'utf8'),
  /** How many frames of the tone of 440 Hz were played, each in its place and on both channels. */
  tone: async (_args: null, { directory }: HostEnv): Promise<number> => {
    const path = join(directory, 'played.wav');
    const least = 44 + 4 * (RATE - PIECE);
    for (
      const deadline = performance.now() + 20_000;
      (!existsSync(path) || statSync(path).size < least) && performance.now() < deadline;
    ) {
      await delay(50);
    }
    const { samples } = readWav(path);
    // The tone begins with a zero, which nobody can tell from the silence before it.
    const first = samples.findIndex((sample) => sample !== 0) & ~1;
    let frame = 1;
    for (let at = first; at + 1 < samples.length && frame < RATE; at += 2, frame += 1) {
      const wanted = Math.trunc(10_000 * Math.sin((2 * Math.PI * 440 * frame) / RATE));
      if (samples[at] !== wanted || samples[at + 1] !== wanted) break;
    }
    return frame;
  },
};

type Context = GuestContext<typeof host>;

/** Runs an example to its end, which `more`, statements behind it, and `meanwhile` may bring about; returns what it printed. */
async function run(
  context: Context,
  name: DevicePackage,
  { more = '', meanwhile }: { more?: string; meanwhile?: (running: Running) => Promise<void> } = {},
): Promise<string> {
  const running = startExample(context, name, name, more);
  try {
    await meanwhile?.(running);
    return await endExample(running, name);
  } catch (error) {
    running.child.kill('SIGKILL');
    throw new Error(`@virtio/${name}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

/** What each example shows, and what the host then finds. */
const EXAMPLES = {
  async blk(context) {
    const printed = await run(context, 'blk');
    equal(printed, `read me: ${SECTORS} sectors of 512 bytes\n`);
    const zeroth = await context.host('sector', { number: 0 });
    equal(zeroth, Buffer.from(pattern(new Uint8Array(512), 21)).toString('hex'));
    equal(await context.host('sector', { number: 1 }), zeroth);
  },
  async rng(context) {
    const printed = await run(context, 'rng');
    const [, key = '', dice] = /^Uint8Array\(32\) \[([^\]]*)\] ([1-6])\n$/.exec(printed) ?? [];
    deepEqual(key.split(',').map(Number), await context.host('entropy', null));
    ok(dice !== undefined, printed);
  },
  async net(context) {
    const printed = await run(context, 'net', {
      async meanwhile({ said, child }) {
        await said(/52:54/);
        await context.host('plug', null);
        await context.host('sendFrame', { number: 1 });
        await context.host('seenFrames', { frames: 1 });
        child.kill('SIGTERM');
      },
    });
    match(printed, /^52:54:00:ab:cd:01 1500 /);
    equal(
      await context.host('lastFrame', null),
      Buffer.from(makeFrame(1, GUEST_MAC, HOST_MAC)).toString('hex'),
    );
  },
  async gpu(context) {
    const printed = await run(context, 'gpu', {
      more: "console.log('shown');\nfor await (const _ of process.stdin);\n",
      async meanwhile({ said }) {
        await said(/shown/);
        const size = { width: 1280, height: 800 };
        const expected = { ...size, seed: 1, rects: [{ x: 0, y: 0, ...size, colour: COLOUR }] };
        deepEqual(await context.host('shown', { expected }), { ...size, different: 0 });
      },
    });
    equal(printed, 'shown\n');
  },
  async input(context) {
    const { arrives } = tabletUpdate(UPDATE);
    const printed = await run(context, 'input', {
      async meanwhile({ said, child }) {
        await said(/x up to/);
        await context.host('sendInput', { kind: 'tablet', from: UPDATE, to: UPDATE + 1 });
        await said(/BTN_MIDDLE/);
        child.kill('SIGTERM');
      },
    });
    equal(printed, `QEMU Virtio Tablet, x up to 32767\nx ${arrives[0]?.value}\nBTN_MIDDLE down\n`);
  },
  async console(context) {
    const key = 'serial';
    await context.host('openPort', { key });
    const printed = await run(context, 'console', {
      async meanwhile() {
        equal(await context.host('takeText', { key, length: 6 }), 'ready\n');
        await context.host('sendText', { key, text: 'hello\nbye\n' });
        const all = 'ready\nyou said: hello\n';
        equal(await context.host('takeText', { key, length: all.length }), all);
      },
    });
    equal(printed, '');
  },
  async sound(context) {
    equal(await run(context, 'sound'), '');
    ok((await context.host('tone', null)) >= RATE - PIECE);
  },
  async '9p'(context) {
    const printed = await run(context, '9p');
    const line = await context.host('bootLog', { folder: 'share' });
    equal(printed, `sdílené: there\n${line}\n`);
  },
  async socket(context) {
    const key = 'socket';
    await context.host('listen', { port: 1234, key });
    const printed = await run(context, 'socket', {
      async meanwhile() {
        equal(await context.host('takeSocket', { key, length: 6 }), 'hello\n');
        await context.host('sendSocket', { key, text: 'hi' });
        await context.host('endSocket', { key });
      },
    });
    equal(printed, 'Uint8Array(2) [ 104, 105 ]\n');
  },
  async fs(context) {
    const printed = await run(context, 'fs');
    const line = await context.host('bootLog', { folder: 'folder' });
    equal(printed, `files: there\n${line}\n`);
  },
} satisfies Record<DevicePackage, (context: Context) => Promise<void>>;

/** A test that runs the examples of these devices, one after the other. */
function runsExamples(
  where: string,
  devices: Partial<Record<DevicePackage, DeviceSpec>>,
  prepare: (directory: string) => void | Promise<void>,
  skip: NonNullable<GuestTest['skip']>,
): GuestTest {
  return guestTest({
    device: 'guest',
    name: `runs the READMEs' first examples on packages that npm installed from a registry, ${where}`,
    long: true,
    timeoutS: 240,
    devices,
    skip: (cell) => (cell.ring.name === 'split' ? skip(cell) : 'the packages are the same everywhere'),
    prepare: async (directory) => {
      await prepareInstalled(Object.keys(devices) as DevicePackage[], directory);
      await prepare(directory);
    },
    host,
    async guest(context) {
      for (const name of Object.keys(devices) as DevicePackage[]) {
        const began = performance.now();
        await EXAMPLES[name](context);
        context.note(`@virtio/${name}: ${Math.round(performance.now() - began)} ms`);
      }
    },
  });
}

export default [
  runsExamples(
    'behind an IOMMU',
    {
      blk: disk({ size: SECTORS * 512, seed: 21 }, { serial: 'read me' }),
      rng: {
        model: 'virtio-rng',
        before: ['-object', 'rng-random,id={id}-source,filename={dir}/entropy'],
        after: ['-set', 'device.{id}.rng={id}-source'],
      },
      net: switched(),
      gpu: gpuDevice(),
      input: inputDevice('tablet'),
      console: consoleDevice([{ key: 'serial', number: 0, console: true }]),
      sound: wavSound(RATE),
      '9p': share(),
    },
    async (directory) => {
      writeFileSync(join(directory, 'entropy'), pattern(new Uint8Array(1 << 16), 4));
      writeFileSync(join(makeShare(directory), 'there'), '');
      await prepareSwitch(directory);
    },
    ({ transport }) => (transport === 'pci-vfio' ? undefined : 'the packages are the same everywhere'),
  ),
  runsExamples(
    'with physical addresses',
    {
      socket: socketDevice(),
      fs: {
        model: 'vhost-user-fs',
        properties: { tag: 'files' },
        backend: {
          program: 'virtiofsd',
          socket: '{dir}/fs',
          // A sandbox needs namespaces, which containers often do not allow.
          args: [
            ...['--shared-dir', '{dir}/folder', '--socket-path', '{dir}/fs', '--log-level', 'off'],
            ...['--sandbox', 'none', '--seccomp', 'none'],
          ],
        },
        before: ['-chardev', 'socket,id={id}-chardev,path={dir}/fs'],
        after: ['-set', 'device.{id}.chardev={id}-chardev'],
      },
    },
    (directory) => {
      mkdirSync(join(directory, 'folder'));
      writeFileSync(join(directory, 'folder/there'), '');
    },
    (cell) =>
      unable(cell) ??
      (cell.transport === 'pci-physical' ? undefined : 'the packages are the same everywhere'),
  ),
];
