/**
 * `npm test`: every check and every test, each with its time. A step that fails does not stop the
 * others, so that one run tells everything; none is ever left out without being counted as failed.
 */
import fs from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { run, runBeside } from '@virtio/setup/processes';
import { USAGE } from '@virtio/setup/usage';
import { type Counts, countGuestTests, countUnitTests, judge } from './results.ts';
import { cache, root } from './workspace.ts';

interface Step {
  readonly title: string;
  readonly command: readonly [string, ...string[]];
  /** Counts the tests of a step that runs tests; any other step counts as one, by its exit status. */
  readonly count?: () => Counts;
}

const unitReport = path.join(cache, 'test/unit.json');
const backendReport = path.join(cache, 'test/backends.json');
const guestReport = path.join(cache, 'test/guest.json');
const bareReport = path.join(cache, 'test/bare.json');
const harness = ['node', '--conditions=@virtio/source', 'apps/qemu-harness/src/main.ts'] as const;
const bare = ['node', '--conditions=@virtio/source', 'apps/bare-guest/src/main.ts'] as const;
/** turbo remembers by content what passed, so that a repeated run soon reaches the guests. */
const turbo = (task: string): Step['command'] => [
  'turbo',
  'run',
  task,
  '--continue',
  '--output-logs=errors-only',
  '--log-order=grouped',
  '--ui=stream',
];

const vitest = (report: string, ...options: string[]): Step['command'] => [
  'vitest',
  'run',
  ...options,
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
];

/** What looks at the sources only. The lanes run side by side: most of these programs use one processor. */
const lanes: readonly (readonly Step[])[] = [
  [
    { title: 'lint', command: turbo('check:lint') },
    { title: 'doc examples', command: turbo('check:examples') },
    { title: 'reference manual', command: turbo('check:docs') },
    { title: 'other engines', command: [...bare, 'unit', '--short'] },
  ],
  [
    { title: 'guest image', command: [...harness, 'prepare'] },
    { title: 'bare images', command: [...bare, 'prepare'] },
    { title: 'types', command: turbo('check:types') },
    {
      title: 'format',
      command: [
        'prettier',
        '--check',
        '--cache',
        '--cache-location=.cache/prettier',
        '--log-level=warn',
        '.',
      ],
    },
    { title: 'build', command: turbo('build') },
    { title: 'packages', command: turbo('check:packages') },
    { title: 'interfaces', command: turbo('check:api') },
    { title: 'releases', command: turbo('check:release') },
    { title: 'installed packages', command: turbo('check:install') },
  ],
];

/** What needs the machine for itself, one after the other. */
const tests: readonly Step[] = [
  // Before the unit tests, so that a repeated run, with the checks above remembered, boots the guests within seconds.
  {
    title: 'guest tests',
    command: [...harness, 'test', '--json', guestReport],
    count: () => countGuestTests(guestReport),
  },
  // Behind the guests with Linux: it adds its results to their report.
  {
    title: 'bare guests',
    command: [...bare, 'test', '--short', '--json', bareReport],
    count: () => countGuestTests(bareReport),
  },
  // No guest is booted: programs of the host serve the devices. Which packages they are in, apps/backends says.
  {
    title: 'vhost-user back ends',
    command: vitest(backendReport, '--config=apps/backends/vitest.config.ts'),
    count: () => countUnitTests(backendReport),
  },
  {
    title: 'unit tests',
    command: vitest(unitReport),
    count: () => countUnitTests(unitReport),
  },
  { title: 'conformance', command: ['node', 'tooling/checks/src/conformance.ts', unitReport, guestReport] },
  {
    title: 'support table',
    command: [
      'node',
      '--conditions=@virtio/source',
      'tooling/checks/src/support.ts',
      guestReport,
      bareReport,
    ],
  },
];

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** What a step printed of what was wrong: lines that say so themselves, and the last ones, where most programs do. */
function telling(printed: string): string[] {
  const lines = stripVTControlCharacters(printed)
    .split('\n')
    .filter((line) => line.trim() !== '');
  const last = Math.max(0, lines.length - 12);
  return [...lines.slice(0, last).filter((line) => /\b(?:FAILED|STALE)\b/.test(line)), ...lines.slice(last)];
}

async function perform({ command: [file, ...args], count }: Step, beside: boolean): Promise<Counts> {
  let failures: readonly string[] = [];
  try {
    if (beside) {
      const { status, printed } = await runBeside(file, args, { cwd: root });
      if (status === 0) return { passed: 1, failed: 0, skipped: 0, failures };
      failures = telling(printed);
    } else {
      const status = await run(file, args, { cwd: root });
      if (count !== undefined) return judge(count(), status);
      if (status === 0) return { passed: 1, failed: 0, skipped: 0, failures };
    }
  } catch (error) {
    console.error(String(error));
    failures = [String(error)];
  }
  return { passed: 0, failed: 1, skipped: 0, failures };
}

const [unknown] = process.argv.slice(2);
if (unknown !== undefined) {
  console.error(`Unknown argument ${unknown}.\n\n${USAGE.test}`);
  process.exit(2);
}
let interrupted: NodeJS.Signals | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => (interrupted = signal));
}

fs.rmSync(path.dirname(unitReport), { recursive: true, force: true });
fs.mkdirSync(path.dirname(unitReport), { recursive: true });
const sum = { passed: 0, failed: 0, skipped: 0 };
const table: string[] = [];
/** What failed, repeated at the end, where it is looked for. */
const failed: string[] = [];
const all = lanes.flat().length + tests.length;
let ended = 0;

async function report(step: Step, beside: boolean): Promise<void> {
  if (!beside) console.log(`\n[${ended + 1}/${all}] ${step.title}`);
  const start = performance.now();
  const counts = await perform(step, beside);
  const took = seconds(performance.now() - start);
  if (interrupted !== undefined) {
    console.error(`\nInterrupted by ${interrupted} during "${step.title}".`);
    process.exit(interrupted === 'SIGINT' ? 130 : 143);
  }
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : '';
  const verdict = counts.failed > 0 ? 'FAILED' : 'ok';
  const detail =
    step.count === undefined ? '' : `  ${counts.passed} passed, ${counts.failed} failed${skipped}`;
  const line = `${verdict.padEnd(8)}${step.title.padEnd(21)}${took.padStart(9)}${detail}`;
  ended += 1;
  console.log(`[${ended}/${all}] ${line.trimEnd()}`);
  table.push(line);
  if (counts.failed > 0) {
    const shown = counts.failures.slice(0, 20);
    const more = counts.failures.length - shown.length;
    failed.push(`${step.title}:`, ...shown.map((failure) => `  ${failure}`));
    if (more > 0) failed.push(`  and ${more} more`);
  }
  sum.passed += counts.passed;
  sum.failed += counts.failed;
  sum.skipped += counts.skipped;
}

console.log(
  `Checks of the sources, side by side: ${lanes
    .flat()
    .map(({ title }) => title)
    .join(', ')}`,
);
await Promise.all(
  lanes.map(async (lane) => {
    for (const step of lane) await report(step, true);
  }),
);
for (const step of tests) await report(step, false);

console.log(`\n${table.join('\n')}\n`);
if (failed.length > 0) console.log(`What failed:\n${failed.join('\n')}\n`);
const skipped = sum.skipped > 0 ? `, ${sum.skipped} skipped` : '';
console.log(`${sum.passed} passed, ${sum.failed} failed${skipped}`);
if (sum.failed > 0) process.exitCode = 1;
