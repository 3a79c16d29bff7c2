/** Runs a program of the host until it ends, and collects its output. */
import { spawn } from 'node:child_process';
import { HarnessError, type HarnessErrorCode } from './errors.ts';

/** Options of {@link run}. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each line of either stream as it comes. */
  readonly onLine?: (line: string) => void;
  /** Lets the program read the terminal, for a password. */
  readonly interactive?: boolean;
  /** Milliseconds after which the program is killed. */
  readonly timeoutMs?: number;
}

/** How a program ended. */
export interface RunResult {
  /** The exit status; 128 + n after signal n; 127 if it could not be started. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `command` and returns how it ended; never throws for a failing program. */
export async function tryRun(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { promise, resolve } = Promise.withResolvers<RunResult>();
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: 'C', ...options.env },
    stdio: [options.interactive === true ? 'inherit' : 'ignore', 'pipe', 'pipe'],
    timeout: options.timeoutMs,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  const watch = lineSplitter(options.onLine);
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    watch(text);
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    watch(text);
  });
  child.on('error', (error) => resolve({ status: 127, stdout, stderr: `${stderr}${error.message}\n` }));
  child.on('close', (code, signal) =>
    resolve({ status: code ?? (signal === null ? 1 : 137), stdout, stderr }),
  );
  return promise;
}

/** Runs `command`, and throws with its last lines unless it ends with status 0. Returns its standard output. */
export async function run(
  code: HarnessErrorCode,
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { status, stdout, stderr } = await tryRun(command, args, options);
  if (status === 0) return stdout;
  const said = lastLines(`${stdout}\n${stderr}`, 12);
  throw new HarnessError(code, `\`${[command, ...args].join(' ')}\` ended with status ${status}:\n${said}`);
}

/** The last `count` lines that are not empty. */
export function lastLines(text: string, count: number): string {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(-count)
    .join('\n');
}

/** Cuts a stream of text into lines. */
export function lineSplitter(onLine: ((line: string) => void) | undefined): (text: string) => void {
  let rest = '';
  return (text) => {
    if (onLine === undefined) return;
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line.replace(/\r$/, ''));
  };
}
