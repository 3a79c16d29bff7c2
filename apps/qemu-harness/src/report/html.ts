/** The report as one HTML file with nothing outside it: failures first, then the matrix, then every test. */
import type { Picture, Report, RunRecord, TestResult } from '../framework/results.ts';
import { columnTitle, devicesOf, tally } from './table.ts';

const STYLE = `
:root { color-scheme: light dark; --text: #1c1e21; --muted: #636a73; --page: #fbfbfa; --card: #fff; --line: #dfe2e6;
  --good: #1a7f37; --good-soft: #e3f5e7; --bad: #b3261e; --bad-soft: #fdeae8; --idle-soft: #eef0f2; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e9; --muted: #9aa2ab; --page: #15171a; --card: #1d2024;
  --line: #33383f; --good: #57c474; --good-soft: #17301e; --bad: #ff8a80; --bad-soft: #3a1d1b; --idle-soft: #272b30; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.verdict { display: flex; gap: .75rem 1.5rem; align-items: baseline; flex-wrap: wrap; }
.verdict strong { font-size: 1.5rem; } .good { color: var(--good); } .bad { color: var(--bad); } .muted { color: var(--muted); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: var(--card); border: 1px solid var(--line); }
th, td { border: 1px solid var(--line); padding: .45rem .7rem; text-align: left; vertical-align: top; }
th { font-weight: 600; } thead small { display: block; font-weight: 400; color: var(--muted); }
td.pass { background: var(--good-soft); } td.fail { background: var(--bad-soft); } td.idle { background: var(--idle-soft); color: var(--muted); }
td small { color: var(--muted); white-space: nowrap; }
article { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--bad); padding: .8rem 1rem; margin: 0 0 .8rem; }
article h3 { margin: 0; font-size: 1rem; }
pre { margin: .6rem 0 0; padding: .7rem .8rem; overflow-x: auto; background: var(--idle-soft); font: 12.5px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
details { background: var(--card); border: 1px solid var(--line); margin: 0 0 .5rem; }
summary { cursor: pointer; padding: .5rem .8rem; } details table { border: 0; width: 100%; } details td { border-width: 1px 0 0; }
.mark { width: 1.4rem; font-weight: 700; } .time { text-align: right; white-space: nowrap; color: var(--muted); font-variant-numeric: tabular-nums; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: .6rem 0 0; }
figure { margin: 0; } figure img { display: block; max-width: min(100%, 40rem); border: 1px solid var(--line); }
figcaption { font-size: .85rem; color: var(--muted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0; } dt { color: var(--muted); } dd { margin: 0; }
`;

const MARKS = { passed: '✓', failed: '✗', skipped: '–' } as const;
const COLOURS = { passed: 'good', failed: 'bad', skipped: 'muted' } as const;

/** Writes the report as HTML. */
export function formatHtml(report: Report): string {
  const { passed, failed, skipped } = report;
  const green = failed === 0 && passed > 0;
  const verdict = green ? 'All passed' : failed > 0 ? `${failed} failed` : 'Nothing ran';
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${verdict} – drivers in the guest</title>
<style>${STYLE}</style>
<h1>The drivers in the guest</h1>
<p class="verdict"><strong class="${green ? 'good' : 'bad'}">${verdict}</strong>
<span>${passed} passed, ${failed} failed, ${skipped} skipped</span>
<span class="muted">${duration(report.ms)}, ${escapeHtml(report.started.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'))}</span></p>
${failures(report)}
<h2>Matrix</h2>
<div class="scroll">${matrix(report)}</div>
${report.remarks.map((remark) => `<p class="muted">${escapeHtml(remark)}</p>`).join('\n')}
${reboots(report)}<h2>Every test</h2>
${report.runs.map(runDetails).join('\n')}
<h2>Environment</h2>
${environment(report)}
</html>
`;
}

function failures(report: Report): string {
  const items = report.runs.flatMap((run) =>
    run.tests
      .filter(({ status }) => status === 'failed')
      .map(
        (test) =>
          `<article><h3>${escapeHtml(test.device)}: ${escapeHtml(test.name)}</h3>` +
          `<span class="muted">${escapeHtml(columnTitle(run).join(' · '))}, ${duration(test.ms)}</span>` +
          `<pre>${escapeHtml(test.detail ?? '')}</pre>${figures(test.pictures)}</article>`,
      ),
  );
  return items.length === 0 ? '' : `<h2>Failures</h2>\n${items.join('\n')}`;
}

function reboots(report: Report): string {
  const items = report.runs.flatMap((run) =>
    run.reboots.map(
      (why) =>
        `<details><summary>${escapeHtml(columnTitle(run).join(' · '))}: ${escapeHtml(why.split('\n', 1).join(''))}</summary>` +
        `<pre>${escapeHtml(why)}</pre></details>`,
    ),
  );
  if (items.length === 0) return '';
  return `<h2>Guests that were booted again</h2>
<p class="muted">These guests died. The test that was running has failed; tests that had not started ran in a new guest.</p>
${items.join('\n')}
`;
}

function matrix(report: Report): string {
  const head = report.runs.map((run) => {
    const [machine = '', ...rest] = columnTitle(run);
    return `<th>${escapeHtml(machine)}${rest.map((line) => `<small>${escapeHtml(line)}</small>`).join('')}</th>`;
  });
  const rows = devicesOf(report).map(
    (device) =>
      `<tr><th>${escapeHtml(device)}</th>${report.runs.map((run) => matrixCell(run, device)).join('')}</tr>`,
  );
  return `<table><thead><tr><th>Device</th>${head.join('')}</tr></thead><tbody>${rows.join('')}</tbody></table>`;
}

function matrixCell(run: RunRecord, device: string): string {
  const { passed, failed, skipped, ms } = tally(run, device);
  if (passed + failed + skipped === 0) return '<td></td>';
  const style = failed > 0 ? 'fail' : passed > 0 ? 'pass' : 'idle';
  const text =
    failed > 0 ? `${failed} of ${passed + failed} failed` : passed > 0 ? `${passed} passed` : 'skipped';
  const more = [
    ...(skipped > 0 && passed + failed > 0 ? [`${skipped} skipped`] : []),
    ...(passed + failed > 0 ? [duration(ms)] : []),
  ];
  return `<td class="${style}">${text}${more.length > 0 ? `<br><small>${more.join(', ')}</small>` : ''}</td>`;
}

function runDetails(run: RunRecord): string {
  const failed = run.tests.filter(({ status }) => status === 'failed').length;
  const passed = run.tests.filter(({ status }) => status === 'passed').length;
  const skipped = run.tests.length - passed - failed;
  const counts = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
  return `<details${failed > 0 ? ' open' : ''}><summary><b>${escapeHtml(columnTitle(run).join(' · '))}</b>
<span class="${failed > 0 ? 'bad' : 'muted'}">${counts}</span> <span class="muted">${duration(run.ms)}, ${escapeHtml(run.accelerator)}</span></summary>
<div class="scroll"><table>${run.tests.map(testRow).join('')}</table></div></details>`;
}

function testRow({ device, name, status, ms, detail, pictures }: TestResult): string {
  const more =
    detail === undefined || status === 'failed'
      ? ''
      : `<br><small>${escapeHtml(detail).replaceAll('\n', '<br>')}</small>`;
  return (
    `<tr><td class="mark ${COLOURS[status]}" title="${status}">${MARKS[status]}</td><td>${escapeHtml(device)}</td>` +
    `<td>${escapeHtml(name)}${more}${status === 'failed' ? '' : figures(pictures)}</td><td class="time">${status === 'skipped' ? '' : duration(ms)}</td></tr>`
  );
}

function figures(pictures: readonly Picture[] = []): string {
  if (pictures.length === 0) return '';
  const items = pictures.map(
    ({ title, type, data }) =>
      `<figure><img alt="${escapeHtml(title)}" src="data:${type};base64,${data}"><figcaption>${escapeHtml(title)}</figcaption></figure>`,
  );
  return `<div class="figures">${items.join('')}</div>`;
}

function environment({ runs }: Report): string {
  const [first] = runs;
  if (first === undefined) return '<p>No guest was started.</p>';
  const values: [string, string][] = [
    ['QEMU', first.qemu],
    ['Guests run', [...new Set(runs.map(system))].join('; ')],
    ['Execution', [...new Set(runs.map(({ accelerator }) => accelerator))].join(', ')],
    ['Guests', runs.map((run) => `${columnTitle(run).join(' · ')}: ${duration(run.ms)}`).join('; ')],
  ];
  return `<dl>${values.map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`).join('')}</dl>`;
}

/** What a guest runs: a bare one has no kernel. */
function system({ arch, guest: { kernel, node } }: RunRecord): string {
  return kernel === 'none'
    ? `${node} with no operating system, ${arch}`
    : `Linux ${kernel}, Node.js ${node}, ${arch}`;
}

function duration(ms: number): string {
  if (ms < 1000) return `${ms} ms`;
  const seconds = ms / 1000;
  return seconds < 120
    ? `${seconds.toFixed(1)} s`
    : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
