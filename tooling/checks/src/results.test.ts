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
        { name: '/a', status: 'passed', assertionResults: results('passed', 'passed', 'pending') },
        {
          name: path.resolve('b.test.ts'),
          status: 'failed',
          assertionResults: [
            { status: 'failed', fullName: 'it works', failureMessages: ['Error: no\n    at x'] },
            ...results('passed'),
          ],
        },
      ],
    };
    fs.writeFileSync(file, JSON.stringify(report));
    expect(countUnitTests(file)).toEqual({
      passed: 3,
      failed: 1,
      skipped: 1,
      failures: ['b.test.ts: it works: Error: no'],
    });
  });

  it('counts a file that did not load as a failure', () => {
    fs.writeFileSync(
      file,
      JSON.stringify({
        testResults: [
          {
            name: path.resolve('c.test.ts'),
            status: 'failed',
            message: 'SyntaxError: x',
            assertionResults: [],
          },
        ],
      }),
    );
    expect(countUnitTests(file)).toEqual({
      passed: 0,
      failed: 1,
      skipped: 0,
      failures: ['c.test.ts: SyntaxError: x'],
    });
  });
});

describe('countGuestTests', () => {
  it('adds up all runs, and an unknown status is a failure', () => {
    const cell = { machine: 'q35', transport: 'pci', ring: 'packed' };
    const runs = [
      { ...cell, tests: results('passed', 'skipped') },
      {
        ...cell,
        tests: [
          { device: 'blk', name: 'reads', status: 'failed', detail: 'Error: wrong\nmore' },
          { device: 'rng', name: 'fills', status: 'odd' },
        ],
      },
    ];
    fs.writeFileSync(file, JSON.stringify({ version: 1, runs }));
    expect(countGuestTests(file)).toEqual({
      passed: 1,
      failed: 2,
      skipped: 1,
      failures: ['blk in q35 · pci · packed: reads: Error: wrong', 'rng in q35 · pci · packed: fills'],
    });
  });

  it('refuses a report of another version', () => {
    fs.writeFileSync(file, JSON.stringify({ version: 2, runs: [] }));
    expect(() => countGuestTests(file)).toThrow('version 2');
  });
});

describe('judge', () => {
  it('leaves counts that tell the whole story', () => {
    const good = { passed: 3, failed: 0, skipped: 1, failures: [] };
    const bad = { passed: 3, failed: 2, skipped: 0, failures: ['a', 'b'] };
    expect(judge(good, 0)).toEqual(good);
    expect(judge(bad, 1)).toEqual(bad);
  });

  it('counts a runner that failed without a failed test', () => {
    expect(judge({ passed: 3, failed: 0, skipped: 0, failures: [] }, 7)).toEqual({
      passed: 3,
      failed: 1,
      skipped: 0,
      failures: ['no test failed, but the runner ended with status 7'],
    });
  });

  it('counts a runner that ran nothing as failed, skipped tests or not', () => {
    expect(judge({ passed: 0, failed: 0, skipped: 5, failures: [] }, 0)).toEqual({
      passed: 0,
      failed: 1,
      skipped: 5,
      failures: ['no test ran'],
    });
  });
});
