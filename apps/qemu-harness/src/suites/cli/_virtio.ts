/** Runs the program `virtio` of `@virtio/cli` in the guest. */
import { equal } from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import type { Cell, GuestContext } from '../../framework/define.ts';

const PROGRAM = '/guest/virtio.mjs';

/** How a run ended. */
export interface Ended {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

/** A program that runs. */
export interface Running {
  readonly child: ChildProcess;
  /** What came on standard output so far. */
  text(): string;
  readonly ended: Promise<Ended>;
}

/** Starts the program. */
export function start(args: readonly string[], input?: Uint8Array): Running {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
  // A program that ends early reads no further.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) =>
      resolve({ status, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() }),
    );
  });
  return { child, text: () => Buffer.concat(out).toString(), ended };
}

/** Runs the program to its end. */
export async function virtio(args: readonly string[], input?: Uint8Array): Promise<Ended> {
  return start(args, input).ended;
}

/** Runs the program, fails unless it ends well, and returns what it printed. */
export async function good(args: readonly string[], input?: Uint8Array): Promise<Buffer> {
  const { status, stdout, stderr } = await virtio(args, input);
  equal(status, 0, `virtio ${args.join(' ')} ended with ${status}: ${stderr}`);
  return stdout;
}

/** Runs the program with `--json`, and returns what it printed. */
export async function json<T>(args: readonly string[]): Promise<T> {
  return JSON.parse((await good([...args, '--json'])).toString()) as T;
}

/** A device of the test for the command line: its address, and how to open it. */
export function place(context: Pick<GuestContext, 'cell' | 'device'>, name: string): [string, ...string[]] {
  const location = context.device(name);
  const address =
    location.kind === 'pci' ? `pci:${location.address}` : `mmio:0x${location.address.toString(16)}`;
  return context.cell.transport === 'pci-vfio' ? [address] : [address, '--unsafe-physical-memory'];
}

/** The command line does not see the rings. */
export function onSplit({ ring }: Cell): string | undefined {
  return ring.name === 'split' ? undefined : 'the command line is the same over all rings';
}
