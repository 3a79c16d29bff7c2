// Children of the set-up: started with our terminal, ended with us, their exit status passed on.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';

const FORWARDED = /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP']);

/**
 * Runs a program with this process's terminal and waits for its end.
 *
 * Ctrl-C reaches a child by itself where there is a terminal (the whole foreground group gets it), so it is
 * only waited for; any other signal is handed on.
 *
 * @param {string} file
 * @param {readonly string[]} args
 * @param {import('node:child_process').SpawnOptions} [options]
 * @param {(chunk: Buffer) => void} [output] gets what it prints, if `stdio` says so
 * @returns {Promise<number>} its exit status; 128 + the signal's number if a signal ended it
 */
export async function run(file, args, options = {}, output) {
  const child = spawn(file, args, { stdio: 'inherit', ...options });
  if (output !== undefined) for (const stream of [child.stdout, child.stderr]) stream?.on('data', output);
  const handlers = FORWARDED.map((signal) => {
    const handler = () => {
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  try {
    return await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) =>
        resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
      );
    });
  } finally {
    for (const off of handlers) off();
  }
}

/**
 * Runs a program beside others: what it prints appears when it has ended, in one piece.
 *
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ status: number, printed: string }>} its exit status (128 + the signal's number if a signal ended it), and what
 * it printed
 */
export async function runBeside(file, args, options = {}) {
  /** @type {Buffer[]} */
  const printed = [];
  try {
    const status = await run(file, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] }, (chunk) =>
      printed.push(chunk),
    );
    return { status, printed: Buffer.concat(printed).toString() };
  } finally {
    process.stdout.write(Buffer.concat(printed));
  }
}

/**
 * The environment for what the set-up starts: the project's tools first on the PATH, and none of the
 * variables by which npm describes the script that it runs, which would mislead another npm or pnpm.
 *
 * @param {readonly string[]} binFolders
 * @returns {NodeJS.ProcessEnv}
 */
export function childEnvironment(binFolders) {
  const misleading =
    /^npm_(?:package_|lifecycle_|command$|execpath$|node_execpath$|config_(?:local_prefix|global_prefix|prefix|npm_version|user_agent|noproxy|node_gyp)$)/i;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !misleading.test(name)));
  env.PATH = [...binFolders, process.env.PATH ?? ''].join(':');
  env.TURBO_TELEMETRY_DISABLED = '1';
  env.TURBO_NO_UPDATE_NOTIFIER = '1';
  return env;
}
