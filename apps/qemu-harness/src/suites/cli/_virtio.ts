/** Runs the program `virtio` of `@virtio/cli` in the guest. */
import { equal } from 'node:assert/strict';
import type { Cell, GuestContext } from '../../framework/define.ts';
import { type Ended, type Running, start as startNode } from '../_program.ts';

const PROGRAM = '/guest/virtio.mjs';

/** Starts the program. Standard input is `input`, or stays open. */
export function start(args: readonly string[], input?: Uint8Array | 'open'): Running {
  return startNode([PROGRAM, ...args], input === undefined ? {} : { input });
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
