/** The table of results at the end of a run: a row for each device, a column for each kind of guest. */
import Table from 'cli-table3';
import type { Report, RunRecord, TestResult } from '../framework/results.ts';

/** What tells a column: architecture and machine, transport and ring. A bare machine names its architecture itself. */
export function columnTitle({ arch, machine, transport, ring }: RunRecord): string[] {
  return [machine.startsWith(arch) ? machine : `${arch} ${machine}`, transport, ring];
}

/** The devices of a report, in the order of their first tests. */
export function devicesOf(report: Report): string[] {
  return [...new Set(report.runs.flatMap(({ tests }) => tests.map(({ device }) => device)))];
}

/** How many tests of a device passed, failed and were skipped in a run. */
export function tally(
  run: RunRecord,
  device: string,
): { passed: number; failed: number; skipped: number; ms: number } {
  const tests = run.tests.filter((test) => test.device === device);
  const count = (status: TestResult['status']): number =>
    tests.filter((test) => test.status === status).length;
  return {
    passed: count('passed'),
    failed: count('failed'),
    skipped: count('skipped'),
    ms: tests.reduce((sum, { ms }) => sum + ms, 0),
  };
}

/** The table as text. */
export function formatTable(report: Report, colour: boolean): string {
  const table = new Table({
    head: ['device', ...report.runs.map((run) => columnTitle(run).join('\n'))],
    style: colour ? { head: ['bold'], border: ['gray'] } : { head: [], border: [] },
  });
  for (const device of devicesOf(report)) {
    table.push([device, ...report.runs.map((run) => cellText(run, device, colour))]);
  }
  return table.toString();
}

function cellText(run: RunRecord, device: string, colour: boolean): string {
  const { passed, failed, skipped, ms } = tally(run, device);
  if (passed + failed + skipped === 0) return '';
  const paint = (code: number, text: string): string => (colour ? `\x1b[${code}m${text}\x1b[39m` : text);
  const parts: string[] = [];
  if (failed > 0) parts.push(paint(31, `${failed} failed`));
  if (passed > 0) parts.push(paint(32, `${passed} passed`));
  if (skipped > 0) parts.push(`${skipped} skipped`);
  if (passed + failed > 0) parts.push(`${(ms / 1000).toFixed(1)} s`);
  return parts.join('\n');
}

/** The guests that died and were booted again, for the terminal: a line each. */
export function formatReboots(report: Report): string {
  return report.runs
    .flatMap((run) =>
      run.reboots.map(
        (why) => `booted again: ${columnTitle(run).join(' · ')}: ${why.split('\n', 1).join('')}`,
      ),
    )
    .join('\n');
}

/** The failures with their details, for the terminal. */
export function formatFailures(report: Report): string {
  const lines: string[] = [];
  for (const run of report.runs) {
    for (const test of run.tests) {
      if (test.status !== 'failed') continue;
      lines.push(`FAILED ${test.device}: ${test.name}   (${columnTitle(run).join(' · ')})`);
      lines.push((test.detail ?? '').replace(/^/gm, '    '), '');
    }
  }
  return lines.join('\n');
}
