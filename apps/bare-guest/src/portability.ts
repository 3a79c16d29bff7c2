/**
 * Runs the unit tests of the portable packages in other engines than Node.js: QuickJS, the one of bare guests,
 * Deno and Bun. What an engine cannot do is listed by name below; a test that fails and is not listed is a failure.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';
import { build } from 'esbuild';
import { tryRun } from '@virtio/qemu-harness/src/run.ts';
import { REPO_DIR } from '@virtio/qemu-harness/src/paths.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { ensureUnpacked } from '@virtio/qemu-harness/src/setup/unpacked-program.ts';
import type { FileResult } from '../guest/unit/vitest.ts';
import { bundleText } from './bundle.ts';
import { SUITE } from './packages.ts';

const GUEST = fileURLToPath(new URL('../guest', import.meta.url));
const MARK = '\x1e';
const LIMIT_MS = 300_000;

/** Engines by name. Node.js is the measure of the runner itself. */
export const ENGINES = ['quickjs', 'deno', 'bun', 'node'] as const;
export type Engine = (typeof ENGINES)[number];

/** What an engine cannot do: how the names of tests begin, `path > describe > title`, and why. */
const KNOWN: Readonly<Partial<Record<Engine, Readonly<Record<string, string>>>>> = {
  quickjs: {
    'packages/blk/src/input.test.ts > what VirtioBlk refuses > refuses a buffer whose memory was given away':
      'there is no ArrayBuffer.prototype.transfer',
    'packages/blk/src/queue-for.test.ts > a queue for another thread':
      'there are no threads, and no structuredClone, which is no part of ECMAScript',
    'packages/pci/src/device-function.test.ts > DeviceFunction > prints as Linux prints it':
      "there is no inspect of Node.js's",
    'packages/9p/src/v86.test.ts': 'there is no WebAssembly, which v86 is made of',
    'packages/console/src/v86.test.ts': 'there is no WebAssembly, which v86 is made of',
    'packages/core/src/device/device-status.test.ts > DeviceStatus > prints by name':
      "there is no inspect of Node.js's",
    'packages/core/src/device/driver.test.ts > events and failures > is not disturbed by a listener that throws':
      'it does not tell of rejections that nobody handles',
    'packages/files/src/errno.test.ts > (loading the file)': 'it compares with what Node.js knows of Linux',
    'packages/input/src/event-codes.test.ts > (loading the file)':
      "it starts a compiler, to compare with Linux's headers",
  },
};

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

/** QuickJS, the one that bare guests have, as a program; unpacked, never installed, with the C library that it was made for. */
const QUICKJS = { package: 'quickjs', path: 'usr/bin/qjs', suite: SUITE, libraries: ['libc6'] } as const;

/** Bundles test files for an engine, and the command that runs the bundle. */
async function prepare(
  engine: Engine,
  files: readonly string[],
  outfile: string,
): Promise<readonly [string, ...string[]]> {
  const alias = { vitest: join(GUEST, 'unit/vitest.ts') };
  if (engine === 'quickjs') {
    const script = await bundleText(entryText(files), {
      resolveDir: GUEST,
      prelude: join(GUEST, 'unit/hosted.ts'),
      alias,
      external: ['os'],
    });
    writeFileSync(outfile, script);
    const [program = 'qjs', ...args] = await ensureUnpacked(QUICKJS, console.log);
    // Errors of listeners become rejections that nobody handles, and tests cause such.
    return [program, ...args, '--stack-size', '4M', '--no-unhandled-rejection', '--module', outfile];
  }
  await build({
    stdin: { contents: entryText(files), resolveDir: GUEST, loader: 'ts' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'es2024',
    conditions: ['@virtio/source'],
    nodePaths: [join(GUEST, '../node_modules')],
    alias,
    keepNames: true,
    logLevel: 'silent',
  });
  const [program, ...args] = commandOf(engine);
  return [program, ...args, outfile];
}

async function runFilesIn(engine: Engine, files: readonly string[]): Promise<FileResult[]> {
  const directory = mkdtempSync(join(tmpdir(), 'virtio-unit-'));
  try {
    const [program, ...args] = await prepare(engine, files, join(directory, 'tests.mjs'));
    const results: FileResult[] = [];
    const { status, stdout, stderr } = await tryRun(program, args, { timeoutMs: LIMIT_MS });
    for (const line of stdout.split('\n')) {
      if (line.startsWith(MARK)) results.push(JSON.parse(line.slice(1)) as FileResult);
    }
    const missing = files.length - results.length;
    if (status !== 0 || missing > 0) {
      results.push(broken(`status ${status}, ${missing} files without a result: ${stderr.slice(0, 500)}`));
    }
    return results;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function commandOf(engine: Exclude<Engine, 'quickjs'>): readonly [string, ...string[]] {
  if (engine === 'node') return [process.execPath];
  const name = engine === 'deno' ? '@deno/linux-x64-glibc' : '@oven/bun-linux-x64';
  let folder: string;
  try {
    folder = join(createRequire(import.meta.url).resolve(`${name}/package.json`), '..');
  } catch {
    throw new HarnessError('MISSING_PACKAGES', `${name} is not installed; it is only available for x64.`);
  }
  return engine === 'deno'
    ? [join(folder, 'deno'), 'run', '--quiet', '--allow-all']
    : [join(folder, 'bin/bun')];
}

const broken = (why: string): FileResult => ({
  file: '(the engine)',
  passed: 0,
  leftOut: [],
  failed: [{ name: 'ends well', why }],
});

/** What takes seconds: a share for each change. */
const SHORT: readonly string[] = ['quickjs', 'deno', 'bun', 'mmio', 'pci', 'pci-x86', 'bare'];

/** Runs the tests of all packages, or of those that are named, in the engines; returns the exit status. */
export async function runPortability(argv: readonly string[]): Promise<number> {
  const words = argv.flatMap((word) => (word === '--short' ? SHORT : [word]));
  const all = portablePackages();
  const unknown = words.find((word) => !isEngine(word) && !all.includes(word));
  if (unknown !== undefined) {
    throw new HarnessError(
      'BAD_ARGUMENTS',
      `${unknown} is neither an engine (${ENGINES.join(', ')}) nor a package that runs in any (${all.join(', ')}).`,
    );
  }
  const engines = words.some(isEngine) ? ENGINES.filter((name) => words.includes(name)) : ENGINES;
  const names = words.every(isEngine) ? all : all.filter((name) => words.includes(name));
  const sum = { passed: 0, known: 0, wrong: 0 };
  for (const engine of engines) {
    const known = Object.keys(KNOWN[engine] ?? {});
    for (const name of names) {
      const results = await runFilesIn(engine, testFiles(name));
      const passed = results.reduce((total, result) => total + result.passed, 0);
      const failed = results.flatMap(({ file, failed: list }) =>
        list.map((one) => ({ ...one, name: `${file} > ${one.name}` })),
      );
      const surprising = failed.filter((one) => !known.some((title) => one.name.startsWith(title)));
      // What an engine has learnt is taken off the list.
      const learnt = known.filter(
        (title) => title.startsWith(`packages/${name}/`) && !failed.some((one) => one.name.startsWith(title)),
      );
      sum.passed += passed;
      sum.known += failed.length - surprising.length;
      sum.wrong += surprising.length + learnt.length + (passed === 0 ? 1 : 0);
      console.log(
        `${engine.padEnd(8)} ${name.padEnd(9)} ${passed} passed, ${surprising.length} failed, ` +
          `${failed.length - surprising.length} unsupported`,
      );
      for (const { file, leftOut } of results) {
        for (const title of leftOut) console.log(`  skipped, takes minutes: ${file} > ${title}`);
      }
      for (const { name: title, why } of surprising) {
        console.log(`  FAILED ${title}\n    ${why.slice(0, 500)}`);
      }
      for (const title of learnt) console.log(`  passes, but is listed as unsupported: ${title}`);
    }
  }
  console.log(`${sum.passed} passed, ${sum.wrong} failed, ${sum.known} unsupported by an engine`);
  return sum.wrong === 0 ? 0 : 1;
}

const isEngine = (word: string): boolean => ENGINES.some((name) => name === word);
