/** The results of a run, in the shape of `report.json`. */

/** What became of a test. */
export type TestStatus = 'passed' | 'failed' | 'skipped';

/** A picture that a test leaves in the report: what a display showed, or a wave. */
export interface Picture {
  readonly title: string;
  readonly type: 'image/png' | 'image/svg+xml';
  /** Its bytes in Base64. */
  readonly data: string;
}

/** What a driver and its device agreed on, by the specification's names. */
export interface Negotiated {
  readonly offered: readonly string[];
  /** What the driver implements, with the options of the test. */
  readonly implemented: readonly string[];
  readonly accepted: readonly string[];
}

/** One test in one cell. */
export interface TestResult {
  readonly device: string;
  readonly name: string;
  readonly status: TestStatus;
  readonly ms: number;
  /** Why it failed or was skipped; what it noted. */
  readonly detail?: string;
  readonly pictures?: readonly Picture[];
  /** One for each device that it initialized, without repetition. Of processes apart, none. */
  readonly negotiated?: readonly (Negotiated & { readonly deviceType: number })[];
}

/** All tests in one cell. */
export interface RunRecord {
  readonly arch: string;
  readonly machine: string;
  readonly transport: string;
  readonly ring: string;
  readonly guest: { readonly kernel: string; readonly node: string };
  readonly qemu: string;
  /** `tcg` or `kvm`. */
  readonly accelerator: string;
  /** What its tests took, one after the other. */
  readonly ms: number;
  /** Why guests that died were booted again, for the tests that had not begun. */
  readonly reboots: readonly string[];
  readonly tests: readonly TestResult[];
}

/** The report. */
export interface Report {
  readonly version: 1;
  /** When it began, in ISO 8601. */
  readonly started: string;
  readonly ms: number;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** What was not run, and why. */
  readonly remarks: readonly string[];
  readonly runs: readonly RunRecord[];
}

/** Sums up runs. */
export function createReport(
  started: Date,
  ms: number,
  runs: readonly RunRecord[],
  remarks: readonly string[] = [],
): Report {
  const count = (status: TestStatus): number =>
    runs.reduce((sum, { tests }) => sum + tests.filter((test) => test.status === status).length, 0);
  return {
    version: 1,
    started: started.toISOString(),
    ms: Math.round(ms),
    passed: count('passed'),
    failed: count('failed'),
    skipped: count('skipped'),
    remarks,
    runs,
  };
}

/** Whether a run proved what it should: something ran, and nothing failed. */
export function isGreen({ passed, failed }: Report): boolean {
  return passed > 0 && failed === 0;
}
