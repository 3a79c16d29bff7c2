/** `start` and `test`: every suite in every cell, with live progress, a table and the report. */
import { availableParallelism } from 'node:os';
import {
  Listr,
  type DefaultRenderer,
  type ListrTask,
  type ListrTaskWrapper,
  type SimpleRenderer,
} from 'listr2';
import { chooseAccelerator } from '../boot/accelerator.ts';
import type { Accelerator } from '../boot/qemu-args.ts';
import { HarnessError } from '../errors.ts';
import type { GuestImage } from '../image/image.ts';
import { prepare } from '../prepare.ts';
import { formatFailures, formatTable } from '../report/table.ts';
import { writeReport } from '../report/write.ts';
import { qemuVersion } from '../setup/qemu-packages.ts';
import type { Cell, GuestTest } from './define.ts';
import { discoverTests } from './discover.ts';
import { cellName, MATRIX } from './matrix.ts';
import { createReport, isGreen, type RunRecord } from './results.ts';
import { runCell } from './runner.ts';

/** What to run and how to show it. */
export interface SuiteOptions {
  /** Only tests whose `device: name` or whose cell's name contains this. */
  readonly filter: string | undefined;
  /** Every test in every kind of guest. Otherwise all tests in the first one, and the essential ones in all others. */
  readonly full: boolean;
  /** Write the report's JSON here, too. */
  readonly json: string | undefined;
  /** Plain lines even on a terminal. */
  readonly plain: boolean;
}

/** A guest under emulation keeps little more than one processor busy; two of them get done sooner than one after the other. */
const GUESTS_AT_ONCE = Math.max(1, Math.min(4, availableParallelism()));

type Task = ListrTaskWrapper<object, typeof DefaultRenderer, typeof SimpleRenderer>;

const STATUS_INTERRUPTED = 130;

/** Runs the suites and returns the exit status. */
export async function runSuites(options: SuiteOptions): Promise<number> {
  const started = new Date();
  const began = performance.now();
  const live = process.stdout.isTTY && !options.plain;
  const selection = select(await discoverTests(), options);
  const total = selection.reduce((sum, { tests }) => sum + tests.length, 0);
  if (total === 0) throw new HarnessError('BAD_ARGUMENTS', `No test matches '${options.filter ?? ''}'.`);

  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  // In the order of the matrix, however they end.
  const results: (RunRecord | undefined)[] = selection.map(() => undefined);
  let ready: { image: GuestImage; accelerator: Accelerator; qemu: string } | undefined;
  try {
    await list(live, [
      {
        title: 'QEMU and the guest',
        task: async (_context, task) => {
          const report = (line: string): void => void (task.output = line);
          const image = await prepare(report);
          ready = { image, accelerator: await chooseAccelerator(image, report), qemu: await qemuVersion() };
          task.title = `QEMU ${ready.qemu} (${ready.accelerator}), guest: Linux ${image.kernelRelease}, Node.js ${image.nodeVersion}`;
        },
      },
    ]).run();
    await list(
      live,
      selection.map(({ cell, tests }, index) => ({
        title: cellName(cell),
        task: async (_context: object, task: Task): Promise<void> => {
          if (ready === undefined || interruption.signal.aborted) throw new Error('not run');
          const run = await runShown(cell, tests, task, live, { ...ready, signal: interruption.signal });
          results[index] = run;
          const failed = run.tests.filter(({ status }) => status === 'failed').length;
          if (failed > 0) throw new Error(`${task.title.replace(/:.*/, '')}: ${failed} failed`);
        },
      })),
      GUESTS_AT_ONCE,
    ).run();
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
  }
  const runs = results.filter((run) => run !== undefined);
  const report = createReport(started, performance.now() - began, runs);
  const file = writeReport(report, options.json);
  console.log(`\n${formatTable(report, live)}\n`);
  const failures = formatFailures(report);
  if (failures !== '') console.log(failures);
  console.log(
    `${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped in ${Math.round(report.ms / 1000)} s`,
  );
  console.log(`Report: ${file}`);
  if (interruption.signal.aborted) return STATUS_INTERRUPTED;
  return isGreen(report) && runs.length === selection.length ? 0 : 1;
}

/** Tasks with live progress on a terminal, with plain lines elsewhere. */
function list(
  live: boolean,
  tasks: ListrTask<object, typeof DefaultRenderer, typeof SimpleRenderer>[],
  concurrent: number | false = false,
): Listr<object> {
  return new Listr<object, 'default', 'simple'>(tasks, {
    concurrent,
    renderer: 'default',
    fallbackRenderer: 'simple',
    fallbackRendererCondition: !live,
    // Without a guest there is nothing to go on with.
    exitOnError: concurrent === false,
    registerSignalListeners: false,
    rendererOptions: { collapseErrors: false, showErrorMessage: true },
  });
}

async function runShown(
  cell: Cell,
  tests: readonly GuestTest[],
  task: Task,
  live: boolean,
  ready: { image: GuestImage; accelerator: Accelerator; qemu: string; signal: AbortSignal },
): Promise<RunRecord> {
  const title = cellName(cell);
  // Lines of several guests mix where there is no live display.
  const label = live ? '' : `${title} · `;
  let done = 0;
  const run = await runCell(tests, cell, {
    ...ready,
    events: {
      onBoot: (_cell, stage, seconds) => {
        if (live || stage === 'ready') {
          task.output = `${label}guest: ${stage}${seconds > 0 ? ` after ${seconds.toFixed(1)} s` : ''}`;
        }
      },
      onBootFailure: (_cell, message) => {
        task.output = `${label}guest: booted again, as it died before any test: ${message.replaceAll('\n', ' ')}`;
      },
      onTestStart: (_cell, test) => {
        if (live) task.output = `${test.device}: ${test.name}`;
      },
      onTestEnd: (_cell, { device, name, status, ms }) => {
        done++;
        if (live) task.title = `${title}  ${done}/${tests.length}`;
        else task.output = `${label}${status} ${device}: ${name} (${ms} ms)`;
      },
    },
  });
  const failed = run.tests.filter(({ status }) => status === 'failed').length;
  const passed = run.tests.filter(({ status }) => status === 'passed').length;
  task.title = `${title}: ${passed} passed, ${failed} failed, ${run.tests.length - passed - failed} skipped`;
  return run;
}

/** The cells with the tests that are to run in them. A filter asks for all that it matches. */
export function select(
  tests: readonly GuestTest[],
  { filter, full }: Pick<SuiteOptions, 'filter' | 'full'>,
): { cell: Cell; tests: GuestTest[] }[] {
  const everything = full || filter !== undefined;
  return MATRIX.map((cell, index) => ({
    cell,
    tests: tests.filter(
      ({ device, name, essential }) =>
        (cell.devices?.includes(device) ?? true) &&
        (everything || index === 0 || (essential === true && cell.devices === undefined)) &&
        (filter === undefined ||
          device === filter ||
          `${device}: ${name}`.includes(filter) ||
          cellName(cell).includes(filter)),
    ),
  })).filter((selected) => selected.tests.length > 0);
}
