// What npm's scripts start. Runs on the Node.js that happens to be there (20 or later) and without any dependency:
// makes pnpm, Node.js 24 and the workspace ready, then runs what was asked on Node.js 24, from the sources.
import path from 'node:path';
import { prepare, root } from './install.mjs';
import { SetupError } from './machine.mjs';
import { run } from './processes.mjs';
import { USAGE } from './usage.mjs';

const harness = 'apps/qemu-harness/src/main.ts';
const checks = 'tooling/checks/src';

/** @type {Partial<Record<string, { file: string, args?: string[] }>>} */
const commands = {
  start: { file: harness, args: ['start'] },
  guest: { file: harness, args: ['guest'] },
  test: { file: `${checks}/test.ts` },
  bench: { file: `${checks}/bench.ts` },
  docs: { file: `${checks}/docs.ts` },
  api: { file: `${checks}/api.ts` },
  fuzz: { file: 'packages/core/fuzz/main.ts' },
};

/** @param {readonly string[]} words */
async function main([name = '', ...args]) {
  const bare = name === 'guest' && args.slice(0, scriptAt(args)).some((word) => word.startsWith('--bare'));
  const drivers = name === 'fuzz' && args.some((word) => word.startsWith('--driver'));
  const command = drivers
    ? { file: 'packages/testing/fuzz/main.ts' }
    : bare
      ? { file: 'apps/bare-guest/src/main.ts', args: ['guest'] }
      : commands[name];
  if (command === undefined && name !== 'pnpm' && name !== 'exec') {
    throw new SetupError(`No command "${name}". There are: ${Object.keys(commands).join(', ')}, pnpm, exec.`);
  }
  const usage = Object.entries(USAGE).find(([of]) => of === name)?.[1];
  // What stands behind a script's name is the script's.
  const options = name === 'guest' ? args.slice(0, 1) : args;
  if (usage !== undefined && options.some((word) => word === '--help' || word === '-h')) {
    console.log(usage);
    return 0;
  }
  // pnpm itself must work while package.json and the lockfile do not agree: that is what it is called for.
  const { node, pnpm, env } = await prepare({ workspace: name !== 'pnpm' });
  if (name === 'pnpm') return run(pnpm, args, { cwd: root, env });
  if (command === undefined) return run(args[0] ?? 'node', args.slice(1), { cwd: root, env });
  // A user's own paths mean the folder they stand in; npm runs its scripts in the root and leaves that in INIT_CWD.
  const cwd = name === 'guest' ? (process.env.INIT_CWD ?? process.cwd()) : root;
  const file = path.join(root, command.file);
  return run(node, ['--conditions=@virtio/source', file, ...(command.args ?? []), ...args], { cwd, env });
}

/** Where the script's name is among the arguments of `guest`: what follows it is the script's own. @param {readonly string[]} words */
function scriptAt(words) {
  const at = words.findIndex((word) => /\.[cm]?[jt]s$/.test(word));
  return at < 0 ? words.length : at;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`\nset-up: ${error.message}`);
  process.exitCode = 1;
}
