/** Programs that run in the guest beside a test, each in a process of its own. */
import { equal } from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';

/** How a program ended. */
export interface Ended {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** A program that runs. */
export interface Running {
  readonly child: ChildProcess;
  /** Waits until it has said this, on standard output or standard error; fails if it ends before. */
  readonly said: (what: RegExp) => Promise<void>;
  readonly ended: Promise<Ended>;
}

/** Starts Node.js with these arguments. Standard input is `input`, or stays open. */
export function start(
  args: readonly string[],
  { input = new Uint8Array(), cwd }: { input?: Uint8Array | 'open'; cwd?: string } = {},
): Running {
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'], cwd });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
  // A program that ends early reads no further.
  child.stdin.on('error', () => undefined);
  if (input !== 'open') child.stdin.end(input);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) =>
      resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() }),
    );
  });
  const said = (what: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if ([out, err].some((pieces) => what.test(Buffer.concat(pieces).toString()))) resolve();
      };
      child.stdout.on('data', look);
      child.stderr.on('data', look);
      look();
      ended.then(({ status, stderr }) => {
        look();
        reject(new Error(`${args.join(' ')} ended with ${status} and had not said ${what}: ${stderr}`));
      }, reject);
    });
  return { child, said, ended };
}

/** Interrupts a program as Ctrl-C does, and fails unless it ends with this status (`null`: by the signal). */
export async function interrupt({ child, ended }: Running, wanted: number | null): Promise<Ended> {
  child.kill('SIGINT');
  const end = await ended;
  equal(end.status, wanted, end.stderr);
  return end;
}
