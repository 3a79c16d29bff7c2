/** Reads what the two test runners report and counts it, so that no failure hides behind a number. */
import fs from 'node:fs';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The part of vitest's JSON report that is counted. */
interface VitestReport {
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** The part of the harness's report (`report.json`, version 1) that is counted. */
interface GuestReport {
  readonly version: number;
  readonly runs: readonly { readonly tests: readonly { readonly status: string }[] }[];
}

export function countUnitTests(file: string): Counts {
  const report = read(file) as VitestReport;
  const statuses = report.testResults.flatMap(({ status, assertionResults }) => {
    const own = assertionResults.map((result) => result.status);
    // A file that could not be loaded, or whose hooks threw, failed without any test of its own failing.
    return status === 'failed' && !own.includes('failed') ? [...own, 'failed'] : own;
  });
  return count(statuses);
}

export function countGuestTests(file: string): Counts {
  const report = read(file) as GuestReport;
  if (report.version !== 1) throw new Error(`${file}: version ${report.version}, 1 was expected`);
  return count(report.runs.flatMap((run) => run.tests.map((test) => test.status)));
}

/**
 * What a finished test runner adds to the sum: its counts, and one more failure where its exit status says so and no
 * test does, or where it ran no test at all.
 */
export function judge(counts: Counts, exitStatus: number): Counts {
  const ran = counts.passed + counts.failed;
  const hidden = counts.failed === 0 && (exitStatus !== 0 || ran === 0) ? 1 : 0;
  return { ...counts, failed: counts.failed + hidden };
}

function count(statuses: readonly string[]): Counts {
  const passed = statuses.filter((status) => status === 'passed').length;
  const skipped = statuses.filter((status) => ['skipped', 'pending', 'todo'].includes(status)).length;
  return { passed, skipped, failed: statuses.length - passed - skipped };
}

function read(file: string): unknown {
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}
