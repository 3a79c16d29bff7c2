/** Private folders on the host that carry their owner's name, so that a later run clears those of killed ones. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { identify } from '@virtio/setup/lock';

const PREFIX = 'virtio-guest-';

/** Makes a folder that only this user can enter. Its path is short enough for a socket in it. */
export function makeTemporary(): string {
  removeLeftovers();
  const owner = identify(process.pid)?.replace(' ', '-') ?? '';
  return mkdtempSync(join(tmpdir(), `${PREFIX}${owner}-`));
}

function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    const [pid = '', start] = name.slice(PREFIX.length).split('-');
    // An id alone may be another process's by now, after a reboot above all.
    if (identify(pid) !== `${pid} ${start}`) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}
