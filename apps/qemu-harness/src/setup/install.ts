/**
 * Installs Debian's packages that are missing: as root, by sudo, or by telling the command. Where all are there, nothing is run and
 * no network is used.
 */
import { join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { HarnessError } from '../errors.ts';
import { WAITING, ensureCacheDir } from '../paths.ts';
import { run, tryRun } from '../run.ts';
import { Apt, INSTALL_ENVIRONMENT } from './apt.ts';

/** Packages that are wanted. */
export interface PackageRequest {
  /** Which of them are missing now, or do not do. */
  readonly missing: () => Promise<readonly string[]>;
  /** The suite to install from: `undefined` for the release itself. */
  readonly suite: (apt: Apt, packages: readonly string[]) => Promise<string | undefined>;
  /** What of them is wanted, for a message: `QEMU 8.2 or later`. */
  readonly note: string;
  /** What may be wrong if they do not do once they are installed. */
  readonly unusable: string;
}

/**
 * Installs packages as far as they are missing.
 *
 * @throws {@link HarnessError} `MISSING_PACKAGES` without the rights to do so, with the command that does
 */
export async function ensurePackages(request: PackageRequest, report: (line: string) => void): Promise<void> {
  if ((await request.missing()).length === 0) return;
  const install = async (): Promise<void> => {
    const missing = await request.missing();
    if (missing.length === 0) return;
    const what = `${missing.join(' and ')} (${request.note})`;
    if ((await tryRun('apt-get', ['--version'])).status !== 0) {
      throw new HarnessError(
        'UNSUPPORTED_HOST',
        `Missing: ${what}. This system has no apt; install them with its own package manager, then try again.`,
      );
    }
    const apt = new Apt(join(ensureCacheDir(), 'apt'));
    report('Debian packages: fetching the package lists');
    await apt.update(report);
    const suite = await request.suite(apt, missing);
    const args = apt.installArguments(missing, suite);
    const command = ['env', ...INSTALL_ENVIRONMENT, 'apt-get', ...args];
    const prefix = await rootPrefix();
    if (prefix === undefined) {
      throw new HarnessError(
        'MISSING_PACKAGES',
        `Missing: ${what}. This user may not install packages, and sudo would ask for a password. ` +
          `Run this once, then try again:\n\n  sudo ${[...command].map(quote).join(' ')}\n`,
      );
    }
    report(`Debian packages: installing ${missing.join(', ')}${suite === undefined ? '' : ` from ${suite}`}`);
    const [program = 'env', ...rest] = [...prefix, ...command];
    await run('INSTALL_FAILED', program, rest, { onLine: report, interactive: prefix.length > 0 });
    const still = await request.missing();
    if (still.length > 0) {
      throw new HarnessError(
        'INSTALL_FAILED',
        `apt installed ${missing.join(' and ')}, but ${still.join(' and ')} still cannot be used: ${request.unusable}`,
      );
    }
  };
  await withLock(join(ensureCacheDir(), 'apt.lock'), () => report(WAITING), install);
}

/** What to put before a command to run it as root: nothing for root, sudo where it works, `undefined` where it does not. */
async function rootPrefix(): Promise<readonly string[] | undefined> {
  if (process.getuid?.() === 0) return [];
  if ((await tryRun('sudo', ['-n', 'true'])).status === 0) return ['sudo', '-n'];
  const hasSudo = (await tryRun('sudo', ['--version'])).status === 0;
  return hasSudo && process.stdin.isTTY && process.stderr.isTTY ? ['sudo'] : undefined;
}
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
