/**
 * Runs guest tests: for each cell it boots as many guests as the tests' devices need and runs the tests in them one after
 * the other. Whatever happens, each test that was planned has a result: a guest that dies fails all tests that had not ended.
 */
import { rmSync } from 'node:fs';
import { agentFiles } from '../boot/agent-files.ts';
import { Guest, type GuestProgram, type Stage } from '../boot/guest.ts';
import { GUEST_DIR } from '../boot/protocol.ts';
import { DEFAULT_CONFIG, type Accelerator } from '../boot/qemu-args.ts';
import { makeTemporary } from '../boot/temporary.ts';
import { HarnessError, messageOf } from '../errors.ts';
import type { CpioEntry } from '../image/cpio.ts';
import type { GuestImage } from '../image/image.ts';
import { lastLines } from '../run.ts';
import type { Cell, GuestTest, HostEnv } from './define.ts';
import { bundleSuites } from './discover.ts';
import { createHostEnv, HostSockets } from './host-env.ts';
import { planTest, portions, SlotAllocator, type PlannedTest } from './plan.ts';
import type { RunRecord, TestResult } from './results.ts';
import type { FromTest, ToTest } from './runner-protocol.ts';

/** What happens during a run. */
export interface RunnerEvents {
  readonly onBoot?: (cell: Cell, stage: Stage | 'starting', seconds: number) => void;
  /** A guest died before any test had begun, and is booted again. */
  readonly onBootFailure?: (cell: Cell, message: string) => void;
  readonly onTestStart?: (cell: Cell, test: GuestTest) => void;
  readonly onTestEnd?: (cell: Cell, result: TestResult) => void;
}

/** What a run needs. */
export interface RunnerOptions {
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  readonly qemu: string;
  readonly events: RunnerEvents;
  /** Ends the run: guests are stopped, remaining tests fail. */
  readonly signal: AbortSignal;
}

const DEFAULT_TEST_S = 60;
const BOOT_MS = 120_000;
/** Between a test's last word and the end of its process. */
const EXIT_MS = 10_000;
const OUTPUT_LINES = 40;

/** Runs the tests in a cell. */
export async function runCell(
  tests: readonly GuestTest[],
  cell: Cell,
  options: RunnerOptions,
): Promise<RunRecord> {
  const began = performance.now();
  const results = new Map<GuestTest, TestResult>();
  const settle = (test: GuestTest, result: Omit<TestResult, 'device' | 'name'>): void => {
    if (results.has(test)) return;
    const full: TestResult = { device: test.device, name: test.name, ...result, ms: Math.round(result.ms) };
    results.set(test, full);
    options.events.onTestEnd?.(cell, full);
  };
  const wanted = tests.filter((test) => {
    const reason = test.skip?.(cell);
    if (reason !== undefined) settle(test, { status: 'skipped', ms: 0, detail: reason });
    return reason === undefined;
  });
  if (wanted.length > 0) {
    const files: CpioEntry[] = [
      ...(await agentFiles()),
      { type: 'file', path: 'guest/suites.mjs', data: await bundleSuites() },
    ];
    for (const portion of portions(wanted, cell.machine)) {
      try {
        await runInGuest(portion, cell, files, options, settle);
      } catch (error) {
        if (!(error instanceof HarnessError)) throw error;
        for (const test of portion) settle(test, { status: 'failed', ms: 0, detail: error.message });
      }
    }
  }
  return {
    arch: 'x86_64',
    machine: cell.machine,
    transport: cell.transport,
    ring: cell.ring.name,
    guest: { kernel: options.image.kernelRelease, node: options.image.nodeVersion },
    qemu: options.qemu,
    accelerator: options.accelerator,
    ms: Math.round(performance.now() - began),
    tests: tests.flatMap((test) => results.get(test) ?? []),
  };
}

/**
 * How often a guest is booted that dies before any test has begun: on a busy host the emulator and the kernel now and then lose a
 * race of their own, which says nothing about a driver.
 */
const BOOT_ATTEMPTS = 3;

type Settle = (test: GuestTest, result: Omit<TestResult, 'device' | 'name'>) => void;

async function runInGuest(
  tests: readonly GuestTest[],
  cell: Cell,
  files: readonly CpioEntry[],
  options: RunnerOptions,
  settle: Settle,
): Promise<void> {
  let attempt = 1;
  while (!(await attemptInGuest(tests, cell, files, options, settle, attempt === BOOT_ATTEMPTS))) {
    attempt += 1;
  }
}

/** Runs the tests in one guest. Returns false if it died before the first of them, unless this is the last attempt. */
async function attemptInGuest(
  tests: readonly GuestTest[],
  cell: Cell,
  files: readonly CpioEntry[],
  { image, accelerator, events, signal }: RunnerOptions,
  settle: Settle,
  last: boolean,
): Promise<boolean> {
  const parent = makeTemporary();
  const sockets = new HostSockets();
  try {
    const slots = new SlotAllocator(cell);
    const planned: PlannedTest[] = [];
    for (const [number, test] of tests.entries()) {
      planned.push(await planTest(test, number, cell, slots, parent));
    }
    for (const test of planned) await sockets.open(test);
    const { machine, transport } = cell;
    const devices = planned.flatMap(({ args }) => args);
    const config = { ...DEFAULT_CONFIG, machine, transport, accelerator, devices };
    const budget = tests.reduce((sum, test) => sum + timeoutMs(test) + EXIT_MS, BOOT_MS);
    events.onBoot?.(cell, 'starting', 0);
    const warnings: string[] = [];
    const guest = await Guest.start(config, image, files, budget, {
      onStage: (stage, seconds) => events.onBoot?.(cell, stage, seconds),
      onWarning: (text) => warnings.push(text),
    });
    const stop = (): void => void guest.stop();
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    let current: GuestTest | undefined;
    try {
      await guest.ready;
      for (const test of planned) {
        current = test.test;
        events.onTestStart?.(cell, test.test);
        await runTest(guest, test, cell, sockets, warnings, settle);
      }
      await guest.powerOff();
    } catch (error) {
      if (!(error instanceof HarnessError)) throw error;
      const { message } = await guest.stop();
      const victim = current;
      if (victim === undefined && !last && !signal.aborted) {
        events.onBootFailure?.(cell, message);
        return false;
      }
      for (const { test } of planned) {
        const why = signal.aborted
          ? 'The run was interrupted.'
          : victim === undefined || victim === test
            ? message
            : `It could not run: the guest died during '${victim.device}: ${victim.name}'.`;
        settle(test, { status: 'failed', ms: 0, detail: why });
      }
    } finally {
      signal.removeEventListener('abort', stop);
      await guest.stop();
    }
    return true;
  } finally {
    sockets.close();
    rmSync(parent, { recursive: true, force: true });
  }
}

/** Runs one test; throws only if the guest dies. */
async function runTest(
  guest: Guest,
  planned: PlannedTest,
  cell: Cell,
  sockets: HostSockets,
  warnings: string[],
  settle: Settle,
): Promise<void> {
  const { test } = planned;
  const env = createHostEnv(guest, planned, cell, sockets);
  const began = performance.now();
  const complained = guest.complaints.length;
  const course: Course = { output: '', notes: [], verdict: undefined, timedOut: false };
  let ended = 0;
  let exitTimer: NodeJS.Timeout | undefined;
  const args = ['--enable-source-maps', `${GUEST_DIR}/suites.mjs`, test.device, test.name];
  const program: GuestProgram = guest.run(args, {
    onOutput: (_stream, bytes) => (course.output += bytes.toString('utf8')),
    onMessage: (body) => {
      const message = body as FromTest;
      switch (message.type) {
        case 'call':
          void answer(program, test, env, message);
          break;
        case 'note':
          course.notes.push(message.line);
          break;
        case 'passed':
        case 'failed':
          course.verdict ??= message;
          ended = performance.now();
          exitTimer ??= setTimeout(() => program.kill(), EXIT_MS);
          break;
      }
    },
  });
  const timer = setTimeout(() => {
    if (course.verdict !== undefined) return;
    course.timedOut = true;
    program.kill();
  }, timeoutMs(test));
  const devices = Object.fromEntries([...planned.devices].map(([name, { location }]) => [name, location]));
  program.send({ type: 'start', cell, devices } satisfies ToTest);
  try {
    const { status, signal } = await program.exited;
    const failures = judge(course, timeoutMs(test), status, signal);
    const detail = [...failures, ...course.notes];
    if (failures.length > 0) {
      if (course.output.trim() !== '') detail.push(`It printed:\n${lastLines(course.output, OUTPUT_LINES)}`);
      detail.push(...warnings.map((text) => `The guest warned: ${text}`));
      const complaints = guest.complaints.slice(complained);
      if (complaints !== '') detail.push(`QEMU said:\n${lastLines(complaints, OUTPUT_LINES)}`);
      if (course.timedOut) detail.push(`The last lines of the guest's console:\n${guest.consoleTail}`);
    }
    settle(test, {
      status: failures.length > 0 ? 'failed' : 'passed',
      ms: (ended === 0 ? performance.now() : ended) - began,
      ...(detail.length === 0 ? {} : { detail: detail.join('\n') }),
    });
  } finally {
    clearTimeout(timer);
    clearTimeout(exitTimer);
  }
}

/** What is known of a test when its process has ended. */
export interface Course {
  output: string;
  readonly notes: string[];
  verdict: (FromTest & { type: 'passed' | 'failed' }) | undefined;
  timedOut: boolean;
}

/**
 * Everything that is wrong with how a test went: nothing if it passed. A test that says nothing has failed, and so has one that
 * passed but leaves its process hanging or crashing.
 */
export function judge(course: Course, limitMs: number, status: number, signal: string | undefined): string[] {
  if (course.timedOut) return [`It did not end within ${limitMs / 1000} s.`];
  if (course.verdict === undefined) {
    return [`Its process ended before it did: ${describeEnd(status, signal)}.`];
  }
  const failures: string[] = [];
  if (course.verdict.type === 'failed') failures.push(course.verdict.message);
  if (signal === 'SIGKILL') {
    failures.push(
      `It left something open: its process did not end within ${EXIT_MS / 1000} s and was killed.`,
    );
  } else if (status !== 0) {
    failures.push(`When it was over, its process ended badly: ${describeEnd(status, signal)}.`);
  }
  return failures;
}

async function answer(
  program: GuestProgram,
  test: GuestTest,
  env: HostEnv,
  { id, name, args }: FromTest & { type: 'call' },
): Promise<void> {
  try {
    const body = test.host?.[name];
    if (body === undefined) throw new Error(`The host's half of the test has no function '${name}'.`);
    const value = (await body(args as never, env)) ?? null;
    program.send({ type: 'result', id, value } satisfies ToTest);
  } catch (error) {
    program.send({ type: 'failure', id, message: `host.${name}: ${messageOf(error)}` } satisfies ToTest);
  }
}

function describeEnd(status: number, signal: string | undefined): string {
  return signal === undefined ? `status ${status}` : `killed by ${signal}`;
}

function timeoutMs({ timeoutS }: GuestTest): number {
  return (timeoutS ?? DEFAULT_TEST_S) * 1000;
}
