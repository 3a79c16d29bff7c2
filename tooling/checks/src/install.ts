/**
 * Tries the packages as a stranger gets them: publishes all to a registry on loopback, and installs each in an empty
 * folder outside the repository. There it compares the installed tree with what is expected, type-checks a program as
 * a strict project does, and runs it as TypeScript, as an ES module and by `require`.
 *
 * Words on the command line choose projects by what they install: `install.ts @virtio/blk+@virtio/linux`. The tree of that pair is packed into
 * `.cache/installed`, without what only people and compilers read and without koffi, which guests have; `--keep FILE` copies it, and
 * installs the pair only if that was not done with the same files.
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import ts from 'typescript';
import { contentHash, expectedTree, expectsNodeTypes, installedTree } from './install-tree.ts';
import { copyOutsiders } from './outsiders.ts';
import { startRegistry } from './registry.ts';
import { cache, libraries, root } from './workspace.ts';

const exec = promisify(execFile);

/** What is installed together, and what a user then writes. */
interface Project {
  readonly install: readonly string[];
  /** Conditions of `exports` under which the program runs. */
  readonly conditions?: readonly string[];
  /** Statements for a module that has `all`, the namespaces of the installed packages. */
  readonly program: string;
  /** Statements of a module in TypeScript, type-checked and run. */
  readonly typescript: string;
}

/** The pair of the README: listing reads sysfs only, no device is opened. */
const DISK: Project = {
  install: ['@virtio/blk', '@virtio/linux'],
  program: `
    const [{ VirtioBlk, BlkFeatures }, { listDevices, openDriver }] = all;
    if (typeof openDriver !== 'function' || typeof VirtioBlk !== 'function') throw new Error('exports are missing');
    console.log('works', BlkFeatures !== undefined, Array.isArray(listDevices()));`,
  typescript: `
import { VirtioBlk, type BlkOptions } from '@virtio/blk';
import { listDevices, openDriver } from '@virtio/linux';

const options: BlkOptions = { queues: 1 };
export async function firstSector(device: string): Promise<Uint8Array> {
  using blk = openDriver(VirtioBlk, device, options);
  const sector = new Uint8Array(512);
  await blk.read(0, sector);
  return sector;
}
// @ts-expect-error: an option that does not exist is refused, so the types are there
export const wrong: BlkOptions = { queue: 1 };
console.log('works', true, Array.isArray(listDevices()), firstSector.length);
`,
};

/** One package alone: everything that it exports is there, and none of it is \`any\`. */
function alone(name: string): Project {
  return {
    install: [name],
    program: `
    const names = Object.keys(all[0]);
    if (names.length === 0) throw new Error('nothing is exported');
    console.log('works', names.length);`,
    typescript: `
import * as all from '${name}';
type IsAny<T> = 0 extends 1 & T ? true : false;
type Anys = { [Name in keyof typeof all]: IsAny<(typeof all)[Name]> extends true ? Name : never }[keyof typeof all];
const none: [Anys] extends [never] ? 'typed' : Anys = 'typed';
console.log('works', Object.keys(all).length, none);
`,
  };
}

/** The build without texts: of an error its code is left, and where to read of it. */
const TERSE: Project = {
  install: ['@virtio/core'],
  conditions: ['virtio-terse'],
  program: `
    const [{ forThreads }] = all;
    try {
      forThreads(-1);
    } catch ({ message }) {
      console.log(message === 'INVALID_PARAM (see @virtio/core/errors.md#invalid_param)' ? 'works' : message);
    }`,
  typescript: `
import { forThreads } from '@virtio/core';
console.log('works', forThreads(1).count);
`,
};

const parsed = new Map<string, ts.SourceFile | undefined>();

/** Type-checks `files` as a strict project with the given resolution, declarations of libraries included. */
function typeErrors(
  folder: string,
  file: string,
  resolution: 'node16' | 'bundler',
  types: string[],
): string[] {
  const { options } = ts.convertCompilerOptionsFromJson(
    {
      target: 'es2024',
      lib: ['es2024', 'esnext.disposable'],
      types,
      typeRoots: [path.join(folder, 'node_modules/@types')],
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      skipDefaultLibCheck: true,
      module: resolution === 'node16' ? 'node16' : 'esnext',
      moduleResolution: resolution,
    },
    folder,
  );
  const host = ts.createCompilerHost(options);
  const getSourceFile = host.getSourceFile.bind(host);
  // The libraries of TypeScript are the same for all.
  host.getSourceFile = (name, ...rest) => {
    if (!/\/lib\.[^/]*\.d\.ts$/.test(name)) return getSourceFile(name, ...rest);
    if (!parsed.has(name)) parsed.set(name, getSourceFile(name, ...rest));
    return parsed.get(name);
  };
  const program = ts.createProgram([path.join(folder, file)], options, host);
  return ts.getPreEmitDiagnostics(program).map((found) => {
    const where = found.file === undefined ? '' : `${path.relative(folder, found.file.fileName)}: `;
    return `${resolution}: ${where}${ts.flattenDiagnosticMessageText(found.messageText, '\n')} (TS${found.code})`;
  });
}

/** A console for TypeScript without Node.js's types: the packages must not need any. */
const CONSOLE = 'declare const console: { log(...values: unknown[]): void };\n';

async function problemsOf(
  { install, conditions = [], program, typescript }: Project,
  folder: string,
  npm: string[],
): Promise<string[]> {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  // A package for Node.js says that its types go with those of Node.js, which such a project in TypeScript has.
  const node = expectsNodeTypes(install);
  await exec('npm', ['install', ...npm, ...install, ...(node ? ['@types/node@24'] : [])], { cwd: folder });

  const problems: string[] = [];
  const installed = installedTree(folder);
  const expected = expectedTree(install);
  for (const name of installed) {
    if (!expected.includes(name)) problems.push(`${name} is installed, but not expected`);
  }
  for (const name of expected) if (!installed.includes(name)) problems.push(`${name} is missing`);

  const names = install.map((name) => `'${name}'`).join(', ');
  const files = {
    'index.ts': (node ? '' : CONSOLE) + typescript,
    'index.mjs': `const all = await Promise.all([${names}].map((name) => import(name)));\n${program}\n`,
    'index.cjs': `const all = [${names}].map((name) => require(name));\n${program}\n`,
  };
  for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, file), text);
  for (const resolution of ['node16', 'bundler'] as const) {
    problems.push(...typeErrors(folder, 'index.ts', resolution, node ? ['node'] : []));
  }
  const flags = conditions.map((condition) => `--conditions=${condition}`);
  await Promise.all(
    Object.keys(files).map(async (file) => {
      try {
        const { stdout, stderr } = await exec(process.execPath, [...flags, file], {
          cwd: folder,
          timeout: 60_000,
        });
        if (!stdout.startsWith('works')) problems.push(`${file} printed "${stdout.trim()}"`);
        if (stderr !== '') problems.push(`${file} warned: ${stderr.trim()}`);
      } catch (error) {
        problems.push(`${file}: ${String(error)}`);
      }
    }),
  );
  return problems;
}

/** What is left out of the packed tree. */
const UNREAD = [
  'src',
  'examples',
  '*.d.ts',
  '*.map',
  '*.md',
  'terse.js',
  '@types',
  'undici-types',
  'koffi',
  '@koromix',
];
const packed = path.join(cache, 'installed', `${contentHash(expectedTree(DISK.install))}.tar.gz`);

async function pack(folder: string): Promise<void> {
  fs.rmSync(path.dirname(packed), { recursive: true, force: true });
  fs.mkdirSync(path.dirname(packed), { recursive: true });
  const whole = `${packed}.part`;
  await exec('tar', [
    '-czf',
    whole,
    ...UNREAD.map((name) => `--exclude=${name}`),
    '-C',
    folder,
    'node_modules',
  ]);
  fs.renameSync(whole, packed);
}

const { values, positionals: words } = parseArgs({
  options: { keep: { type: 'string' } },
  allowPositionals: true,
});
if (values.keep !== undefined && fs.existsSync(packed)) {
  fs.copyFileSync(packed, values.keep);
  process.exit();
}
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'virtio-install-'));
const registry = await startRegistry(path.join(work, 'registry'));
try {
  // The very step of a release, to another registry. The token is any: this registry knows nobody.
  const npmrc = path.join(work, 'npmrc');
  fs.writeFileSync(npmrc, `//${new URL(registry.url).host}/:_authToken=nobody\n`);
  const env = { ...process.env, NPM_CONFIG_USERCONFIG: npmrc };
  const publish = async (cwd: string, ...options: string[]): Promise<void> => {
    const args = [...options, 'publish', '--no-git-checks', '--registry', registry.url];
    await exec('pnpm', args, { cwd, env, maxBuffer: 1 << 26 });
  };
  const all = [DISK, TERSE, ...libraries().map(({ name }) => alone(name))];
  const projects = all.filter(({ install }) => words.length === 0 || words.includes(install.join('+')));
  const ours = new Set(projects.flatMap(({ install }) => expectedTree(install)));
  const published = libraries().filter(({ name }) => ours.has(name));
  await publish(root, '-r', ...published.flatMap(({ name }) => ['--filter', name]));
  // What others wrote comes from this very installation, as our lockfile has it.
  copyOutsiders(path.join(work, 'outsiders'));
  await publish(path.join(work, 'outsiders'), '-r', '--ignore-scripts');

  const npm = [
    '--registry',
    registry.url,
    '--cache',
    path.join(work, 'npm-cache'),
    '--no-audit',
    '--no-fund',
  ];
  let failed = 0;
  const next = projects.entries();
  const worker = async (): Promise<void> => {
    for (const [index, project] of next) {
      const folder = path.join(work, `project-${index}`);
      let problems: string[];
      try {
        problems = await problemsOf(project, folder, npm);
      } catch (error) {
        problems = [String(error)];
      }
      const tree = fs.existsSync(path.join(folder, 'node_modules')) ? installedTree(folder).join(' ') : '';
      console.log(`${problems.length === 0 ? 'ok' : 'FAILED'}  ${project.install.join(' + ')}: ${tree}`);
      for (const problem of problems) console.error(`  ${problem}`);
      if (problems.length > 0) failed += 1;
      else if (project === DISK) await pack(folder);
    }
  };
  await Promise.all([worker(), worker()]);
  console.log(`${projects.length} projects installed and tried, ${failed} failed`);
  if (values.keep !== undefined) fs.copyFileSync(packed, values.keep);
  if (failed > 0 || projects.length < (words.length === 0 ? 17 : 1)) process.exitCode = 1;
} finally {
  registry.close();
  fs.rmSync(work, { recursive: true, force: true });
}
process.exit();
