// One at a time: `npm start` and `npm test` may be started side by side, and must not both install, download or build.
// This runs before anything is installed, so it is no library; and the libraries for it go by process ids or by age.
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A process is its id and the time it started at: ids are used again, after a reboot above all.
 *
 * @param {string | number | undefined} pid
 * @returns {string | undefined} `undefined` if there is no such process
 */
export function identify(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Field 22, counted behind the command's name, which may contain anything.
    return `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
  } catch {
    return undefined;
  }
}

/**
 * Holds `file` as a lock while `work` runs. A lock whose holder is gone is taken over.
 *
 * @template T
 * @param {string} file
 * @param {() => void} onWait called once if another process holds the lock
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(file, onWait, work) {
  const mine = `${file}.${randomUUID()}`;
  fs.writeFileSync(mine, identify(process.pid) ?? '');
  try {
    for (let waited = false; ;) {
      try {
        fs.linkSync(mine, file); // either the lock is there with its holder's name in it, or not at all
        break;
      } catch (error) {
        if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
      }
      const holder = readIfThere(file);
      if (holder !== undefined && identify(holder.split(' ')[0]) !== holder) {
        takeAway(file, holder);
        continue;
      }
      if (!waited) onWait();
      waited = true;
      await sleep(200);
    }
  } finally {
    fs.rmSync(mine, { force: true });
  }
  const release = () => fs.rmSync(file, { force: true });
  process.on('exit', release);
  sweep(file);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}

/**
 * Removes a lock whose holder is gone, unless another process was faster and holds it by now.
 *
 * @param {string} file
 * @param {string} holder
 */
function takeAway(file, holder) {
  const stale = `${file}.${randomUUID()}`;
  try {
    fs.renameSync(file, stale);
    if (readIfThere(stale) !== holder) fs.linkSync(stale, file);
  } catch (error) {
    // It is gone already, or has been taken anew.
    if (!(error instanceof Error && 'code' in error && ['ENOENT', 'EEXIST'].includes(String(error.code))))
      throw error;
  } finally {
    fs.rmSync(stale, { force: true });
  }
}

/**
 * Removes what processes left that were killed while they waited.
 *
 * @param {string} lock
 */
function sweep(lock) {
  const folder = path.dirname(lock);
  for (const name of fs.readdirSync(folder)) {
    const file = path.join(folder, name);
    if (!file.startsWith(`${lock}.`)) continue;
    const holder = readIfThere(file);
    if (holder !== undefined && holder !== '' && identify(holder.split(' ')[0]) !== holder)
      fs.rmSync(file, { force: true });
  }
}

/** @param {string} file */
function readIfThere(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
