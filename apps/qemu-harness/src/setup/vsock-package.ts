/**
 * The socket device that tests have at their far side: `vhost-device-vsock` of the rust-vmm project. Debian has it in `unstable` only, but
 * what is in the package runs on Debian 12. Like the guest's packages it is unpacked into the cache, never installed.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { ensureCacheDir } from '../paths.ts';
import { run } from '../run.ts';
import { Apt } from './apt.ts';
import { withLock } from '@virtio/setup/lock';

const SUITE = 'unstable';
const PACKAGE = 'vhost-device-vsock';
/** Changes when the folder's layout does. */
const LAYOUT = 1;

/**
 * Downloads and unpacks the device if it is not in the cache.
 *
 * @returns the path of the program
 */
export async function ensureVsockDevice(report: (line: string) => void): Promise<string> {
  const cache = ensureCacheDir();
  const directory = join(cache, `${PACKAGE}-amd64-v${LAYOUT}`);
  const program = join(directory, 'usr', 'bin', PACKAGE);
  if (existsSync(program)) return program;
  const waiting = (): void => report(`${PACKAGE}: waiting for another set-up`);
  return withLock(join(cache, 'packages.lock'), waiting, async () => {
    if (existsSync(program)) return program;
    const apt = new Apt(join(cache, `apt-${SUITE}`), SUITE);
    report(`${PACKAGE}: fetching the package lists of ${SUITE}`);
    await apt.update(report);
    if ((await apt.candidate(PACKAGE)) === undefined) {
      throw new HarnessError(
        'DOWNLOAD_FAILED',
        `The suite ${SUITE} of this system's mirror has no ${PACKAGE}.`,
      );
    }
    const temporary = mkdtempSync(`${directory}.new-`);
    try {
      report(`${PACKAGE}: downloading`);
      await apt.download([`${PACKAGE}:amd64`], temporary, report);
      const target = join(temporary, 'unpacked');
      mkdirSync(target);
      for (const name of readdirSync(temporary).filter((name) => name.endsWith('.deb'))) {
        await run('IMAGE_FAILED', 'dpkg-deb', ['-x', join(temporary, name), target]);
      }
      rmSync(directory, { recursive: true, force: true });
      renameSync(target, directory);
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
    return program;
  });
}
