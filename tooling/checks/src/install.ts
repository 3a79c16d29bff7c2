/**
 * Tries the packages as a stranger gets them: publishes all to a registry on loopback, and installs each in an empty
 * folder outside the repository, alone, and each device together with `linux`. There it compares the installed tree with what is expected,
 * type-checks a program as a strict project does, and runs it as TypeScript, as an ES module and by `require`.
 *
 * Words on the command line choose projects by what they install: `install.ts @virtio/blk+@virtio/linux`. The tree of each pair is packed into
 * `.cache/installed`, without what only people and compilers read and without koffi, which guests have. `--missing` tries only pairs
 * whose tree is not there as it is built now.
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import ts from 'typescript';
import { contentHash, expectedTree, expectsNodeTypes, installedTree, treeProblems } from './install-tree.ts';
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

/** A driver and the package that opens its device: no such device is there, which both of them must agree on. */
function onLinux(name: string, driver: string): Project {
  return {
    install: [name, '@virtio/linux'],
    program: `
    const [{ ${driver} }, { openDriver }] = all;
    try {
      openDriver(${driver}, '0000:ff:1f.7');
    } catch (error) {
      console.log(error.code === 'NO_DEVICE' ? 'works' : error);
    }`,
    typescript: `
import { ${driver} } from '${name}';
import { openDriver } from '@virtio/linux';

export const open = (address: string): ${driver} => openDriver(${driver}, address);
// @ts-expect-error: an option that does not exist is refused, so the types are there
export const wrong = (address: string): ${driver} => openDriver(${driver}, address, { noSuchOption: 1 });
try {
  open('0000:ff:1f.7');
} catch (error) {
  console.log(error instanceof Error && 'code' in error && error.code === 'NO_DEVICE' ? 'works' : error);
}
`,
  };
}

/** The drivers of devices, each with its package: what \`src/virtio-NAME.ts\` exports. */
function drivers(): [string, string][] {
  return libraries().flatMap(({ name, folder }): [string, string][] => {
    const file = path.join(folder, 'src', `${name.replace('@virtio/', 'virtio-')}.ts`);
    if (!fs.existsSync(file)) return [];
    const driver = /^export class (\w+)/m.exec(fs.readFileSync(file, 'utf8'))?.[1];
    if (driver === undefined) throw new Error(`${file} exports no class`);
    return [[name, driver]];
  });
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

/** A folder with what was installed there. */
interface Installed {
  readonly project: Project;
  readonly folder: string;
  /** Whether the types of Node.js are there. */
  readonly node: boolean;
  /** The names of all packages. */
  readonly tree: readonly string[];
  readonly problems: string[];
}

/**
 * Type-checks the programs as a strict project does, declarations of libraries included. One program has all of them, as to bind and check what
 * they have in common once takes a tenth of the time. Where a package is in several folders, TypeScript takes the first for all; those with the
 * fewest packages come first, so that it is the one where a package has only what it brings itself.
 */
function typeCheck(installed: readonly Installed[], resolution: 'node16' | 'bundler'): void {
  const [first] = installed;
  if (first === undefined) return;
  const { options } = ts.convertCompilerOptionsFromJson(
    {
      target: 'es2024',
      lib: ['es2024', 'esnext.disposable'],
      types: first.node ? ['node'] : [],
      typeRoots: [path.join(first.folder, 'node_modules/@types')],
      strict: true,
      noEmit: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      skipDefaultLibCheck: true,
      module: resolution === 'node16' ? 'node16' : 'esnext',
      moduleResolution: resolution,
    },
    first.folder,
  );
  const program = ts.createProgram(
    installed.map(({ folder }) => path.join(folder, 'index.ts')),
    options,
  );
  for (const { file, messageText, code } of ts.getPreEmitDiagnostics(program)) {
    const where = installed.find(({ folder }) => file?.fileName.startsWith(`${folder}/`) === true) ?? first;
    const name = file === undefined ? '' : `${path.relative(where.folder, file.fileName)}: `;
    where.problems.push(
      `${resolution}: ${name}${ts.flattenDiagnosticMessageText(messageText, '\n')} (TS${code})`,
    );
  }
}

/** A console for TypeScript without Node.js's types: the packages must not need any. */
const CONSOLE = 'declare const console: { log(...values: unknown[]): void };\n';

/** Installs a project in a folder that is not there yet, and runs its programs. */
async function tryProject(project: Project, folder: string, npm: string[]): Promise<Installed> {
  const { install, conditions = [], program, typescript } = project;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true, "type": "module" }\n');
  // A package for Node.js says that its types go with those of Node.js, which such a project in TypeScript has.
  const node = expectsNodeTypes(install);
  await exec('npm', ['install', ...npm, ...install, ...(node ? ['@types/node@24'] : [])], { cwd: folder });

  const tree = installedTree(folder);
  const problems = treeProblems(tree, expectedTree(install));

  const names = install.map((name) => `'${name}'`).join(', ');
  const files = {
    'index.ts': (node ? '' : CONSOLE) + typescript,
    'index.mjs': `const all = await Promise.all([${names}].map((name) => import(name)));\n${program}\n`,
    'index.cjs': `const all = [${names}].map((name) => require(name));\n${program}\n`,
  };
  for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, file), text);
  const flags = conditions.map((condition) => `--conditions=${condition}`);
  await Promise.all(
    Object.keys(files).map(async (file) => {
      try {
        const { stdout, stderr } = await exec(process.execPath, [...flags, file], {
          cwd: folder,
          timeout: 300_000,
        });
        if (!stdout.startsWith('works')) problems.push(`${file} printed "${stdout.trim()}"`);
        if (stderr !== '') problems.push(`${file} warned: ${stderr.trim()}`);
      } catch (error) {
        problems.push(`${file}: ${String(error)}`);
      }
    }),
  );
  return { project, folder, node, tree, problems };
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
const trees = path.join(cache, 'installed');

/** The packed tree of a pair: `blk-HASH.tar.gz`. */
function packed([name = '', ...others]: readonly string[]): string {
  const short = name.replace('@virtio/', '');
  return path.join(trees, `${short}-${contentHash(expectedTree([name, ...others]))}.tar.gz`);
}

/** Packs the tree of a pair, in place of one of other files. */
async function pack({ project: { install }, folder }: Installed): Promise<void> {
  const whole = packed(install);
  const name = path.basename(whole).replace(/-\w+\.tar\.gz$/, '');
  fs.mkdirSync(trees, { recursive: true });
  for (const file of fs.readdirSync(trees)) {
    if (file.startsWith(`${name}-`)) fs.rmSync(path.join(trees, file));
  }
  const part = `${whole}.part`;
  const without = UNREAD.map((one) => `--exclude=${one}`);
  await exec('tar', ['-czf', part, ...without, '-C', folder, 'node_modules']);
  fs.renameSync(part, whole);
}

const { values, positionals: words } = parseArgs({
  options: { missing: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const pairs = [
  DISK,
  ...drivers()
    .filter(([name]) => !DISK.install.includes(name))
    .map(([name, driver]) => onLinux(name, driver)),
];
const all = values.missing
  ? pairs.filter(({ install }) => !fs.existsSync(packed(install)))
  : [...pairs, TERSE, ...libraries().map(({ name }) => alone(name))];
const projects = all.filter(({ install }) => words.length === 0 || words.includes(install.join('+')));
if (values.missing && projects.length === 0) process.exit();
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
  const installed: Installed[] = [];
  const next = projects.entries();
  const worker = async (): Promise<void> => {
    for (const [index, project] of next) {
      const folder = path.join(work, `project-${index}`);
      try {
        installed.push(await tryProject(project, folder, npm));
      } catch (error) {
        installed.push({ project, folder, node: false, tree: [], problems: [String(error)] });
      }
    }
  };
  await Promise.all([worker(), worker()]);
  installed.sort((a, b) => a.tree.length - b.tree.length);
  for (const node of [false, true]) {
    const checked = installed.filter((each) => each.node === node && each.tree.length > 0);
    for (const resolution of ['node16', 'bundler'] as const) typeCheck(checked, resolution);
  }
  let failed = 0;
  for (const one of installed) {
    const { project, tree, problems } = one;
    console.log(
      `${problems.length === 0 ? 'ok' : 'FAILED'}  ${project.install.join(' + ')}: ${tree.join(' ')}`,
    );
    for (const problem of problems) console.error(`  ${problem}`);
    if (problems.length > 0) failed += 1;
    else if (pairs.includes(project)) await pack(one);
  }
  console.log(`${projects.length} projects installed and tried, ${failed} failed`);
  if (failed > 0 || projects.length < (values.missing || words.length > 0 ? 1 : 30)) process.exitCode = 1;
} finally {
  registry.close();
  fs.rmSync(work, { recursive: true, force: true });
}
process.exit();
