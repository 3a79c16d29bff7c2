import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withLock } from './lock.ts';

describe('withLock', () => {
  let directory = '';
  beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), 'lock-test-'))));
  afterEach(() => rmSync(directory, { recursive: true }));

  it('lets one in at a time', async () => {
    const path = join(directory, 'a.lock');
    let inside = 0;
    let most = 0;
    const body = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await delay(20);
      inside--;
    };
    await Promise.all([withLock(path, body), withLock(path, body), withLock(path, body)]);
    expect(most).toBe(1);
    expect(existsSync(path)).toBe(false);
  });

  it('takes over the lock of a process that is gone', async () => {
    const path = join(directory, 'b.lock');
    // Above the kernel's largest process id.
    writeFileSync(path, '4194999');
    await expect(withLock(path, () => Promise.resolve(1))).resolves.toBe(1);
  });

  it('gives the lock back when the body throws', async () => {
    const path = join(directory, 'c.lock');
    await expect(withLock(path, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    await expect(withLock(path, () => Promise.resolve(2))).resolves.toBe(2);
  });
});
