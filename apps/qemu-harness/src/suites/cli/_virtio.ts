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
  /** Waits until it has said this, on standard output or standard error; fails if it ends before. */
  said(what: RegExp): Promise<void>;
  readonly ended: Promise<Ended>;
}

/** Starts the program. Standard input is `input`, or stays open. */
export function start(args: readonly string[], input: Uint8Array | 'open' = new Uint8Array()): Running {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
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
        reject(
          new Error(`virtio ${args.join(' ')} ended with ${status} and had not said ${what}: ${stderr}`),
        );
      }, reject);
    });
  return { child, said, ended };
}

/** Interrupts a program as Ctrl-C does, and fails unless it ends with this status. */
export async function interrupt({ child, ended }: Running, wanted: number): Promise<Ended> {
  child.kill('SIGINT');
  const end = await ended;
  equal(end.status, wanted, end.stderr);
  return end;
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
  const size = location.kind === 'mmio' && location.size !== 512 ? `+0x${location.size.toString(16)}` : '';
  const address =
    location.kind === 'pci' ? `pci:${location.address}` : `mmio:0x${location.address.toString(16)}${size}`;
  return context.cell.transport === 'pci-vfio' ? [address] : [address, '--unsafe-physical-memory'];
}

/** The command line does not see the rings. */
export function onSplit({ ring }: Cell): string | undefined {
  return ring.name === 'split' ? undefined : 'the command line is the same over all rings';
}
