/** Reads and counts the results of the two test runners, so that no failure is hidden by a number. */
import fs from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What failed, by name, with the first line of why. */
  readonly failures: readonly string[];
}

/** The part of vitest's JSON report that is counted. */
interface VitestReport {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages?: readonly string[];
    }[];
  }[];
}

/** The part of the harness's report (`report.json`, version 1) that is counted. */
interface GuestReport {
  readonly version: number;
  readonly runs: readonly {
    readonly machine: string;
    readonly transport: string;
    readonly ring: string;
    readonly tests: readonly {
      readonly device: string;
      readonly name: string;
      readonly status: string;
      readonly detail?: string;
    }[];
  }[];
}

/** A test that ended, whichever runner it is of. */
interface Result {
  readonly status: string;
  readonly name: string;
  readonly why?: string | undefined;
}

export function countUnitTests(file: string): Counts {
  const report = read(file) as VitestReport;
  const results = report.testResults.flatMap(({ name, status, message, assertionResults }): Result[] => {
    const module = path.relative(process.cwd(), name);
    const own = assertionResults.map((result) => ({
      status: result.status,
      name: `${module}: ${result.fullName}`,
      why: result.failureMessages?.[0],
    }));
    // A file that could not be loaded, or whose hooks threw, failed without any test of its own failing.
    return status === 'failed' && !own.some((result) => result.status === 'failed')
      ? [...own, { status, name: module, why: message }]
      : own;
  });
  return count(results);
}

export function countGuestTests(file: string): Counts {
  const report = read(file) as GuestReport;
  if (report.version !== 1) throw new Error(`${file}: version ${report.version}, 1 was expected`);
  return count(
    report.runs.flatMap(({ machine, transport, ring, tests }) =>
      tests.map(({ device, name, status, detail }) => ({
        status,
        name: `${device} in ${machine} · ${transport} · ${ring}: ${name}`,
        why: detail,
      })),
    ),
  );
}

/**
 * What a finished test runner adds to the sum: its counts, and one more failure where its exit status says so and no
 * test does, or where it ran no test at all.
 */
export function judge(counts: Counts, exitStatus: number): Counts {
  const ran = counts.passed + counts.failed;
  const hidden = counts.failed === 0 && (exitStatus !== 0 || ran === 0) ? 1 : 0;
  if (hidden === 0) return counts;
  const why = ran === 0 ? 'no test ran' : `no test failed, but the runner ended with status ${exitStatus}`;
  return { ...counts, failed: 1, failures: [...counts.failures, why] };
}

function count(results: readonly Result[]): Counts {
  const passed = results.filter(({ status }) => status === 'passed').length;
  const skipped = results.filter(({ status }) => ['skipped', 'pending', 'todo'].includes(status)).length;
  const failures = results
    .filter(({ status }) => !['passed', 'skipped', 'pending', 'todo'].includes(status))
    .map(({ name, why }) => (why === undefined ? name : `${name}: ${firstLine(why)}`));
  return { passed, skipped, failed: failures.length, failures };
}

function firstLine(text: string): string {
  const [line = ''] = stripVTControlCharacters(text).split('\n');
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}

function read(file: string): unknown {
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}
