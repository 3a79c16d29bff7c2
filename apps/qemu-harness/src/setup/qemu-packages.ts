/**
 * Sees to it that QEMU is there and new enough. Where it is, nothing is run and no network is used. Where it is not,
 * Debian's packages are installed, from the release or, if that is too old, from its backports.
 */
import { join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { HarnessError } from '../errors.ts';
import { WAITING, ensureCacheDir } from '../paths.ts';
import { run, tryRun } from '../run.ts';
import { Apt, INSTALL_ENVIRONMENT } from './apt.ts';
import { isRecent, MINIMUM_QEMU, parseQemuVersion } from './version.ts';

/** The programs the harness calls and the package that has each. */
const PROGRAMS = [
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { program: 'qemu-img', package: 'qemu-utils' },
] as const;

/** What is missing, or too old. */
async function missingPackages(): Promise<string[]> {
  const missing: string[] = [];
  for (const { program, package: name } of PROGRAMS) {
    const { status, stdout } = await tryRun(program, ['--version']);
    if (status !== 0 || !isRecent(parseQemuVersion(stdout))) missing.push(name);
  }
  return missing;
}

/** The version of the QEMU that will run, as it states it. */
export async function qemuVersion(): Promise<string> {
  const { stdout } = await tryRun('qemu-system-x86_64', ['--version']);
  return /version (\S+)/.exec(stdout)?.[1] ?? 'unknown';
}

/**
 * Installs QEMU if it is missing or older than 8.2.
 *
 * @throws {@link HarnessError} `MISSING_PACKAGES` without the rights to do so, with the command that does
 */
export async function ensureQemu(report: (line: string) => void): Promise<void> {
  if ((await missingPackages()).length === 0) return;
  await withLock(
    join(ensureCacheDir(), 'apt.lock'),
    () => report(WAITING),
    async () => {
      const missing = await missingPackages();
      if (missing.length === 0) return;
      const what = `${missing.join(' and ')} (QEMU ${MINIMUM_QEMU.join('.')} or later)`;
      if ((await tryRun('apt-get', ['--version'])).status !== 0) {
        throw new HarnessError(
          'UNSUPPORTED_HOST',
          `Missing: ${what}. This system has no apt; install them by its own means, then try again.`,
        );
      }
      const apt = new Apt(join(ensureCacheDir(), 'apt'));
      report('Debian packages: fetching the package lists');
      await apt.update(report);
      const suite = await chooseSuite(apt);
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
      report(
        `Debian packages: installing ${missing.join(', ')}${suite === undefined ? '' : ` from ${suite}`}`,
      );
      const [program = 'env', ...rest] = [...prefix, ...command];
      await run('INSTALL_FAILED', program, rest, { onLine: report, interactive: prefix.length > 0 });
      const still = await missingPackages();
      if (still.length > 0) {
        throw new HarnessError(
          'INSTALL_FAILED',
          `apt installed ${missing.join(' and ')}, yet ${still.join(' and ')} did not become usable: ` +
            'does another, older QEMU come first in PATH?',
        );
      }
    },
  );
}

/** The suite to install from: `undefined` for the release itself. */
async function chooseSuite(apt: Apt): Promise<string | undefined> {
  const own = await apt.candidate('qemu-system-x86');
  if (isRecent(parseQemuVersion(own?.version ?? ''))) return undefined;
  const newer = await apt.candidate('qemu-system-x86', apt.backports);
  if (isRecent(parseQemuVersion(newer?.version ?? ''))) return apt.backports;
  throw new HarnessError(
    'UNSUPPORTED_HOST',
    `QEMU ${MINIMUM_QEMU.join('.')} or later is needed; the sources of this system (${apt.codename}) offer ` +
      `${own?.version ?? 'none'}, their backports ${newer?.version ?? 'none'}. Debian 12 and later have it.`,
  );
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
