/**
 * One set-up at a time: two commands started together must not both install, download or build. The lock is a file
 * with the holder's process id, so that one left by a process that was killed is seen as such.
 */
import { randomUUID } from 'node:crypto';
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isAlive } from '../boot/temporary.ts';

const RETRY_MS = 200;

/** Runs `body` while holding the lock file `path`, waiting for its holder if there is one. */
export async function withLock<T>(path: string, body: () => Promise<T>): Promise<T> {
  const own = `${path}.${randomUUID()}`;
  writeFileSync(own, String(process.pid));
  try {
    while (!take(own, path)) await delay(RETRY_MS);
  } finally {
    rmSync(own, { force: true });
  }
  try {
    return await body();
  } finally {
    rmSync(path, { force: true });
  }
}

// A hard link appears with its content, or not at all.
function take(own: string, path: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  if (!isHeld(path)) rmSync(path, { force: true });
  return false;
}

function isHeld(path: string): boolean {
  let holder: number;
  try {
    holder = Number(readFileSync(path, 'utf8'));
  } catch {
    return false;
  }
  return isAlive(holder);
}
