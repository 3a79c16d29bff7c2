/** Runs the tests of all devices in all kinds of bare guests, and puts the results beside those of the Linux guests. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HarnessError, messageOf } from '@virtio/qemu-harness/src/errors.ts';
import type { GuestTest, Ring } from '@virtio/qemu-harness/src/framework/define.ts';
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
import { ARCHITECTURES, type Architecture, machineFor } from './machines.ts';
import type { BareTestOptions } from './options.ts';
import { ensureEmulators } from './packages.ts';
import {
  type BareCell,
  type BareRun,
  discoverSuites,
  ensurePrograms,
  portions,
  reasonAgainst,
  runPortion,
  type SuiteTest,
} from './suites.ts';
import { runTour } from './tour.ts';

/** What a bare guest says it has in place of a kernel. */
const NO_KERNEL = 'none';
const ENGINE = 'QuickJS 2025-04-26';

const SPLIT: Ring = { name: 'split', properties: {} };
const PACKED: Ring = { name: 'packed', properties: { packed: true } };

/** All kinds of bare guests. A legacy device has no packed ring. */
function cells(arch: Architecture): readonly BareCell[] {
  return [
    { machine: machineFor(arch, 'mmio-v2'), ring: SPLIT },
    { machine: machineFor(arch, 'mmio-v2'), ring: PACKED },
    { machine: machineFor(arch, 'mmio-v1'), ring: SPLIT },
    { machine: machineFor(arch, 'pci'), ring: SPLIT },
    { machine: machineFor(arch, 'pci'), ring: PACKED },
  ];
}

/** Of the kinds, those that a short run takes: each transport and each ring, once an architecture. */
const isShort = ({ machine, ring }: BareCell): boolean => (machine.transport === 'pci') === (ring === PACKED);

/** Devices whose tests move megabytes, draw each pixel or play in real time: a short run has them in the boot that drives all devices alone. */
const SLOW: ReadonlySet<string> = new Set(['console', 'gpu', 'sound']);

const cellName = ({ machine, ring }: BareCell): string =>
  `${machine.arch} · bare · ${machine.name} · ${machine.transport} · ${ring.name}`;

/** What came of a cell. */
interface CellRun {
  readonly cell: BareCell;
  readonly tests: readonly SuiteTest[];
  readonly runs: BareRun[];
  readonly results: TestResult[];
  /** The boot that drives all devices. */
  tour: TestResult | undefined;
  ms: number;
}

/** Runs the tests and returns the exit status. */
export async function runBareSuites({ filters, full, json }: BareTestOptions): Promise<number> {
  const started = new Date();
  const began = performance.now();
  const say = (line: string): void => console.log(line);
  await ensureEmulators(say);
  const images = new Map<Architecture, BareImage>();
  for (const arch of ARCHITECTURES) images.set(arch, await ensureBareImage(arch, say));
  const all = await discoverSuites();
  const kinds = ARCHITECTURES.flatMap(cells);
  const selected = kinds
    .filter((cell) => full || filters.length > 0 || isShort(cell))
    .map((cell): CellRun => {
      const wanted = all.filter(({ test }) => {
        const text = `${test.device}: ${test.name}`;
        const named = filters.every((word) => text.includes(word) || cellName(cell).includes(word));
        if (filters.length > 0) return named;
        return full || (test.essential === true && !SLOW.has(test.device));
      });
      return { cell, tests: wanted, runs: [], results: [], tour: undefined, ms: 0 };
    })
    .filter(({ tests }) => tests.length > 0);
  if (selected.length === 0) {
    throw new HarnessError('BAD_ARGUMENTS', `No test matches '${filters.join(' ')}'.`);
  }
  const programs = await ensurePrograms(
    all.map(({ test }) => test),
    say,
  );

  for (const run of selected) {
    const { cell } = run;
    const runnable = run.tests.filter(({ test }) => reasonAgainst(test, cell) === undefined);
    const image = images.get(cell.machine.arch);
    if (image === undefined) continue;
    const cellBegan = performance.now();
    if (cell.machine.transport === 'mmio-v2' && cell.ring === SPLIT && filters.length === 0) {
      run.tour = await runTour(cell.machine, image);
      say(`${cellName(cell)} · ${run.tour.status} ${run.tour.name}: ${run.tour.detail ?? ''}`);
    }
    for (const portion of portions(runnable, cell.machine)) {
      try {
        const guest = await runPortion(portion, cell, {
          image,
          programs,
          onTestEnd: ({ device, name, status, ms, detail = '' }) =>
            say(
              `${cellName(cell)} · ${status} ${device}: ${name} (${ms} ms)${status === 'passed' ? '' : `: ${detail.split('\n', 1).join('')}`}`,
            ),
        });
        run.runs.push(guest);
        run.results.push(...guest.results);
      } catch (error) {
        for (const { test } of portion) {
          run.results.push({
            device: test.device,
            name: test.name,
            status: 'failed',
            ms: 0,
            detail: messageOf(error),
          });
        }
      }
    }
    run.ms = performance.now() - cellBegan;
  }

  const qemu = await qemuVersion();
  const records = selected.map((run) => recordOf(run, qemu));
  const report = createReport(started, performance.now() - began, records, [
    ...measures(selected, images),
    ...(full
      ? []
      : [
          'Bare guests: consoles, displays and sound are driven in the boot with all devices alone; main.ts test --full runs all tests.',
        ]),
    'Bare guests: tests that need an operating system in the guest are skipped, each with its reason; what unplugs a device needs firmware that sets up the port.',
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

function recordOf({ cell, tests, results, tour, ms }: CellRun, qemu: string): RunRecord {
  return {
    arch: cell.machine.arch,
    machine: `${cell.machine.arch}, bare`,
    transport: `${cell.machine.name} ${cell.machine.transport}`,
    ring: cell.ring.name,
    guest: { kernel: NO_KERNEL, node: ENGINE },
    ...{ qemu, accelerator: 'tcg' },
    ms: Math.round(ms),
    reboots: [],
    tests: [...(tour === undefined ? [] : [tour]), ...tests.map(({ test }) => resultOf(test, cell, results))],
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
      `Bare ${arch}: image ${kib(images.get(arch)?.size ?? 0)}, script with tests ${kib(script)}; the script ran at the earliest ` +
        `${Math.round(ready)} ms after reset; heap ${kib(heap)} in use between tests, ${kib(peak)} at its peak.` +
        runs
          .flatMap(({ cell, tour }) =>
            cell.machine.arch === arch && tour?.detail !== undefined
              ? [` One boot with a device of each kind: ${tour.detail}.`]
              : [],
          )
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
