/** What the tests of disks share. */
import { VirtioBlk } from '@virtio/blk';
import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import type { LinuxHal, OpenDriver, OpenOptions } from '@virtio/linux';
import { createHash, type Hash } from 'node:crypto';
import { ok, rejects, throws } from 'node:assert/strict';
import type { GuestContext } from '../../framework/define.ts';
import { openWith } from '../_open.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const SECTOR = 512;

/** The driver of a disk, which closes the device. */
export type OpenDisk = OpenDriver<VirtioBlk, LinuxHal>;

/** Opens a disk of the test. */
export function openDisk(
  context: Pick<GuestContext, 'cell' | 'device'>,
  name = 'disk',
  options: OpenOptions = {},
): OpenDisk {
  return openWith(context, name, VirtioBlk, options);
}

/** How much is in flight in {@link hashWritten} and {@link hashRead}. */
const DEPTH = 32;
const CHUNK = 64 * KIB;

/**
 * Writes a disk from its first byte on, with 32 requests in flight, and returns the SHA-256 of what was written.
 *
 * @param fill makes the bytes of one request
 */
export async function hashWritten(
  blk: OpenDisk,
  bytes: number,
  fill: (chunk: Uint8Array, position: number) => void,
): Promise<string> {
  using buffer = blk.hal.alloc(DEPTH * CHUNK);
  const hash = createHash('sha256');
  const busy: Promise<void>[] = [];
  for (let position = 0, n = 0; position < bytes; position += CHUNK, n++) {
    const slot = n % DEPTH;
    await busy[slot];
    const chunk = buffer.bytes.subarray(slot * CHUNK, (slot + 1) * CHUNK);
    fill(chunk, position);
    hash.update(chunk);
    busy[slot] = blk.write(position / SECTOR, chunk);
  }
  await Promise.all(busy);
  return hash.digest('hex');
}

/** Reads a disk from its first byte on, with 32 requests in flight, and returns the SHA-256 of what was read. */
export async function hashRead(blk: OpenDisk, bytes: number): Promise<string> {
  using buffer = blk.hal.alloc(DEPTH * CHUNK);
  const hash: Hash = createHash('sha256');
  const chunkAt = (n: number): Uint8Array =>
    buffer.bytes.subarray((n % DEPTH) * CHUNK, ((n % DEPTH) + 1) * CHUNK);
  const start = (n: number): Promise<void> => blk.read((n * CHUNK) / SECTOR, chunkAt(n));
  const count = bytes / CHUNK;
  const busy = Array.from({ length: Math.min(DEPTH, count) }, (_, n) => start(n));
  for (let n = 0; n < count; n++) {
    await busy[n % DEPTH];
    hash.update(chunkAt(n));
    if (n + DEPTH < count) busy[n % DEPTH] = start(n + DEPTH);
  }
  return hash.digest('hex');
}

/** Fails unless a promise rejects with this code. */
export async function rejectsWith(code: VirtioErrorCode, promise: Promise<unknown>): Promise<void> {
  await rejects(promise, (error) => VirtioError.is(error, code) || failWith(code, error));
}

/** Fails unless a function throws with this code. */
export function throwsWith(code: VirtioErrorCode, body: () => unknown): void {
  throws(body, (error) => VirtioError.is(error, code) || failWith(code, error));
}

function failWith(code: VirtioErrorCode, error: unknown): never {
  throw new Error(`${code} was expected`, { cause: error });
}

/** How requests ended: `ok`, or their errors' codes. Promises are settled by then, so that it can be compared. */
export async function endings(requests: readonly Promise<unknown>[]): Promise<string[]> {
  const results = await Promise.allSettled(requests);
  return results.map((result) => {
    if (result.status === 'fulfilled') return 'ok';
    const { reason } = result as { reason: unknown };
    return VirtioError.is(reason) ? reason.code : String(reason);
  });
}

/** Fails unless bytes are equal; does not print them. */
export function sameBytes(actual: Uint8Array, expected: Uint8Array, what: string): void {
  ok(Buffer.compare(actual, expected) === 0, `${what}: the bytes differ`);
}
