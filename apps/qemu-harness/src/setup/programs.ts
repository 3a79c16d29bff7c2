/** Programs of the host that suites run drivers against, each in a package of Debian's. */
import { HarnessError } from '../errors.ts';
import { tryRun } from '../run.ts';
import type { Apt } from './apt.ts';
import { ensurePackages } from './install.ts';
import { ensureQemu } from './qemu-packages.ts';

/** A program and the package that has it. */
export interface HostProgram {
  readonly program: string;
  readonly package: string;
}

/**
 * Installs the packages of programs that are missing, from the release or, if it has none, from its backports. Programs of QEMU's
 * come in the version that the guests run in.
 *
 * @throws {@link HarnessError} `MISSING_PACKAGES` without the rights to do so, with the command that does
 */
export async function ensurePrograms(
  programs: readonly HostProgram[],
  report: (line: string) => void,
): Promise<void> {
  if (programs.some((one) => one.package.startsWith('qemu-'))) await ensureQemu(report);
  const missing = async (): Promise<string[]> => {
    const found = new Set<string>();
    for (const { program, package: name } of programs) {
      if ((await tryRun(program, ['--version'])).status === 127) found.add(name);
    }
    return [...found];
  };
  await ensurePackages(
    { missing, suite: chooseSuite, note: 'for the back ends', unusable: 'is its folder in PATH?' },
    report,
  );
}

async function chooseSuite(apt: Apt, packages: readonly string[]): Promise<string | undefined> {
  const offers = async (suite?: string): Promise<boolean> => {
    for (const name of packages) if ((await apt.candidate(name, suite)) === undefined) return false;
    return true;
  };
  if (await offers()) return undefined;
  if (await offers(apt.backports)) return apt.backports;
  throw new HarnessError(
    'UNSUPPORTED_HOST',
    `The sources of this system (${apt.codename}) do not offer all of ${packages.join(', ')}, nor do their backports.`,
  );
}
