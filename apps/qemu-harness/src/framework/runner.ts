/**
 * Runs guest tests, one after the other, in a guest that has the devices of all of them. Whatever happens, each test has a result:
 * the test that a guest dies of has failed, and those after it run in another guest.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { agentFiles } from '../boot/agent-files.ts';
import { BOOT_MS, Guest, type Stage } from '../boot/guest.ts';
import type { Architecture } from '../architecture.ts';
import { DEFAULT_CONFIG, type Accelerator } from '../boot/qemu-args.ts';
import { makeTemporary } from '../boot/temporary.ts';
import { HarnessError } from '../errors.ts';
import type { CpioEntry } from '../image/cpio.ts';
import type { GuestImage } from '../image/image.ts';
import { HARNESS_DIR } from '../paths.ts';
import { lastLines } from '../run.ts';
import { bundle } from '../script/bundle.ts';
import { type Origins, originsOf } from '../script/origins.ts';
import { Backends, type Programs } from './backends.ts';
import type { Cell, GuestTest } from './define.ts';
import { bundleSuites } from './discover.ts';
import { createHostEnv } from './host-env.ts';
import { planTest, SlotAllocator, type PlannedTest } from './plan.ts';
import type { Picture, TestResult } from './results.ts';
import { type CallHost, judge, SUITES, TestProcess } from './test-process.ts';

/** A test in a cell. The cells of one guest have the same machine and transport; rings are a property of each device. */
export interface CellTest {
  readonly cell: Cell;
  readonly test: GuestTest;
}

/** What happens in a guest of tests. */
export interface RunnerEvents {
  readonly onBoot?: (stage: Stage | 'starting', seconds: number) => void;
  /** The guest died and is booted again for the tests that had not begun. */
  readonly onReboot?: (message: string) => void;
  readonly onTestStart?: (test: CellTest) => void;
  readonly onTestEnd?: (test: CellTest, result: TestResult) => void;
}

/** What a guest of tests needs. */
export interface RunnerOptions {
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  readonly suites: Suites;
  /** The programs that are devices of tests. */
  readonly programs: Programs;
  readonly events: RunnerEvents;
  /** Ends the run: the guest is stopped, remaining tests fail. */
  readonly signal: AbortSignal;
}

const DEFAULT_TEST_S = 60;
/** What a test may take beyond its time: loading its process, and closing what it has opened. */
const EXTRA_MS = 30_000;
const OUTPUT_LINES = 40;

/** The program `virtio` of `@virtio/cli`. */
const CLI = join(HARNESS_DIR, '../../packages/cli/src/bin.ts');

/** The suites as a guest gets them. */
export interface Suites {
  /** The agent, the suites and the command line: what the guest gets beside the image. */
  readonly files: readonly CpioEntry[];
  /** Tells the places in the suites' sources that a text of the guest means. */
  readonly origins: Origins;
}

/** Bundles the suites. */
export async function makeSuites(): Promise<Suites> {
  const { code, map } = await bundleSuites();
  return {
    files: [
      ...(await agentFiles()),
      { type: 'file', path: SUITES.slice(1), data: code },
      { type: 'file', path: 'guest/virtio.mjs', data: await bundle(CLI, { small: true }) },
    ],
    origins: originsOf(SUITES, map, HARNESS_DIR),
  };
}

/**
 * How often in a row a guest is booted that dies before any test has begun: on a busy host the emulator and the kernel now and then
 * lose a race of their own, which says nothing about a driver.
 */
const BOOT_ATTEMPTS = 3;

/**
 * QEMU's assertion that the README tells of: a race of QEMU's own, which nothing in a guest may lead to. It says nothing about the test that
 * runs meanwhile, which is run once more.
 */
const FAULT_OF_QEMU = /iotlb_to_section: Assertion .* failed/;

/** Takes the first result of a test. */
type Settle = (test: CellTest, result: Omit<TestResult, 'device' | 'name'>) => void;

/** Runs tests in one guest, which has room for their devices. Each has a result. */
export async function runInGuest(
  tests: readonly CellTest[],
  options: RunnerOptions,
): Promise<ReadonlyMap<CellTest, TestResult>> {
  const results = new Map<CellTest, TestResult>();
  const settle: Settle = (item, result) => {
    if (results.has(item)) return;
    const { device, name } = item.test;
    const full: TestResult = { device, name, ...result, ms: Math.round(result.ms) };
    results.set(item, full);
    options.events.onTestEnd?.(item, full);
  };
  try {
    let failedBoots = 0;
    const again = new Set<CellTest>();
    for (let left = tests; left.length > 0;) {
      const { died, rest } = await attemptInGuest(left, options, settle, again);
      const wasBoot = rest.length === left.length;
      failedBoots = wasBoot ? failedBoots + 1 : 0;
      if (died !== undefined && (options.signal.aborted || failedBoots === BOOT_ATTEMPTS)) {
        throw new HarnessError('GUEST_FAILED', options.signal.aborted ? 'The run was interrupted.' : died);
      }
      if (died !== undefined && rest.length > 0) options.events.onReboot?.(died);
      left = rest;
    }
  } catch (error) {
    if (!(error instanceof HarnessError)) throw error;
    for (const test of tests) settle(test, { status: 'failed', ms: 0, detail: error.message });
  }
  return results;
}

/** How an attempt to run tests in one guest ended. */
interface Attempt {
  /** Why the guest died, if it did. */
  readonly died?: string;
  /** The tests that had not begun by then, or are to run again. */
  readonly rest: readonly CellTest[];
}

/**
 * Runs tests in one guest. One that it dies of has failed.
 *
 * @param again the tests that ran when QEMU died by a fault of its own: each is run once more
 */
async function attemptInGuest(
  tests: readonly CellTest[],
  { image, accelerator, suites, programs, events, signal }: RunnerOptions,
  settle: Settle,
  again: Set<CellTest>,
): Promise<Attempt> {
  const [first] = tests;
  if (first === undefined) return { rest: [] };
  const { arch, machine, transport } = first.cell;
  const parent = makeTemporary();
  const backends = new Backends(programs);
  try {
    const slots = new SlotAllocator(first.cell);
    const planned: PlannedTest[] = [];
    for (const [number, { test, cell }] of tests.entries()) {
      planned.push(await planTest(test, number, cell, slots, parent));
    }
    for (const test of planned) await backends.open(test);
    const devices = planned.flatMap(({ args }) => args);
    const environment = Object.assign({}, ...planned.map((test) => test.environment)) as Record<
      string,
      string
    >;
    const sharedMemory = planned.some((test) => [...test.devices.values()].some(({ backend }) => backend));
    const place = { arch, machine, transport, accelerator };
    const config = { ...DEFAULT_CONFIG, ...place, devices, environment, sharedMemory };
    const budget = tests.reduce(
      (sum, { test }) => sum + timeoutMs(test, first.cell) + EXTRA_MS,
      BOOT_MS[arch],
    );
    events.onBoot?.('starting', 0);
    const warnings: string[] = [];
    const all = [...suites.files, ...planned.flatMap((test) => test.files)];
    const guest = await Guest.start(config, image, all, budget, {
      onStage: (stage, seconds) => events.onBoot?.(stage, seconds),
      onWarning: (text) => warnings.push(text),
    });
    const stop = (): void => void guest.stop();
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    let begun = 0;
    try {
      await guest.ready;
      let process = new TestProcess(guest);
      for (const [index, item] of tests.entries()) {
        const plan = planned[index];
        if (plan === undefined) break;
        begun += 1;
        events.onTestStart?.(item);
        if (!process.isUsable) process = new TestProcess(guest);
        const last = begun === tests.length;
        const result = await runTest(guest, process, plan, item.cell, backends, warnings, last);
        const { detail } = result;
        settle(item, detail === undefined ? result : { ...result, detail: suites.origins(detail) });
      }
      await guest.powerOff();
      return { rest: [] };
    } catch (error) {
      if (!(error instanceof HarnessError)) throw error;
      const { message } = await guest.stop();
      const victim = tests[begun - 1];
      if (victim === undefined || signal.aborted) return { died: message, rest: tests.slice(begun) };
      if (FAULT_OF_QEMU.test(message) && !again.has(victim)) {
        again.add(victim);
        return { died: message, rest: tests.slice(begun - 1) };
      }
      settle(victim, { status: 'failed', ms: 0, detail: message });
      return { died: message, rest: tests.slice(begun) };
    } finally {
      signal.removeEventListener('abort', stop);
      await guest.stop();
    }
  } finally {
    await backends.close();
    rmSync(parent, { recursive: true, force: true });
  }
}

/** Runs one test; throws only if the guest dies. */
async function runTest(
  guest: Guest,
  process: TestProcess,
  planned: PlannedTest,
  cell: Cell,
  backends: Backends,
  warnings: readonly string[],
  last: boolean,
): Promise<Omit<TestResult, 'device' | 'name'>> {
  const { test } = planned;
  const { device, name } = test;
  const pictures: Picture[] = [];
  const env = createHostEnv(guest, planned, cell, backends, pictures);
  const complained = guest.complaints.length;
  const call: CallHost = (key, args) => {
    const body = test.host?.[key];
    if (body === undefined) throw new Error("the host's half of the test has no such function");
    return body(args as never, env);
  };
  const devices = Object.fromEntries([...planned.devices].map(([key, { location }]) => [key, location]));
  const course = await process.run({ device, name, cell, devices }, timeoutMs(test, cell), call, last);
  const failures = judge(course, timeoutMs(test, cell));
  const detail = [...failures, ...course.notes];
  if (failures.length > 0) {
    if (course.output.trim() !== '') detail.push(`It printed:\n${lastLines(course.output, OUTPUT_LINES)}`);
    detail.push(...warnings.map((text) => `The guest warned: ${text}`));
    const complaints = guest.complaints.slice(complained);
    if (complaints !== '') detail.push(`QEMU said:\n${lastLines(complaints, OUTPUT_LINES)}`);
    if (course.timedOut && guest.consoleTail !== '') {
      detail.push(`The last lines of the guest's console:\n${guest.consoleTail}`);
    }
  }
  return {
    status: failures.length > 0 ? 'failed' : 'passed',
    ms: course.ms,
    ...(detail.length === 0 ? {} : { detail: detail.join('\n') }),
    ...(pictures.length === 0 ? {} : { pictures }),
    ...(course.negotiated.size === 0 ? {} : { negotiated: Array.from(course.negotiated, parseNegotiated) }),
  };
}

function parseNegotiated(json: string): NonNullable<TestResult['negotiated']>[number] {
  return JSON.parse(json) as NonNullable<TestResult['negotiated']>[number];
}

/** How much longer a test may take where all of a guest is emulated, other architectures at a lower speed. */
const SLOWER: Readonly<Record<Architecture, number>> = { x86_64: 1, aarch64: 3, riscv64: 5 };

function timeoutMs({ timeoutS }: GuestTest, { arch }: Cell): number {
  return (timeoutS ?? DEFAULT_TEST_S) * 1000 * SLOWER[arch];
}
