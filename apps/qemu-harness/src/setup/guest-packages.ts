/**
 * The packages the guest is made of: a stock kernel and a static busybox. They are downloaded and unpacked into the
 * cache, never installed, so this needs no rights. What is in the cache is used as it is, without a look at the network.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { HarnessError } from '../errors.ts';
import { WAITING, ensureCacheDir } from '../paths.ts';
import { run } from '../run.ts';
import { Apt, releaseCodename } from './apt.ts';

/** Changes when the folder's layout does. */
const LAYOUT = 1;
const META_PACKAGE = 'linux-image-cloud-amd64';

/** The unpacked packages. */
export interface GuestPackages {
  /** The kernel itself. */
  readonly kernel: string;
  /** The folder with its modules, `lib/modules/<release>`. */
  readonly modulesDir: string;
  /** The kernel's release, as `uname -r` will print it. */
  readonly kernelRelease: string;
  readonly kernelVersion: string;
  /** The guest's static busybox. */
  readonly busybox: string;
  /** A busybox that runs here. */
  readonly tools: string;
  readonly busyboxVersion: string;
}

interface Manifest {
  readonly kernelRelease: string;
  readonly kernelVersion: string;
  readonly busyboxVersion: string;
}

/** Downloads and unpacks what is not in the cache. */
export async function ensureGuestPackages(report: (line: string) => void): Promise<GuestPackages> {
  const cache = ensureCacheDir();
  const directory = join(cache, `packages-${releaseCodename()}-amd64-v${LAYOUT}`);
  return (
    readPackages(directory) ??
    (await withLock(
      join(cache, 'packages.lock'),
      () => report(WAITING),
      async () => {
        const there = readPackages(directory);
        if (there !== undefined) return there;
        await download(cache, directory, report);
        const packages = readPackages(directory);
        if (packages !== undefined) return packages;
        throw new HarnessError(
          'IMAGE_FAILED',
          `${directory} is incomplete although it was just made; delete it and try again.`,
        );
      },
    ))
  );
}

function readPackages(directory: string): GuestPackages | undefined {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as Manifest;
  } catch {
    return undefined;
  }
  const busybox = merged(directory, 'busybox', 'bin', 'busybox');
  return { ...manifest, ...unpackedKernel(directory, manifest.kernelRelease), busybox, tools: busybox };
}

/** The kernel and its modules in the folder `kernel`. One that is not compressed is called `vmlinux`. */
export function unpackedKernel(
  directory: string,
  kernelRelease: string,
): Pick<GuestPackages, 'kernel' | 'modulesDir'> {
  const [compressed, plain] = ['vmlinuz', 'vmlinux'].map((name) =>
    join(directory, 'kernel', 'boot', `${name}-${kernelRelease}`),
  ) as [string, string];
  return {
    kernel: existsSync(compressed) ? compressed : plain,
    modulesDir: merged(directory, 'kernel', 'lib', 'modules', kernelRelease),
  };
}

/** A path in an unpacked package, below `usr` where the release has its files there. */
function merged(directory: string, name: string, ...path: string[]): string {
  const inUsr = join(directory, name, 'usr', ...path);
  return existsSync(inUsr) ? inUsr : join(directory, name, ...path);
}

/** Removes what earlier set-ups that were killed have left. The lock is held, so nobody is writing there. */
function removeLeftovers(directory: string): void {
  const prefix = `${basename(directory)}.new-`;
  for (const name of readdirSync(dirname(directory))) {
    if (name.startsWith(prefix)) rmSync(join(dirname(directory), name), { recursive: true, force: true });
  }
}

async function download(cache: string, directory: string, report: (line: string) => void): Promise<void> {
  const apt = new Apt(join(cache, 'apt'));
  report('guest packages: fetching the package lists');
  await apt.update(report);
  const meta = await apt.candidate(META_PACKAGE);
  const image = /linux-image-[^\s,|]+/.exec(meta?.depends ?? '')?.[0];
  const busybox = await apt.candidate('busybox-static');
  if (meta === undefined || image === undefined || busybox === undefined) {
    throw new HarnessError(
      'DOWNLOAD_FAILED',
      `The apt sources of this system do not offer ${META_PACKAGE} or busybox-static for ${apt.codename}.`,
    );
  }
  removeLeftovers(directory);
  const temporary = mkdtempSync(`${directory}.new-`);
  try {
    report(`guest packages: downloading ${image} and busybox-static`);
    await apt.download([`${image}:amd64`, 'busybox-static:amd64'], temporary, report);
    report('guest packages: unpacking');
    for (const name of readdirSync(temporary).filter((name) => name.endsWith('.deb'))) {
      const target = join(temporary, name.startsWith('busybox') ? 'busybox' : 'kernel');
      mkdirSync(target);
      await run('IMAGE_FAILED', 'dpkg-deb', ['-x', join(temporary, name), target]);
      rmSync(join(temporary, name));
    }
    const manifest: Manifest = {
      kernelRelease: image.replace('linux-image-', ''),
      kernelVersion: meta.version,
      busyboxVersion: busybox.version,
    };
    writeFileSync(join(temporary, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    rmSync(directory, { recursive: true, force: true });
    renameSync(temporary, directory);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}
