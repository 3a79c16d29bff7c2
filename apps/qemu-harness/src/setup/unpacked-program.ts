/**
 * Programs of Debian suites other than the one that runs here. Like the guest's packages they are unpacked into the cache, never
 * installed, and run with the libraries that came with them.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { HarnessError } from '../errors.ts';
import { ensureCacheDir } from '../paths.ts';
import { run } from '../run.ts';
import { Apt } from './apt.ts';

/** Changes when the folder's layout does. */
const LAYOUT = 1;

/** A program and where it comes from. */
export interface UnpackedProgram {
  /** The package that has it; also the name of its folder. */
  readonly package: string;
  /** Its path in the package. */
  readonly path: string;
  /** The suite of the package: `trixie`, `unstable`. */
  readonly suite: string;
  /**
   * Packages of the same suite with the libraries that the program is to run with, `libc6` among them: a program of a newer suite
   * does not run with the C library of an older one.
   */
  readonly libraries?: readonly string[];
  /** Libraries of those packages that are loaded with the program: plug-ins, which it would look for in the folders of the system. */
  readonly preload?: readonly string[];
}

/** Processors of hosts: Debian's name, the folder of libraries, and the loader in it. */
const HOSTS: Readonly<Record<string, { debian: string; libraries: string; loader: string }>> = {
  x64: { debian: 'amd64', libraries: 'usr/lib/x86_64-linux-gnu', loader: 'ld-linux-x86-64.so.2' },
  arm64: { debian: 'arm64', libraries: 'usr/lib/aarch64-linux-gnu', loader: 'ld-linux-aarch64.so.1' },
};

/**
 * Downloads and unpacks a program if it is not in the cache.
 *
 * @returns the command that runs it
 * @throws {@link HarnessError} `DOWNLOAD_FAILED` if the suite does not have it, or no mirror answers; `UNSUPPORTED_HOST`
 */
export async function ensureUnpacked(
  { package: name, path, suite, libraries = [], preload = [] }: UnpackedProgram,
  report: (line: string) => void,
): Promise<readonly string[]> {
  const host = HOSTS[process.arch];
  if (host === undefined) {
    throw new HarnessError(
      'UNSUPPORTED_HOST',
      `${name} of Debian is unpacked and run on x64 and arm64 hosts; this one is ${process.arch}.`,
    );
  }
  const cache = ensureCacheDir();
  const directory = join(cache, `${name}-${host.debian}-v${LAYOUT}`);
  const program = join(directory, path);
  const shared = join(directory, host.libraries);
  const plugins = preload.length === 0 ? [] : ['--preload', preload.join(' ')];
  const command =
    libraries.length === 0
      ? [program]
      : [join(shared, host.loader), ...plugins, '--library-path', shared, program];
  if (existsSync(program)) return command;
  const waiting = (): void => report(`${name}: waiting for another set-up`);
  return withLock(join(cache, 'packages.lock'), waiting, async () => {
    if (existsSync(program)) return command;
    const apt = new Apt(join(cache, `apt-${suite}`), suite);
    report(`${name}: fetching the package lists of ${suite}`);
    await apt.update(report);
    if ((await apt.candidate(name)) === undefined) {
      throw new HarnessError('DOWNLOAD_FAILED', `The suite ${suite} of this system's mirror has no ${name}.`);
    }
    const temporary = mkdtempSync(`${directory}.new-`);
    try {
      report(`${name}: downloading`);
      await apt.download(
        [name, ...libraries].map((one) => `${one}:${host.debian}`),
        temporary,
        report,
      );
      const target = join(temporary, 'unpacked');
      mkdirSync(target);
      for (const file of readdirSync(temporary).filter((one) => one.endsWith('.deb'))) {
        await run('IMAGE_FAILED', 'dpkg-deb', ['-x', join(temporary, file), target]);
      }
      rmSync(directory, { recursive: true, force: true });
      renameSync(target, directory);
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
    return command;
  });
}
