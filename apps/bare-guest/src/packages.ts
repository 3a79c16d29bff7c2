/**
 * The packages that a bare image is made of: QuickJS as a ready archive, and the pure functions of musl and libgcc, for each
 * architecture. Like those of the Linux guest they are downloaded and unpacked into the cache, never installed.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { ensureCacheDir, WAITING } from '@virtio/qemu-harness/src/paths.ts';
import { run, tryRun } from '@virtio/qemu-harness/src/run.ts';
import { Apt } from '@virtio/qemu-harness/src/setup/apt.ts';
import { ensurePackages } from '@virtio/qemu-harness/src/setup/install.ts';
import { isRecent, MINIMUM_QEMU, parseQemuVersion } from '@virtio/qemu-harness/src/setup/version.ts';
import { withLock } from '@virtio/setup/lock';
import { ARCHITECTURES, TARGETS } from './machines.ts';

/** The release that has QuickJS 2025 as an archive for all three. */
export const SUITE = 'trixie';
/** Changes when the folder's layout does. */
const LAYOUT = 1;
const PACKAGES = ['libquickjs', 'musl-dev', 'libgcc-14-dev'];

/** Downloads and unpacks what is not in the cache. Returns the folder, with one of each architecture by Debian's name. */
export async function ensureBarePackages(report: (line: string) => void): Promise<string> {
  const cache = ensureCacheDir();
  const directory = join(cache, `bare-packages-${SUITE}-v${LAYOUT}`);
  const complete = join(directory, 'complete');
  if (existsSync(complete)) return directory;
  return withLock(
    join(cache, 'packages.lock'),
    () => report(WAITING),
    async () => {
      if (existsSync(complete)) return directory;
      const names = ARCHITECTURES.map((arch) => TARGETS[arch].debian);
      const apt = new Apt(join(cache, `apt-${SUITE}`), SUITE, names);
      report(`bare guest: fetching the package lists of ${SUITE}`);
      await apt.update(report);
      const temporary = mkdtempSync(`${directory}.new-`);
      try {
        report(`bare guest: downloading ${PACKAGES.join(', ')}`);
        await apt.download(
          PACKAGES.flatMap((name) => names.map((arch) => `${name}:${arch}`)),
          temporary,
          report,
        );
        for (const name of readdirSync(temporary).filter((file) => file.endsWith('.deb'))) {
          const arch = /_([a-z0-9]+)\.deb$/.exec(name)?.[1] ?? '';
          const target = join(temporary, arch);
          mkdirSync(target, { recursive: true });
          await run('IMAGE_FAILED', 'dpkg-deb', ['-x', join(temporary, name), target]);
          rmSync(join(temporary, name));
        }
        writeFileSync(join(temporary, 'complete'), '');
        rmSync(directory, { recursive: true, force: true });
        renameSync(temporary, directory);
      } finally {
        rmSync(temporary, { recursive: true, force: true });
      }
      return directory;
    },
  );
}

/** A compiler and a linker for all three architectures. */
export interface Toolchain {
  readonly clang: string;
  readonly lld: string;
  readonly version: string;
}

/** Versions of clang, the newest first, as Debian's releases name their programs. */
const VERSIONS = ['', '-21', '-19', '-17', '-16', '-15', '-14'];

async function findToolchain(): Promise<Toolchain | undefined> {
  for (const suffix of VERSIONS) {
    const [clang, lld] = [`clang${suffix}`, `ld.lld${suffix}`];
    const { status, stdout } = await tryRun(clang, ['--version']);
    if (status !== 0 || (await tryRun(lld, ['--version'])).status !== 0) continue;
    return { clang, lld, version: stdout.split('\n')[0] ?? clang };
  }
  return undefined;
}

/**
 * Clang and lld, installed if they are missing.
 *
 * @throws HarnessError `MISSING_PACKAGES` without the rights to do so, with the command that does
 */
export async function ensureToolchain(report: (line: string) => void): Promise<Toolchain> {
  const there = await findToolchain();
  if (there !== undefined) return there;
  await ensurePackages(
    {
      missing: async () => ((await findToolchain()) === undefined ? ['clang', 'lld'] : []),
      suite: () => Promise.resolve(undefined),
      note: 'to link the bare guest',
      unusable: 'are they in PATH?',
    },
    report,
  );
  const found = await findToolchain();
  if (found === undefined) {
    throw new HarnessError(
      'INSTALL_FAILED',
      'clang and an lld of the same version are not in PATH, although their packages are installed. Check PATH.',
    );
  }
  return found;
}

const EMULATORS = [
  { program: 'qemu-system-riscv64', package: 'qemu-system-riscv' },
  { program: 'qemu-system-aarch64', package: 'qemu-system-arm' },
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { program: 'qemu-img', package: 'qemu-utils' },
] as const;

/**
 * QEMU for the architectures, installed if missing, from the release or, if that is too old, from its backports.
 *
 * @throws HarnessError `MISSING_PACKAGES` without the rights to do so, with the command that does
 */
export async function ensureEmulators(report: (line: string) => void): Promise<void> {
  await ensurePackages(
    {
      missing: async () => {
        const missing: string[] = [];
        for (const { program, package: name } of EMULATORS) {
          const { status, stdout } = await tryRun(program, ['--version']);
          if (status !== 0 || !isRecent(parseQemuVersion(stdout))) missing.push(name);
        }
        return missing;
      },
      suite: async (apt) => {
        // One that the release has in any case: what only backports has is a candidate there without being asked for.
        const own = await apt.candidate('qemu-system-arm');
        return isRecent(parseQemuVersion(own?.version ?? '')) ? undefined : apt.backports;
      },
      note: `QEMU ${MINIMUM_QEMU.join('.')} or later`,
      unusable: 'does another, older QEMU come first in PATH?',
    },
    report,
  );
}
