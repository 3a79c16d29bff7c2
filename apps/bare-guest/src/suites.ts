/** Runs the harness's own tests in bare guests: the same definitions, the same host's half, another guest. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'esbuild';
import { makeTemporary } from '@virtio/qemu-harness/src/boot/temporary.ts';
import { messageOf } from '@virtio/qemu-harness/src/errors.ts';
import { Backends, ensurePrograms, type Programs } from '@virtio/qemu-harness/src/framework/backends.ts';
import type { Cell, GuestTest, Ring } from '@virtio/qemu-harness/src/framework/define.ts';
import { discoverTests, suiteFiles } from '@virtio/qemu-harness/src/framework/discover.ts';
import { createHostEnv } from '@virtio/qemu-harness/src/framework/host-env.ts';
import {
  type PlannedTest,
  planTest,
  type Slot,
  type Slots,
} from '@virtio/qemu-harness/src/framework/plan.ts';
import type { Picture, TestResult } from '@virtio/qemu-harness/src/framework/results.ts';
import { HARNESS_DIR } from '@virtio/qemu-harness/src/paths.ts';
import type { BareState, FromBare } from '../guest/suites/serve.ts';
import { bundleText } from './bundle.ts';
import type { BareImage } from './image.ts';
import type { BareMachine } from './machines.ts';
import { BareGuest } from './qemu.ts';

const GUEST = fileURLToPath(new URL('../guest/suites', import.meta.url));

/** A test and the file that it is in. */
export interface SuiteTest {
  readonly test: GuestTest;
  readonly suite: string;
}

/** A kind of bare guest. */
export interface BareCell {
  readonly machine: BareMachine;
  readonly ring: Ring;
}

/** How tests see the cell: they know the Linux guests' names of what matters to them. */
export function asCell({ machine, ring }: BareCell): Cell {
  return machine.transport === 'pci'
    ? { arch: machine.arch, machine: 'q35', transport: 'pci-physical', ring, slow: true }
    : { arch: machine.arch, machine: 'microvm', transport: machine.transport, ring, slow: true };
}

/** Suites of Linux itself, of the guest's own system, of programs in it, and of the kernel's network. */
const OF_LINUX = /suites\/(linux|guest|cli)\/|suites\/net\/tap/;

/** All tests but those of Linux. */
export async function discoverSuites(): Promise<readonly SuiteTest[]> {
  const found: SuiteTest[] = [];
  for (const file of suiteFiles()) {
    if (OF_LINUX.test(file)) continue;
    for (const test of await discoverTests([file])) found.push({ test, suite: relative(HARNESS_DIR, file) });
  }
  return found;
}

const STAND_INS: Readonly<Record<string, string>> = {
  '@virtio/linux': 'linux.ts',
  'node:assert/strict': 'assert.ts',
  'node:crypto': 'crypto.ts',
  'node:timers/promises': 'timers.ts',
  'node:util': 'util.ts',
  'node:zlib': 'zlib.ts',
};

const standIns: Plugin = {
  name: 'stand-ins',
  setup(build) {
    build.onResolve({ filter: /^(@virtio\/linux|node:.*)$/ }, ({ path }) => {
      const file = STAND_INS[path];
      return file === undefined ? undefined : { path: join(GUEST, file) };
    });
    // The stand-in itself has the harness's own below it.
    build.onResolve({ filter: /\/framework\/define\.ts$/ }, ({ importer }) =>
      importer.startsWith(GUEST) ? undefined : { path: join(GUEST, 'define.ts') },
    );
  },
};

/** The guest's half of the suites of these tests. */
export async function bundleSuites(tests: readonly SuiteTest[]): Promise<Uint8Array> {
  const suites = [...new Set(tests.map(({ suite }) => suite))];
  const entries = suites.map(
    (suite) => `${JSON.stringify(suite)}: () => import(${JSON.stringify(join(HARNESS_DIR, suite))})`,
  );
  const text = [
    `import { serveTests } from ${JSON.stringify(join(GUEST, 'serve.ts'))};`,
    `serveTests({ ${entries.join(', ')} });`,
  ].join('\n');
  return bundleText(text, { resolveDir: GUEST, plugins: [standIns] });
}

/** Places of a bare machine. */
class BareSlots implements Slots {
  readonly #machine: BareMachine;
  #next = 0;

  constructor(machine: BareMachine) {
    this.#machine = machine;
  }

  take(_id: string, _hotplug: boolean): Slot {
    const slot = this.#next;
    this.#next += 1;
    if (this.#machine.transport !== 'pci') {
      const { address, size } = this.#machine.window(slot);
      return { args: [], bus: `bus=virtio-mmio-bus.${slot}`, location: { kind: 'mmio', address, size } };
    }
    const number = (slot + 1).toString(16).padStart(2, '0');
    const bus = `bus=pcie.0,addr=0x${number},disable-legacy=on`;
    return { args: [], bus, location: { kind: 'pci', address: `0000:00:${number}.0` } };
  }
}

/** Why a test does not run in a bare guest at all. */
export function reasonAgainst(test: GuestTest, cell: BareCell): string | undefined {
  if (Object.values(test.devices).some(({ hotplug }) => hotplug)) {
    return 'no firmware sets up the port from which a device could be unplugged';
  }
  return test.skip?.(asCell(cell));
}

/** What a guest of tests needs. */
export interface BareRunOptions {
  readonly image: BareImage;
  readonly programs: Programs;
  readonly onTestEnd?: (result: TestResult) => void;
}

/** What became of a guest of tests. */
export interface BareRun {
  readonly results: readonly TestResult[];
  /** When the guest was ready, and when it ended. */
  readonly states: readonly BareState[];
  /** From QEMU's start to its end. */
  readonly ms: number;
  readonly scriptBytes: number;
}

const DEFAULT_TEST_S = 60;
/** Interpreted on an emulated processor, a test takes longer. */
const SLOWER = 2;
const BOOT_MS = 60_000;

const timeoutMs = ({ timeoutS = DEFAULT_TEST_S }: GuestTest): number => SLOWER * timeoutS * 1000;

export { ensurePrograms };

/**
 * Runs tests in one guest, which has room for their devices. The test that it dies of has failed; those after it have no result, and want
 * another guest.
 */
export async function runPortion(
  tests: readonly SuiteTest[],
  cell: BareCell,
  options: BareRunOptions,
): Promise<BareRun> {
  const parent = makeTemporary();
  const backends = new Backends(options.programs);
  const states: BareState[] = [];
  const results: TestResult[] = [];
  const view = asCell(cell);
  try {
    const slots = new BareSlots(cell.machine);
    const planned: PlannedTest[] = [];
    for (const [number, { test }] of tests.entries()) {
      planned.push(await planTest(test, number, view, slots, mkdtempSync(join(parent, 'p'))));
    }
    for (const test of planned) await backends.open(test);
    const script = await bundleSuites(tests);
    const budget = tests.reduce((sum, { test }) => sum + timeoutMs(test), BOOT_MS);
    const session = new Session();
    const guest = await BareGuest.start(
      {
        machine: cell.machine,
        image: options.image,
        script,
        devices: planned.flatMap(({ args }) => args),
        environment: Object.assign({}, ...planned.map(({ environment }) => environment)) as Record<
          string,
          string
        >,
        sharedMemory: planned.some((test) => [...test.devices.values()].some(({ backend }) => backend)),
        timeoutMs: budget,
      },
      {
        onLine: (line) => session.lines.push(line),
        onMessage: (message) => session.take(message as FromBare),
      },
    );
    session.onState = (state) => states.push(state);
    void guest.ended.then(({ status }) => {
      session.end(
        `The guest ended with status ${status ?? 'none'}.\n${session.lines.slice(-20).join('\n')}\n${guest.complaints}`,
      );
    });
    try {
      const dead = await session.wait(BOOT_MS, 'ready');
      for (const [number, plan] of planned.entries()) {
        const { test } = plan;
        const base = { device: test.device, name: test.name };
        const began = performance.now();
        const pictures: Picture[] = [];
        if (dead !== undefined) {
          results.push({ ...base, status: 'failed', ms: 0, detail: dead });
          break;
        }
        const env = createHostEnv(guest, plan, view, backends, pictures);
        session.begin((name, args) => {
          const body = test.host?.[name];
          if (body === undefined) throw new Error("the host's half of the test has no such function");
          return body(args as never, env);
        }, guest);
        const locations = Object.fromEntries([...plan.devices].map(([key, { location }]) => [key, location]));
        guest.send({ type: 'start', ...base, suite: tests[number]?.suite, cell: view, devices: locations });
        const verdict = await session.wait(timeoutMs(test), 'verdict');
        const ms = Math.round(performance.now() - began);
        const result = session.result(test, ms, verdict, pictures);
        results.push(result);
        options.onTestEnd?.(result);
        // What a test left undone would disturb the next one.
        if (verdict !== undefined) {
          await guest.stop();
          break;
        }
      }
      guest.send({ type: 'end' });
      const { ms } = await guest.ended;
      return { results, states, ms, scriptBytes: guest.scriptBytes };
    } finally {
      await guest.stop();
    }
  } finally {
    await backends.close();
    rmSync(parent, { recursive: true, force: true });
  }
}

/** What the guest has said of the test that runs. */
class Session {
  readonly lines: string[] = [];
  /** Why the guest is no longer there. */
  over: string | undefined;
  onState: ((state: BareState) => void) | undefined;
  #notes: string[] = [];
  #verdict: (FromBare & { type: 'passed' | 'failed' | 'not-here' }) | undefined;
  #call: ((name: string, args: unknown) => unknown) | undefined;
  #guest: BareGuest | undefined;
  #waiting: { readonly what: string; readonly resolve: () => void } | undefined;
  #reached = new Set<string>();

  begin(call: (name: string, args: unknown) => unknown, guest: BareGuest): void {
    this.#notes = [];
    this.#verdict = undefined;
    this.#call = call;
    this.#guest = guest;
    this.#reached.delete('verdict');
  }

  end(why: string): void {
    this.over = why;
    this.#waiting?.resolve();
  }

  /** Why the guest is no longer there, by now. */
  ending(): string | undefined {
    return this.over;
  }

  /** Waits for something. Returns what went wrong, if it did not come. */
  async wait(ms: number, what: string): Promise<string | undefined> {
    if (this.over !== undefined) return this.over;
    if (this.#reached.has(what)) return undefined;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#waiting = { what, resolve: () => resolve(undefined) };
    const timer = setTimeout(() => resolve(undefined), ms);
    await promise;
    clearTimeout(timer);
    this.#waiting = undefined;
    if (this.#reached.has(what)) return undefined;
    return this.ending() ?? `It did not end within ${ms / 1000} s.\n${this.lines.slice(-20).join('\n')}`;
  }

  take(message: FromBare): void {
    switch (message.type) {
      case 'state':
        this.onState?.(message);
        break;
      case 'ready':
        this.#reach('ready');
        break;
      case 'note':
        this.#notes.push(message.line);
        break;
      case 'call':
        void this.#answer(message);
        break;
      case 'passed':
      case 'failed':
      case 'not-here':
        this.#verdict ??= message;
        this.#reach('verdict');
        break;
      // A test here has a guest of its own until it ends, and the table of features is that of Linux guests.
      case 'left':
      case 'negotiated':
        break;
    }
  }

  /** The result of a test. An essential one is for every kind of guest: that it does not run here is no reason to skip it. */
  result(
    { device, name, essential = false }: GuestTest,
    ms: number,
    wrong: string | undefined,
    pictures: readonly Picture[],
  ): TestResult {
    const verdict = this.#verdict;
    const status =
      wrong !== undefined || verdict === undefined || verdict.type === 'failed'
        ? 'failed'
        : verdict.type === 'not-here'
          ? essential === false
            ? 'skipped'
            : 'failed'
          : 'passed';
    const why = wrong ?? (verdict === undefined || verdict.type === 'passed' ? undefined : verdict.message);
    const detail = [...(why === undefined ? [] : [why]), ...this.#notes].join('\n');
    return {
      ...{ device, name, status, ms },
      ...(detail === '' ? {} : { detail }),
      ...(pictures.length === 0 ? {} : { pictures }),
    };
  }

  #reach(what: string): void {
    this.#reached.add(what);
    if (this.#waiting?.what === what) this.#waiting.resolve();
  }

  async #answer({ id, name, args }: FromBare & { type: 'call' }): Promise<void> {
    try {
      const value = (await this.#call?.(name, args)) ?? null;
      this.#guest?.send({ type: 'result', id, value });
    } catch (error) {
      this.#guest?.send({ type: 'failure', id, message: `host.${name}: ${messageOf(error)}` });
    }
  }
}
