/**
 * Runs the unit tests of the portable packages in other engines than Node.js: QuickJS, the one of bare guests,
 * Deno and Bun. What an engine cannot do is listed by name (`exceptions.ts`); any other test that does not pass is a failure.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { text as textOf } from 'node:stream/consumers';
import { REPO_DIR } from '@virtio/qemu-harness/src/paths.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import type { Line } from '../guest/unit/runner.ts';
import { bundleFor, commandOf, type Engine, ENGINES } from './engines.ts';
import { EXCEPTIONS, judge, type UnitResult } from './exceptions.ts';

const MARK = '\x1e';
/** An engine that says nothing for this long hangs, or one test takes too long. */
const SILENT_MS = 300_000;
/** A test with a time-out of its own of this length takes long; an engine that interprets would take minutes. */
const LONG_MS = 30_000;
/** Of each file, as many tests stand for the others where a run is to be short. */
const SHARE = 4;
/** Clock ticks of Linux' processor times: its constant for programs, whatever the kernel's own. */
const TICKS_PER_SECOND = 100;

/** Packages that touch nothing outside ECMAScript, as their type check says. */
export function portablePackages(): string[] {
  const folder = join(REPO_DIR, 'packages');
  return readdirSync(folder).filter((name) => {
    const manifest = JSON.parse(readFileSync(join(folder, name, 'package.json'), 'utf8')) as {
      scripts?: { typecheck?: string };
    };
    return manifest.scripts?.typecheck?.includes('typecheck.js') === true;
  });
}

/** The unit tests of a package: paths in the repository. */
export function testFiles(name: string): string[] {
  const folder = join(REPO_DIR, 'packages', name, 'src');
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
    .map((file) => relative(REPO_DIR, join(folder, file)));
}

/** What of the files is run. */
interface Extent {
  /** Only some tests of each file, and none that takes long. */
  readonly isShort: boolean;
}

/** The module that runs files. Its last line is the processor time that it took, where Linux says so. */
export function entryText(engine: Engine, files: readonly string[], { isShort }: Extent): string {
  const loads = files.map(
    (file) => `${JSON.stringify(file)}: () => import(${JSON.stringify(join(REPO_DIR, file))})`,
  );
  const mark = JSON.stringify(MARK);
  const longMs = isShort || engine === 'quickjs' ? LONG_MS : Infinity;
  // Not awaited: QuickJS, as a program, waits for the next timer between any two jobs until its main module is evaluated.
  return [
    `import { runAll } from 'vitest';`,
    `const print = (line) => printLine(${mark} + JSON.stringify(line));`,
    `void runAll({ ${loads.join(', ')} }, print, { longMs: ${longMs}, most: ${isShort ? SHARE : Infinity} })`,
    `  .then(() => print({ stat: readText('/proc/self/stat') }));`,
  ].join('\n');
}

/** What an engine said. */
interface EngineRun {
  readonly results: readonly UnitResult[];
  /** Seconds of processor, 0 if nobody tells. */
  readonly seconds: number;
}

async function runFilesIn(engine: Engine, files: readonly string[], extent: Extent): Promise<EngineRun> {
  const directory = mkdtempSync(join(tmpdir(), 'virtio-unit-'));
  try {
    const bundle = join(directory, 'tests.mjs');
    await bundleFor(engine, entryText(engine, files, extent), bundle);
    const [program, ...args] = await commandOf(engine, bundle);
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    const errors = textOf(child.stderr);
    const silence = setTimeout(() => child.kill('SIGKILL'), SILENT_MS);
    const results: UnitResult[] = [];
    let seconds = 0;
    let ended = 0;
    let last = files[0] ?? '';
    for await (const said of createInterface({ input: child.stdout })) {
      silence.refresh();
      if (!said.startsWith(MARK)) continue;
      const line = JSON.parse(said.slice(MARK.length)) as
        Line | { readonly what?: undefined; readonly stat?: string };
      if (line.what === undefined) {
        seconds = processorSeconds(line.stat ?? '');
      } else if (line.what === 'ended') {
        ended += 1;
        last = `${line.file} > (the end of the file)`;
      } else {
        const name = `${line.file} > ${line.name}`;
        last = name;
        if (line.what === 'begun') continue;
        results.push({ name, status: line.what, ...(line.what === 'failed' && { why: line.why }) });
      }
    }
    const [status, signal] = await closed;
    clearTimeout(silence);
    if (status !== 0 || ended < files.length) {
      const how = signal === null ? `with status ${String(status)}` : `by ${signal}`;
      const why = `the engine ended ${how}; ${files.length - ended} files are left. ${(await errors).slice(0, 800)}`;
      results.push({ name: last, status: 'failed', why });
    }
    return { results, seconds };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** User and system time of the process, fields 14 and 15 of what Linux says of it. */
function processorSeconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / TICKS_PER_SECOND;
}

/** What was asked for. */
interface Selection extends Extent {
  readonly engines: readonly Engine[];
  /** Test files, by package. */
  readonly files: ReadonlyMap<string, readonly string[]>;
}

/** The engines of a run that names none and is short: Node.js has its own run of the same tests. */
const OTHERS = ENGINES.filter((name) => name !== 'node');

/** Reads the words of the command line. */
function select(argv: readonly string[]): Selection {
  const isShort = argv.includes('--short');
  const words = argv.filter((word) => word !== '--short');
  const isPath = (word: string): boolean => word.includes('/');
  const all = portablePackages();
  const unknown = words.find((word) => !isEngine(word) && !isPath(word) && !all.includes(word));
  if (unknown !== undefined) {
    throw new HarnessError(
      'BAD_ARGUMENTS',
      `${unknown} is neither an engine (${ENGINES.join(', ')}), nor a portable package (${all.join(', ')}), nor a part of a test file's path.`,
    );
  }
  const named = words.filter((word) => !isEngine(word));
  const isWanted = (name: string, file: string): boolean =>
    named.length === 0 || named.some((word) => (isPath(word) ? file.includes(word) : word === name));
  const files = all.map((name) => [name, testFiles(name).filter((file) => isWanted(name, file))] as const);
  const engines = ENGINES.filter((name) => words.includes(name));
  return {
    isShort,
    engines: engines.length > 0 ? engines : isShort ? OTHERS : ENGINES,
    files: new Map(files.filter(([, list]) => list.length > 0)),
  };
}

/** Runs the tests of all packages, or of those that are named, in the engines; returns the exit status. */
export async function runPortability(argv: readonly string[]): Promise<number> {
  const { engines, files, isShort } = select(argv);
  const sum = { passed: 0, excepted: 0, wrong: 0 };
  for (const engine of engines) {
    // One process for all takes less time; one for each package shows more of an engine that ends too early.
    const groups = isShort ? [[...files.values()].flat()] : [...files.values()];
    for (const group of groups) {
      const { results, seconds } = await runFilesIn(engine, group, { isShort });
      for (const [name, list] of files) {
        const own = results.filter((result) => result.name.startsWith(`packages/${name}/`));
        if (list.some((file) => group.includes(file))) tell(engine, name, own, list, sum);
      }
      console.log(`${engine}: ${seconds.toFixed(1)} s of processor`);
    }
  }
  console.log(`${sum.passed} passed, ${sum.wrong} failed, ${sum.excepted} unsupported by an engine`);
  return sum.wrong === 0 ? 0 : 1;
}

/** Prints what became of a package's tests, and adds it to the sum. */
function tell(
  engine: Engine,
  name: string,
  results: readonly UnitResult[],
  files: readonly string[],
  sum: { passed: number; excepted: number; wrong: number },
): void {
  const passed = results.filter(({ status }) => status === 'passed').length;
  const left = results.filter(({ status }) => status === 'left').length;
  const { unexpected, excepted, stale } = judge(results, EXCEPTIONS[engine], files);
  sum.passed += passed;
  sum.excepted += excepted;
  sum.wrong += unexpected.length + stale.length + (passed === 0 ? 1 : 0);
  console.log(
    `${engine.padEnd(8)} ${name.padEnd(9)} ${passed} passed, ${unexpected.length + stale.length} failed, ${excepted} unsupported` +
      (left > 0 ? `, ${left} left to a longer run` : ''),
  );
  for (const { name: title, status } of results) {
    if (status === 'long') console.log(`  skipped, takes long: ${title}`);
  }
  for (const { name: title, status, why = '' } of unexpected) {
    console.log(`  ${status.toUpperCase()} ${title}\n    ${why.slice(0, 800)}`);
  }
  for (const line of stale) console.log(`  STALE ${line}`);
}

const isEngine = (word: string): boolean => ENGINES.some((name) => name === word);
