// The two things every command needs: pnpm at the exact version of package.json, and the workspace installed by it.
// Each is done once, in a way that an interruption leaves either nothing or something that the next run resumes.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './lock.mjs';
import { SetupError, checkMachine } from './machine.mjs';
import { childEnvironment, run } from './processes.mjs';

export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
const cache = path.join(root, '.cache');
const stamp = path.join(cache, 'install-stamp');

/**
 * Makes the tools ready; takes well under a second when they are.
 *
 * @param {{ workspace: boolean }} wanted whether the workspace's dependencies are wanted, or pnpm is enough
 * @returns {Promise<{ node: string, pnpm: string, env: NodeJS.ProcessEnv }>} the paths of Node.js 24 and pnpm, and
 *   an environment with both on its PATH
 */
export async function prepare({ workspace }) {
  const nodePackage = checkMachine();
  const node = path.join(root, 'node_modules', nodePackage, 'bin/node');
  const version = pnpmVersion();
  const home = path.join(cache, `pnpm-${version}`);
  const pnpm = path.join(home, 'node_modules/.bin/pnpm');
  const env = childEnvironment([path.join(root, 'node_modules/.bin'), path.dirname(pnpm)]);

  const havePnpm = () => fs.existsSync(pnpm);
  const haveWorkspace = () => !workspace || (fs.existsSync(node) && isInstalled());
  if (!havePnpm() || !haveWorkspace()) {
    fs.mkdirSync(cache, { recursive: true });
    const onWait = () => say('another set-up is running in this folder: waiting for it');
    await withLock(path.join(cache, 'setup.lock'), onWait, async () => {
      if (!havePnpm()) await step(`pnpm ${version}`, () => installPnpm(version, home, env));
      if (!haveWorkspace()) {
        await step('Node.js 24, the tools and the libraries', () => installWorkspace(pnpm, env));
        if (!fs.existsSync(node)) {
          throw new SetupError(`pnpm did not install ${path.relative(root, node)}; run the command again.`);
        }
      }
    });
  }
  return { node, pnpm, env };
}

/**
 * @param {string} version
 * @param {string} home
 * @param {NodeJS.ProcessEnv} env
 */
async function installPnpm(version, home, env) {
  for (const name of fs.readdirSync(cache)) {
    if (name.startsWith('pnpm-')) fs.rmSync(path.join(cache, name), { recursive: true, force: true });
  }
  const fresh = `${home}.${process.pid}`;
  fs.mkdirSync(fresh);
  fs.writeFileSync(path.join(fresh, 'package.json'), '{ "private": true }\n');
  // Without a network npm's own patience is ten minutes and more.
  const patience = ['--fetch-retries=2', '--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=5000'];
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
  const args = ['install', '--prefix', fresh, ...quiet, ...patience, `pnpm@${version}`];
  // npm's own script, where npm started us: the npm on the PATH may be another.
  const npm = process.env.npm_execpath;
  const status = npm?.endsWith('npm-cli.js')
    ? await run(process.execPath, [npm, ...args], { cwd: fresh, env })
    : await run('npm', args, { cwd: fresh, env });
  if (status !== 0) {
    fs.rmSync(fresh, { recursive: true, force: true });
    throw new SetupError(
      `npm could not install pnpm ${version} (status ${status}); see its message above. ` +
        'The first set-up needs a network connection.',
    );
  }
  fs.renameSync(fresh, home);
}

/**
 * @param {string} pnpm
 * @param {NodeJS.ProcessEnv} env
 */
async function installWorkspace(pnpm, env) {
  fs.rmSync(stamp, { force: true });
  const args = ['install', '--frozen-lockfile', '--prefer-offline', '--config.confirm-modules-purge=false'];
  const status = await run(pnpm, args, { cwd: root, env });
  if (status !== 0) {
    throw new SetupError(
      `pnpm install failed (status ${status}); see its message above. After a change of dependencies, ` +
        '`npm run pnpm -- install` brings the lockfile up to date.',
    );
  }
  fs.writeFileSync(`${stamp}.new`, workspaceState());
  fs.renameSync(`${stamp}.new`, stamp);
}

function isInstalled() {
  return (
    fs.existsSync(stamp) &&
    fs.readFileSync(stamp, 'utf8') === workspaceState() &&
    projects()
      .filter(hasDependencies)
      .every((project) => fs.existsSync(path.join(root, project, 'node_modules')))
  );
}

/** A name for all that decides what `pnpm install` would do. */
function workspaceState() {
  const hash = createHash('sha256').update(`${root} ${process.arch}`);
  const files = ['pnpm-lock.yaml', 'pnpm-workspace.yaml', 'package.json', '.npmrc'];
  for (const file of [...files, ...projects().map((project) => `${project}/package.json`)]) {
    hash.update(`\n${file}\n`).update(fs.readFileSync(path.join(root, file)));
  }
  return hash.digest('hex');
}

/** The folders of the workspace's packages, from the root. */
function projects() {
  return ['packages', 'apps', 'tooling']
    .flatMap((folder) => fs.readdirSync(path.join(root, folder)).map((name) => `${folder}/${name}`))
    .filter((project) => fs.existsSync(path.join(root, project, 'package.json')))
    .sort();
}

/** @param {string} project */
function hasDependencies(project) {
  const manifest = JSON.parse(fs.readFileSync(path.join(root, project, 'package.json'), 'utf8'));
  return manifest.dependencies !== undefined || manifest.devDependencies !== undefined;
}

function pnpmVersion() {
  const { packageManager } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const version = /^pnpm@([\d.]+)$/.exec(packageManager)?.[1];
  if (version === undefined) {
    throw new SetupError(`package.json's packageManager is "${packageManager}", not "pnpm@<version>".`);
  }
  return version;
}

/** @param {string} text */
function say(text) {
  console.error(`set-up: ${text}`);
}

/**
 * @param {string} what
 * @param {() => Promise<void>} work
 */
async function step(what, work) {
  say(`${what} …`);
  const start = performance.now();
  await work();
  say(`${what}: done in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
