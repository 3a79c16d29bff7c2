/** The guest's half of the console tests. */
import { type ConsoleOptions, type ConsolePort, VirtioConsole } from '@virtio/console';
import type { LinuxHal, OpenDriver } from '@virtio/linux';
import { createHash } from 'node:crypto';
import type { GuestContext } from '../../framework/define.ts';
import { openWith } from '../_open.ts';
import { bytesOf } from './_host.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Opens the console device of the test. */
export function openConsole(
  context: Pick<GuestContext, 'cell' | 'device'>,
  options: ConsoleOptions = {},
  name = 'serial',
): OpenDriver<VirtioConsole, LinuxHal> {
  return openWith(context, name, VirtioConsole, options);
}

/** Reads so many bytes and returns their hash. */
export async function takeHash(port: ConsolePort, length: number): Promise<string> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(64 * KIB);
  for (let got = 0; got < length;) {
    const count = await port.read(buffer.subarray(0, Math.min(buffer.length, length - got)));
    if (count === 0) throw new Error(`the session ended after ${got} of ${length} bytes`);
    hash.update(buffer.subarray(0, count));
    got += count;
  }
  return hash.digest('hex');
}

/** Writes the guest's pattern in pieces. */
export async function sendPattern(
  port: ConsolePort,
  seed: number,
  length: number,
  piece = 64 * KIB,
): Promise<void> {
  for (let sent = 0; sent < length; sent += piece) {
    await port.write(bytesOf(seed, sent, Math.min(piece, length - sent)));
  }
  await port.flush();
}
