/** The guest's half of the socket tests. */
import {
  VirtioSocket,
  VsockConnectionManager,
  type ConnectionManagerOptions,
  type VsockConnection,
} from '@virtio/socket';
import type { VirtioErrorCode } from '@virtio/core';
import { equal, rejects, throws } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import type { GuestContext } from '../../framework/define.ts';
import { isLegacy, open } from '../_open.ts';
import { CID } from './_device.ts';
import { bytesOf } from './_host.ts';

export const KIB = 1024;
export const MIB = 1 << 20;

/** An open device with its connections. */
export interface OpenSocket extends Disposable {
  readonly driver: VirtioSocket;
  readonly sockets: VsockConnectionManager;
}

/** Opens the device of a test. */
export function openSocket(
  context: Pick<GuestContext, 'cell' | 'device'>,
  options: ConnectionManagerOptions = {},
): OpenSocket {
  using stack = new DisposableStack();
  const device = stack.use(open(context, 'socket'));
  const driver = stack.use(new VirtioSocket(device.transport, device.hal));
  const sockets = stack.use(new VsockConnectionManager(driver, { timers: globalThis, ...options }));
  equal(driver.features.has('VERSION_1'), !isLegacy(context.cell));
  equal(driver.features.has('EVENT_IDX'), true);
  equal(sockets.guestCid, CID);
  const kept = stack.move();
  return { driver, sockets, [Symbol.dispose]: () => kept.dispose() };
}

/** Sends the bytes of `seed`. */
export async function sendBytes(
  connection: VsockConnection,
  seed: number,
  length: number,
  piece = 256 * KIB,
): Promise<void> {
  for (let at = 0; at < length; at += piece) {
    await connection.write(bytesOf(seed, at, Math.min(piece, length - at)));
  }
}

/** Reads so many bytes, and returns their hash. */
export async function takeHash(connection: VsockConnection, length: number): Promise<string> {
  const hash = createHash('sha256');
  const into = new Uint8Array(64 * KIB);
  for (let got = 0; got < length;) {
    const count = await connection.read(into.subarray(0, Math.min(into.length, length - got)));
    if (count === 0) throw new Error(`the connection ended after ${got} of ${length} bytes`);
    hash.update(into.subarray(0, count));
    got += count;
  }
  return hash.digest('hex');
}

/** Fails unless a promise rejects with this code. */
export async function rejectsWith(code: VirtioErrorCode, promise: Promise<unknown>): Promise<void> {
  await rejects(promise, { name: 'VirtioError', code });
}

/** Fails unless a call throws this code. */
export function throwsWith(code: VirtioErrorCode, body: () => unknown): void {
  throws(body, { name: 'VirtioError', code });
}
