import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countGuestTests, countUnitTests, judge } from './results.ts';

let file: string;
beforeEach(() => {
  file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'results-')), 'report.json');
});
afterEach(() => {
  fs.rmSync(path.dirname(file), { recursive: true });
});

const results = (...statuses: string[]) => statuses.map((status) => ({ status }));

describe('countUnitTests', () => {
  it('counts by status', () => {
    const report = {
      testResults: [
        { status: 'passed', assertionResults: results('passed', 'passed', 'pending') },
        { status: 'failed', assertionResults: results('failed', 'passed') },
      ],
    };
    fs.writeFileSync(file, JSON.stringify(report));
    expect(countUnitTests(file)).toEqual({ passed: 3, failed: 1, skipped: 1 });
  });

  it('counts a file that did not load as a failure', () => {
    fs.writeFileSync(file, JSON.stringify({ testResults: [{ status: 'failed', assertionResults: [] }] }));
    expect(countUnitTests(file)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });
});

describe('countGuestTests', () => {
  it('adds up all runs, and an unknown status is a failure', () => {
    const runs = [{ tests: results('passed', 'skipped') }, { tests: results('failed', 'odd') }];
    fs.writeFileSync(file, JSON.stringify({ version: 1, runs }));
    expect(countGuestTests(file)).toEqual({ passed: 1, failed: 2, skipped: 1 });
  });

  it('refuses a report of another version', () => {
    fs.writeFileSync(file, JSON.stringify({ version: 2, runs: [] }));
    expect(() => countGuestTests(file)).toThrow('version 2');
  });
});

describe('judge', () => {
  it('leaves counts that tell the whole story', () => {
    expect(judge({ passed: 3, failed: 0, skipped: 1 }, 0)).toEqual({ passed: 3, failed: 0, skipped: 1 });
    expect(judge({ passed: 3, failed: 2, skipped: 0 }, 1)).toEqual({ passed: 3, failed: 2, skipped: 0 });
  });

  it('counts a runner that failed without a failed test', () => {
    expect(judge({ passed: 3, failed: 0, skipped: 0 }, 1)).toEqual({ passed: 3, failed: 1, skipped: 0 });
  });

  it('counts a runner that ran nothing as failed, skipped tests or not', () => {
    expect(judge({ passed: 0, failed: 0, skipped: 5 }, 0)).toEqual({ passed: 0, failed: 1, skipped: 5 });
  });
});
