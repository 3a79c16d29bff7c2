/**
 * Sees to it that QEMU is there and new enough. Where it is, nothing is run and no network is used. Where it is not,
 * Debian's packages are installed, from the release or, if that is too old, from its backports.
 */
import type { Architecture } from '../architecture.ts';
import { qemuProgram } from '../boot/qemu-args.ts';
import { HarnessError } from '../errors.ts';
import { tryRun } from '../run.ts';
import type { Apt } from './apt.ts';
import { ensurePackages } from './install.ts';
import { isRecent, MINIMUM_QEMU, parseQemuVersion } from './version.ts';

/** The packages of QEMU's that emulate each architecture. */
const PACKAGES: Readonly<Record<Architecture, string>> = {
  x86_64: 'qemu-system-x86',
  aarch64: 'qemu-system-arm',
  riscv64: 'qemu-system-riscv',
};

/** What is missing, or too old. */
async function missingPackages(arch: Architecture): Promise<string[]> {
  const missing: string[] = [];
  const programs = [
    [qemuProgram(arch), PACKAGES[arch]],
    ['qemu-img', 'qemu-utils'],
  ] as const;
  for (const [program, name] of programs) {
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
export async function ensureQemu(
  report: (line: string) => void,
  arch: Architecture = 'x86_64',
): Promise<void> {
  await ensurePackages(
    {
      missing: () => missingPackages(arch),
      suite: chooseSuite,
      note: `QEMU ${MINIMUM_QEMU.join('.')} or later`,
      unusable: 'does another, older QEMU come first in PATH?',
    },
    report,
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
