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
import type { Architecture } from '../architecture.ts';
import { HarnessError } from '../errors.ts';
import { prepare } from '../prepare.ts';
import { formatFailures, formatReboots, formatTable } from '../report/table.ts';
import { writeReport } from '../report/write.ts';
import { qemuVersion } from '../setup/qemu-packages.ts';
import { ensurePrograms } from './backends.ts';
import type { Cell, GuestTest } from './define.ts';
import { discoverTests } from './discover.ts';
import { boardName, cellName, type Extent, isIncluded, MATRIX, remarks } from './matrix.ts';
import { portions, reasonAgainst, slotsOf } from './plan.ts';
import { createReport, isGreen, type RunRecord, type TestResult } from './results.ts';
import { type CellTest, makeSuites, runInGuest, type RunnerOptions } from './runner.ts';

/** What to run and how to show it. */
export interface SuiteOptions {
  /** Only tests in cells where `device: name` or the cell's name contains each of these. */
  readonly filters: readonly string[];
  /** How much runs if there are no filters. */
  readonly extent: Extent;
  /** The architectures of the guests; `undefined`: x86-64. */
  readonly arch: readonly Architecture[] | undefined;
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
  if (total === 0) {
    throw new HarnessError(
      'BAD_ARGUMENTS',
      `No test matches '${options.filters.join(' ')}'. Each word must be part of a device, of the name of a test or of a kind of guest, such as blk, reset or microvm.`,
    );
  }

  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  let ready: (Pick<RunnerOptions, 'suites' | 'programs'> & { qemu: string; bases: Bases }) | undefined;
  const guests = planGuests(selection);
  try {
    await list(live, [
      {
        title: 'QEMU and the guest',
        task: async (_context, task) => {
          const report = (line: string): void => void (task.output = line);
          const bases: Bases = new Map();
          for (const arch of new Set(selection.map(({ cell }) => cell.arch))) {
            const image = await prepare(report, arch);
            bases.set(arch, { image, accelerator: await chooseAccelerator(image, report, arch) });
          }
          const wanted = guests.flatMap(({ tests }) => tests.map(({ test }) => test));
          const programs = await ensurePrograms(wanted, report);
          ready = { bases, suites: await makeSuites(), programs, qemu: await qemuVersion() };
          const systems = [...bases].map(
            ([arch, { image, accelerator }]) =>
              `${arch} (${accelerator}): Linux ${image.kernelRelease}, Node.js ${image.nodeVersion}`,
          );
          task.title = `QEMU ${ready.qemu}, guests: ${systems.join('; ')}`;
        },
      },
    ]).run();
    await list(
      live,
      guests.map((guest) => ({
        title: guest.title,
        task: async (_context: object, task: Task): Promise<void> => {
          if (ready === undefined || interruption.signal.aborted) throw new Error('not run');
          const { suites, programs, bases } = ready;
          await runShown(guest, task, live, {
            ...baseOf(bases, guest.arch),
            ...{ suites, programs, signal: interruption.signal },
          });
          const failed = failuresOf(guest);
          if (failed > 0) throw new Error(`${guest.title}: ${failed} failed`);
        },
      })),
      GUESTS_AT_ONCE,
    ).run();
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
  }
  if (ready === undefined) return STATUS_INTERRUPTED;
  const { bases, qemu } = ready;
  const results = new Map(guests.flatMap((guest) => [...guest.results]));
  const runs = selection.map(({ cell, tests }): RunRecord => {
    const own = guests.filter((guest) => guest.tests.some((item) => item.cell === cell));
    const records = tests.map((item) => resultOf(item, results));
    const { image, accelerator } = baseOf(bases, cell.arch);
    return {
      ...{ arch: cell.arch, machine: cell.machine, transport: cell.transport, ring: cell.ring.name },
      guest: { kernel: image.kernelRelease, node: image.nodeVersion },
      ...{ qemu, accelerator },
      ms: records.reduce((sum, { ms }) => sum + ms, 0),
      reboots: own.flatMap(({ reboots }) => reboots),
      tests: records,
    };
  });
  const notes = options.filters.length > 0 ? [] : remarks(options.extent);
  const report = createReport(started, performance.now() - began, runs, notes);
  const file = writeReport(report, options.json);
  console.log(`\n${formatTable(report, live)}\n`);
  const reboots = formatReboots(report);
  if (reboots !== '') console.log(reboots);
  const failures = formatFailures(report);
  if (failures !== '') console.log(failures);
  console.log(
    `${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped in ${Math.round(report.ms / 1000)} s`,
  );
  console.log(`Report: ${file}`);
  if (interruption.signal.aborted) return STATUS_INTERRUPTED;
  return isGreen(report) ? 0 : 1;
}

/** What the guests of each architecture are booted with. */
type Bases = Map<Architecture, Pick<RunnerOptions, 'image' | 'accelerator'>>;

function baseOf(bases: Bases, arch: Architecture): Pick<RunnerOptions, 'image' | 'accelerator'> {
  const base = bases.get(arch);
  if (base === undefined) throw new Error(`nothing was prepared for ${arch}`);
  return base;
}

/** A guest that is to be booted, and what came of its tests. */
interface PlannedGuest {
  readonly arch: Architecture;
  readonly title: string;
  readonly tests: readonly CellTest[];
  results: ReadonlyMap<CellTest, TestResult>;
  readonly reboots: string[];
}

/**
 * As many guests as the devices of the tests need. Cells that differ in their rings alone share them: a boot takes longer than most
 * tests.
 */
function planGuests(selection: readonly Selection[]): readonly PlannedGuest[] {
  const kinds = Map.groupBy(selection, ({ cell }) => `${boardName(cell)} · ${cell.transport}`);
  return [...kinds].flatMap(([kind, selected]) => {
    const wanted = selected
      .flatMap(({ tests }) => tests)
      .filter(({ cell, test }) => reasonAgainst(test, cell) === undefined);
    const [first] = wanted;
    if (first === undefined) return [];
    return portions(wanted, slotsOf(first.cell)).map((tests, index, all): PlannedGuest => {
      const part = all.length > 1 ? ` (${index + 1}/${all.length})` : '';
      return { arch: first.cell.arch, title: `${kind}${part}`, tests, results: new Map(), reboots: [] };
    });
  });
}

/** The result of a test in a cell: every test has one. */
function resultOf(item: CellTest, results: ReadonlyMap<CellTest, TestResult>): TestResult {
  const { device, name } = item.test;
  const reason = reasonAgainst(item.test, item.cell);
  if (reason !== undefined) return { device, name, status: 'skipped', ms: 0, detail: reason };
  return results.get(item) ?? { device, name, status: 'failed', ms: 0, detail: 'It was not run.' };
}

function failuresOf({ results }: PlannedGuest): number {
  return [...results.values()].filter(({ status }) => status === 'failed').length;
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

/** Runs a guest's tests and shows how it goes. */
async function runShown(
  guest: PlannedGuest,
  task: Task,
  live: boolean,
  ready: Omit<RunnerOptions, 'events'>,
): Promise<void> {
  const { title, tests } = guest;
  // Lines of several guests mix where there is no live display.
  const label = live ? '' : `${title} · `;
  let done = 0;
  guest.results = await runInGuest(tests, {
    ...ready,
    events: {
      onBoot: (stage, seconds) => {
        if (live || stage === 'ready') {
          task.output = `${label}guest: ${stage}${seconds > 0 ? ` after ${seconds.toFixed(1)} s` : ''}`;
        }
      },
      onReboot: (message) => {
        guest.reboots.push(message);
        task.output = `${label}guest: booted again because it died: ${message.replaceAll('\n', ' ')}`;
      },
      onTestStart: ({ test }) => {
        if (live) task.output = `${test.device}: ${test.name}`;
      },
      onTestEnd: ({ cell }, { device, name, status, ms, detail = '' }) => {
        done++;
        const why = status === 'failed' ? `: ${detail.split('\n', 1).join('')}` : '';
        if (live) task.title = `${title}  ${done}/${tests.length}`;
        else task.output = `${label}${cell.ring.name}: ${status} ${device}: ${name} (${ms} ms)${why}`;
      },
    },
  });
  const failed = failuresOf(guest);
  task.title = `${title}: ${guest.results.size - failed} passed, ${failed} failed`;
}

/** A cell with tests that are to run in it. */
interface Selection {
  readonly cell: Cell;
  readonly tests: readonly CellTest[];
}

/** The cells with the tests that are to run in them. Filters ask for all that they match. */
export function select(
  tests: readonly GuestTest[],
  { filters, extent, arch }: Pick<SuiteOptions, 'filters' | 'extent' | 'arch'>,
): readonly Selection[] {
  const wanted: readonly Architecture[] = arch ?? ['x86_64'];
  // Filters ask for all that they match, but of guests that take long for the essential alone.
  const extentIn = (cell: Cell): Extent => (filters.length > 0 && cell.arch === 'x86_64' ? 'full' : extent);
  return MATRIX.filter((cell) => wanted.includes(cell.arch))
    .map((cell) => ({
      cell,
      tests: tests
        .filter((test) => {
          const what = `${test.device}: ${test.name}`;
          return (
            isIncluded(cell, test, extentIn(cell)) &&
            (test.onlyFull !== true ||
              extent === 'full' ||
              filters.some((filter) => test.name.includes(filter))) &&
            filters.every((filter) =>
              filter.split('|').some((word) => what.includes(word) || cellName(cell).includes(word)),
            )
          );
        })
        .map((test) => ({ cell, test })),
    }))
    .filter((selected) => selected.tests.length > 0);
}
