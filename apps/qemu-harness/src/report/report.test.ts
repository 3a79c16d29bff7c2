import { describe, expect, it } from 'vitest';
import { createReport, isGreen, type RunRecord, type TestResult } from '../framework/results.ts';
import { formatHtml } from './html.ts';
import { formatFailures, formatReboots, formatTable } from './table.ts';

const run = (ring: string, tests: TestResult[]): RunRecord => ({
  arch: 'x86_64',
  machine: 'q35',
  transport: 'pci-vfio',
  ring,
  guest: { kernel: '6.1.0', node: 'v24.0.0' },
  qemu: '10.0.2',
  accelerator: 'tcg',
  ms: 9000,
  reboots: [],
  tests,
});

const RUNS = [
  run('split', [
    { device: 'blk', name: 'reads <b>', status: 'passed', ms: 500 },
    { device: 'blk', name: 'writes', status: 'failed', ms: 700, detail: 'Error: <script>alert(1)</script>' },
    { device: 'rng', name: 'gives', status: 'skipped', ms: 0, detail: 'no such device' },
  ]),
  run('packed', [{ device: 'blk', name: 'reads <b>', status: 'passed', ms: 400 }]),
];
const REPORT = createReport(new Date(0), 18_000, RUNS, ['c & d cannot be']);

describe('createReport', () => {
  it('counts', () => {
    expect(REPORT).toMatchObject({
      version: 1,
      passed: 2,
      failed: 1,
      skipped: 1,
      started: '1970-01-01T00:00:00.000Z',
    });
  });

  it('is green only if something passed and nothing failed', () => {
    expect(isGreen(REPORT)).toBe(false);
    expect(isGreen(createReport(new Date(0), 1, []))).toBe(false);
    expect(
      isGreen(
        createReport(new Date(0), 1, [run('split', [{ device: 'a', name: 'b', status: 'passed', ms: 1 }])]),
      ),
    ).toBe(true);
  });
});

describe('guests that were booted again', () => {
  const died = {
    ...run('split', []),
    reboots: ['The timer of processor 0 <does> not fire.\n[    0.1] console'],
  };
  const report = createReport(new Date(0), 1, [died]);

  it('are told with their reason, a line each', () => {
    expect(formatReboots(report)).toBe(
      'booted again: x86_64 q35 · pci-vfio · split: The timer of processor 0 <does> not fire.',
    );
    expect(formatReboots(REPORT)).toBe('');
  });

  it('stand in the report with the last lines of their consoles', () => {
    expect(formatHtml(report)).toContain(
      'The timer of processor 0 &lt;does&gt; not fire.\n[    0.1] console',
    );
    expect(formatHtml(REPORT)).not.toContain('booted again');
  });
});

describe('formatHtml', () => {
  const html = formatHtml(REPORT);

  it('puts failures before the matrix and shows no text as markup', () => {
    expect(html.indexOf('Failures')).toBeLessThan(html.indexOf('Matrix'));
    expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(html).not.toContain('<script');
    expect(html).toContain('reads &lt;b&gt;');
  });

  it('says what the matrix leaves out', () => {
    expect(html).toContain('<p class="muted">c &amp; d cannot be</p>');
  });

  it('refers to nothing outside itself', () => {
    expect(html).not.toMatch(/(?:src|href)=|url\(|@import/);
  });

  it('shows the pictures that tests left, within itself', () => {
    const pictures = [{ title: 'head <0>', type: 'image/png', data: 'aGVsbG8=' }] as const;
    const test: TestResult = { device: 'gpu', name: 'shows', status: 'passed', ms: 1, pictures };
    const shown = formatHtml(createReport(new Date(0), 1, [run('split', [test])]));
    expect(shown).toContain('<img alt="head &lt;0&gt;" src="data:image/png;base64,aGVsbG8=">');
    const failed = formatHtml(createReport(new Date(0), 1, [run('split', [{ ...test, status: 'failed' }])]));
    expect(failed.match(/<img /g)).toHaveLength(1);
  });

  it('shows counts in each cell of the matrix', () => {
    expect(html).toContain('<td class="fail">1 of 2 failed');
    expect(html).toContain('<td class="pass">1 passed');
    expect(html).toContain('<td class="idle">skipped');
  });
});

describe('the terminal', () => {
  it('shows a row a device and the details of failures', () => {
    const table = formatTable(REPORT, false);
    expect(table).toMatch(/blk .*1 failed.*1 passed/);
    expect(table).not.toContain('\x1b[');
    expect(formatFailures(REPORT)).toContain('FAILED blk: writes   (x86_64 q35 · pci-vfio · split)');
  });
});
