/** Runs the tests of all devices in all kinds of bare guests, and puts the results beside those of the Linux guests. */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { HarnessError, messageOf } from '@virtio/qemu-harness/src/errors.ts';
import type { Programs } from '@virtio/qemu-harness/src/framework/backends.ts';
import type { GuestTest } from '@virtio/qemu-harness/src/framework/define.ts';
import { portions } from '@virtio/qemu-harness/src/framework/plan.ts';
import {
  createReport,
  isGreen,
  type Report,
  type RunRecord,
  type TestResult,
} from '@virtio/qemu-harness/src/framework/results.ts';
import { REPORT_DIR } from '@virtio/qemu-harness/src/paths.ts';
import { formatFailures, formatTable } from '@virtio/qemu-harness/src/report/table.ts';
import { writeReport } from '@virtio/qemu-harness/src/report/write.ts';
import { qemuVersion } from '@virtio/qemu-harness/src/setup/qemu-packages.ts';
import { type BareImage, ensureBareImage } from './image.ts';
import { ARCHITECTURES, type Architecture } from './machines.ts';
import type { BareTestOptions } from './options.ts';
import { ensureEmulators } from './packages.ts';
import { ensureQuickJs } from './quickjs.ts';
import {
  type BareCell,
  type BareRun,
  discoverSuites,
  ensurePrograms,
  reasonAgainst,
  runPortion,
} from './suites.ts';
import { cellName, type CellTests, PACKED, select, SPLIT } from './select.ts';
import { runPorts, runTour, TOUR_DEVICE } from './tour.ts';

/** What a bare guest says it has in place of a kernel. */
const NO_KERNEL = 'none';
const ENGINE = 'QuickJS 2025-04-26';

/** What came of a cell. */
interface CellRun extends CellTests {
  readonly runs: BareRun[];
  readonly results: TestResult[];
  /** Why guests were booted again, for the tests that had not begun. */
  readonly reboots: string[];
  /** Results of what is no test of the harness's. */
  readonly extra: TestResult[];
  ms: number;
}

/** Runs the tests and returns the exit status. */
export async function runBareSuites(options: BareTestOptions): Promise<number> {
  const { filters, extent, json } = options;
  const started = new Date();
  const began = performance.now();
  const say = (line: string): void => console.log(line);
  const images = await prepareBare(say);
  const all = await discoverSuites();
  const selected = select(all, options).map((one): CellRun => ({
    ...one,
    runs: [],
    results: [],
    reboots: [],
    extra: [],
    ms: 0,
  }));
  if (selected.length === 0) {
    throw new HarnessError(
      'BAD_ARGUMENTS',
      `No test matches '${filters.join(' ')}'; tests that are not essential need --full.`,
    );
  }
  const programs = await ensurePrograms(
    selected.flatMap(({ tests }) => tests.map(({ test }) => test)),
    say,
  );
  const waiting = [...selected];
  const lane = async (): Promise<void> => {
    for (let run = waiting.shift(); run !== undefined; run = waiting.shift()) {
      const image = images.get(run.cell.machine.arch);
      if (image === undefined) continue;
      const cellBegan = performance.now();
      if (filters.length === 0) await runExtra(run, image, say);
      await runCell(run, { image, programs, say });
      run.ms = performance.now() - cellBegan;
    }
  };
  // A guest has one processor. A short run is alone on its machine, and hurries.
  const lanes = extent === 'short' ? Math.min(SHORT_LANES, availableParallelism()) : 1;
  await Promise.all(Array.from({ length: lanes }, lane));

  const qemu = await qemuVersion();
  const records = selected.map((run) => recordOf(run, qemu));
  const report = createReport(started, performance.now() - began, records, [
    ...measures(selected, images),
    ...(extent === 'full'
      ? []
      : [
          `Bare guests: ${
            extent === 'short'
              ? 'each essential test ran once per architecture; npm run bare runs them in every kind of guest, '
              : 'the essential tests ran; '
          }--full runs all tests.`,
        ]),
    'Bare guests: tests that need an operating system in the guest are skipped, each with its reason; tests that draw or transfer much use smaller sizes.',
  ]);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, null, 2)}\n`);
  const file = writeReport(beside(report));
  say(`\n${formatTable(report, false)}\n`);
  for (const remark of report.remarks) say(remark);
  const failures = formatFailures(report);
  if (failures !== '') say(failures);
  say(
    `${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped in ${Math.round(report.ms / 1000)} s`,
  );
  say(`Report: ${file}`);
  return isGreen(report) ? 0 : 1;
}

const SHORT_LANES = 2;

/** Emulators and images of all architectures. */
export async function prepareBare(
  say: (line: string) => void,
): Promise<ReadonlyMap<Architecture, BareImage>> {
  await ensureEmulators(say);
  await ensureQuickJs('qjsc', say);
  const images = new Map<Architecture, BareImage>();
  for (const arch of ARCHITECTURES) images.set(arch, await ensureBareImage(arch, say));
  return images;
}

/** What is no test of the harness's: the boot that drives all devices, and what only an x86-64 processor has. */
async function runExtra(run: CellRun, image: BareImage, say: (line: string) => void): Promise<void> {
  const { machine, ring } = run.cell;
  if (machine.transport === 'mmio-v2' && ring === SPLIT) run.extra.push(await runTour(machine, image));
  // Its only cell of a short run.
  if (machine.name === 'q35' && ring === PACKED) run.extra.push(await runPorts(machine, image));
  for (const { status, name, detail = '' } of run.extra) {
    say(`${cellName(run.cell)} · ${status} ${name}: ${detail}`);
  }
}

interface CellOptions {
  readonly image: BareImage;
  readonly programs: Programs;
  readonly say: (line: string) => void;
}

async function runCell(run: CellRun, { image, programs, say }: CellOptions): Promise<void> {
  const { cell } = run;
  const onTestEnd = ({ device, name, status, ms, detail = '' }: TestResult): void => {
    const why = status === 'passed' ? '' : `: ${detail.split('\n', 1).join('')}`;
    say(`${cellName(cell)} · ${status} ${device}: ${name} (${ms} ms)${why}`);
  };
  const runnable = run.tests.filter(({ test }) => reasonAgainst(test, cell) === undefined);
  for (const portion of portions(runnable, cell.machine.slots)) {
    for (let left = portion; left.length > 0;) {
      const rest = left;
      try {
        const guest = await runPortion(rest, cell, { image, programs, onTestEnd });
        run.runs.push(guest);
        run.results.push(...guest.results);
        left = rest.slice(guest.results.length);
        const victim = guest.results.at(-1);
        if (left.length > 0 && victim !== undefined) {
          run.reboots.push(`after ${victim.device}: ${victim.name}\n${victim.detail ?? ''}`);
        }
      } catch (error) {
        left = [];
        run.results.push(
          ...rest.map(({ test: { device, name } }) => {
            return { device, name, status: 'failed', ms: 0, detail: messageOf(error) } as const;
          }),
        );
      }
    }
  }
}

function recordOf({ cell, tests, results, reboots, extra, ms }: CellRun, qemu: string): RunRecord {
  return {
    arch: cell.machine.arch,
    machine: `${cell.machine.arch}, bare`,
    transport: `${cell.machine.name} ${cell.machine.transport}`,
    ring: cell.ring.name,
    guest: { kernel: NO_KERNEL, node: ENGINE },
    ...{ qemu, accelerator: 'tcg' },
    ms: Math.round(ms),
    reboots,
    tests: [...extra, ...tests.map(({ test }) => resultOf(test, cell, results))],
  };
}

function resultOf(test: GuestTest, cell: BareCell, results: readonly TestResult[]): TestResult {
  const { device, name } = test;
  const reason = reasonAgainst(test, cell);
  if (reason !== undefined) return { device, name, status: 'skipped', ms: 0, detail: reason };
  const found = results.find((result) => result.device === device && result.name === name);
  return found ?? { device, name, status: 'failed', ms: 0, detail: 'It was not run.' };
}

const kib = (bytes: number): string => `${Math.round(bytes / 1024)} KiB`;

/** Sizes and times of each architecture. */
function measures(runs: readonly CellRun[], images: ReadonlyMap<Architecture, BareImage>): string[] {
  return ARCHITECTURES.flatMap((arch) => {
    const boots = runs.filter(({ cell }) => cell.machine.arch === arch).flatMap((run) => run.runs);
    if (boots.length === 0) return [];
    const ready = Math.min(...boots.flatMap(({ states }) => states[0]?.ms ?? Infinity));
    const heap = Math.max(...boots.flatMap(({ states }) => states.map((state) => state.heap.used)));
    const peak = Math.max(...boots.flatMap(({ states }) => states.map((state) => state.heap.peak)));
    const script = Math.max(...boots.map(({ scriptBytes }) => scriptBytes));
    return [
      `Bare ${arch}: image ${kib(images.get(arch)?.size ?? 0)}, script with tests ${kib(script)}; the script started at the earliest ` +
        `${Math.round(ready)} ms after reset; heap ${kib(heap)} in use between tests, ${kib(peak)} at its peak.` +
        runs
          .filter(({ cell }) => cell.machine.arch === arch)
          .flatMap(({ extra }) => extra.filter(({ device }) => device === TOUR_DEVICE))
          .map(({ detail = '' }) => ` One boot with a device of each kind: ${detail}.`)
          .join(''),
    ];
  });
}

/** The last report of the Linux guests, with these results beside them. */
function beside(report: Report): Report {
  let other: Report;
  try {
    other = JSON.parse(readFileSync(join(REPORT_DIR, 'report.json'), 'utf8')) as Report;
  } catch {
    return report;
  }
  const kept = other.runs.filter(({ guest }) => guest.kernel !== NO_KERNEL);
  const remarks = [...other.remarks.filter((line) => !line.startsWith('Bare ')), ...report.remarks];
  const merged = createReport(
    new Date(other.started),
    other.ms + report.ms,
    [...kept, ...report.runs],
    remarks,
  );
  return kept.length === 0 ? report : merged;
}
