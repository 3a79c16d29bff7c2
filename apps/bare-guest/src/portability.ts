/**
 * Runs the unit tests of the portable packages in other engines than the one they are developed in: QuickJS with no operating
 * system, Deno and Bun. What an engine cannot do is listed by name below; a test that fails and is not listed is a failure.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';
import { build } from 'esbuild';
import { lineSplitter, tryRun } from '@virtio/qemu-harness/src/run.ts';
import { REPO_DIR } from '@virtio/qemu-harness/src/paths.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import type { FileResult } from '../guest/unit/vitest.ts';
import { bundleText } from './bundle.ts';
import { ensureBareImage } from './image.ts';
import { machineFor } from './machines.ts';
import { ensureEmulators } from './packages.ts';
import { BareGuest } from './qemu.ts';

const GUEST = fileURLToPath(new URL('../guest', import.meta.url));
const MARK = '\x1e';
const LIMIT_MS = 300_000;

/** Engines by name. Node.js is the measure of the runner itself. */
export const ENGINES = ['quickjs', 'deno', 'bun', 'node'] as const;
export type Engine = (typeof ENGINES)[number];

/** What an engine cannot do: `package/file > title of a test`, and why. */
const KNOWN: Readonly<Partial<Record<Engine, Readonly<Record<string, string>>>>> = {};

/** Packages that touch nothing outside ECMAScript, as their type check says. */
function portablePackages(): string[] {
  const folder = join(REPO_DIR, 'packages');
  return readdirSync(folder).filter((name) => {
    const manifest = JSON.parse(readFileSync(join(folder, name, 'package.json'), 'utf8')) as {
      scripts?: { typecheck?: string };
    };
    return manifest.scripts?.typecheck?.includes('typecheck.js') === true;
  });
}

/** The unit tests of a package. */
function testFiles(name: string): string[] {
  const folder = join(REPO_DIR, 'packages', name, 'src');
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .sort()
    .map((file) => join(folder, file));
}

const entryText = (files: readonly string[]): string =>
  [
    `import { runFiles } from 'vitest';`,
    `const files = { ${files.map((file) => `${JSON.stringify(file.slice(REPO_DIR.length + 1))}: () => import(${JSON.stringify(file)})`).join(', ')} };`,
    `await runFiles(files, (result) => console.log(${JSON.stringify(MARK)} + JSON.stringify(result)));`,
  ].join('\n');

async function inQuickJs(files: readonly string[]): Promise<FileResult[]> {
  const results: FileResult[] = [];
  const script = await bundleText(
    `import ${JSON.stringify(join(GUEST, 'suites/globals.ts'))};\n${entryText(files)}`,
    GUEST,
    [],
    '',
    { vitest: join(GUEST, 'unit/vitest.ts') },
  );
  const image = await ensureBareImage('x86_64', console.log);
  const lines: string[] = [];
  const machine = machineFor('x86_64', 'mmio-v2');
  const guest = await BareGuest.start(
    { machine, image, script, devices: [], timeoutMs: LIMIT_MS },
    { onLine: (line) => lines.push(line), onMessage: (message) => results.push(message as FileResult) },
  );
  const { status } = await guest.ended;
  if (status !== 0) results.push(broken(`status ${status ?? 'none'}: ${lines.slice(-5).join(' ')}`));
  return results;
}

async function inProgram(
  engine: Exclude<Engine, 'quickjs'>,
  files: readonly string[],
): Promise<FileResult[]> {
  const directory = mkdtempSync(join(tmpdir(), 'virtio-unit-'));
  try {
    const outfile = join(directory, 'tests.mjs');
    await build({
      stdin: { contents: entryText(files), resolveDir: GUEST, loader: 'ts' },
      outfile,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'es2024',
      conditions: ['@virtio/source'],
      nodePaths: [join(GUEST, '../node_modules')],
      alias: { vitest: join(GUEST, 'unit/vitest.ts') },
      keepNames: true,
      logLevel: 'silent',
    });
    const results: FileResult[] = [];
    const split = lineSplitter((line) => {
      if (line.startsWith(MARK)) results.push(JSON.parse(line.slice(1)) as FileResult);
    });
    const [program, ...args] = commandOf(engine);
    const { status, stdout, stderr } = await tryRun(program, [...args, outfile], { timeoutMs: LIMIT_MS });
    split(`${stdout}\n`);
    if (status !== 0) results.push(broken(`status ${status}: ${stderr.slice(-500)}`));
    return results;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function commandOf(engine: Exclude<Engine, 'quickjs'>): readonly [string, ...string[]] {
  if (engine === 'node') return [process.execPath];
  const require = createRequire(import.meta.url);
  const name = engine === 'deno' ? '@deno/linux-x64-glibc' : '@oven/bun-linux-x64';
  let folder: string;
  try {
    folder = join(require.resolve(`${name}/package.json`), '..');
  } catch {
    throw new HarnessError('MISSING_PACKAGES', `${name} is not installed: it is there for x64 alone.`);
  }
  return engine === 'deno'
    ? [join(folder, 'deno'), 'run', '--quiet', '--allow-all']
    : [join(folder, 'bin/bun')];
}

const broken = (why: string): FileResult => ({
  file: '(the engine)',
  passed: 0,
  failed: [{ name: 'ends well', why }],
});

/** Runs the tests of all packages, or of those that are named, in the engines; returns the exit status. */
export async function runPortability(words: readonly string[]): Promise<number> {
  const engines = ENGINES.filter(
    (name) => words.length === 0 || !words.some((word) => isEngine(word)) || words.includes(name),
  );
  const names = portablePackages().filter(
    (name) => words.every((word) => isEngine(word)) || words.includes(name),
  );
  if (engines.includes('quickjs')) await ensureEmulators(console.log);
  let unexpected = 0;
  for (const engine of engines) {
    const known = { ...KNOWN[engine] };
    for (const name of names) {
      const files = testFiles(name);
      if (files.length === 0) continue;
      const results = await (engine === 'quickjs' ? inQuickJs(files) : inProgram(engine, files));
      const passed = results.reduce((sum, result) => sum + result.passed, 0);
      const failed = results.flatMap(({ file, failed: list }) =>
        list.map((one) => ({ ...one, name: `${file} > ${one.name}` })),
      );
      const surprising = failed.filter((one) => known[one.name] === undefined);
      unexpected += surprising.length;
      console.log(`${engine.padEnd(8)} ${name.padEnd(9)} ${passed} passed, ${failed.length} failed`);
      for (const { name: title, why } of surprising) {
        console.log(`  FAILED ${title}\n    ${why.slice(0, 500)}`);
      }
      if (passed === 0) unexpected += 1;
    }
  }
  return unexpected === 0 ? 0 : 1;
}

const isEngine = (word: string): boolean => ENGINES.some((name) => name === word);
