/**
 * Builds the guest's image: a kernel and an initramfs. The image is keyed by the content of all that goes into it,
 * written under a temporary name and renamed when complete; one that is there is used as it is.
 *
 * The initramfs is not compressed: unpacking under software emulation would cost more than reading it.
 */
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { HARNESS_DIR, WAITING, ensureCacheDir } from '../paths.ts';
import type { Architecture } from '../architecture.ts';
import { ensureForeignPackages, FOREIGN, type ForeignArchitecture } from '../setup/foreign-packages.ts';
import { ensureGuestPackages, type GuestPackages } from '../setup/guest-packages.ts';
import { encodeCpio, type CpioEntry } from './cpio.ts';
import { moduleEntries } from './modules.ts';
import { foreignRuntimeFiles, runtimeFiles, toEntries, type ImageFile } from './node-runtime.ts';

/** Changes when the code that builds the image changes what is in it. */
const FORMAT = 1;
/** Images not used for this long are deleted when a new one is built. */
const KEEP_MS = 3 * 24 * 60 * 60 * 1000;

/** The commands that `init` and curious people use. */
const APPLETS = (
  'sh [ ash awk basename cat chmod cp cut date dd df dirname dmesg du echo env expr false find free grep gunzip gzip ' +
  'head hexdump hostname id ifconfig insmod ip kill ln ls lsmod md5sum mkdir mknod modprobe mount mv nproc od pidof ' +
  'poweroff printf ps pwd readlink reboot rm rmdir rmmod sed seq sha256sum sleep sort stat stty sync sysctl tail tar ' +
  'taskset tee test timeout top touch tr true truncate umount uname uniq uptime usleep wc which xargs xxd'
).split(' ');

/** A guest's image, ready to boot. */
export interface GuestImage {
  readonly key: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** The kernel's release, as `uname -r` prints it. */
  readonly kernelRelease: string;
  readonly nodeVersion: string;
}

/** What an image is made of, beside init. */
interface Parts {
  readonly packages: GuestPackages;
  readonly nodeVersion: string;
  readonly files: readonly ImageFile[];
}

async function ownParts(report: (line: string) => void): Promise<Parts> {
  const packages = await ensureGuestPackages(report);
  return { packages, nodeVersion: process.version, files: await runtimeFiles() };
}

async function foreignParts(arch: ForeignArchitecture, report: (line: string) => void): Promise<Parts> {
  const packages = await ensureForeignPackages(arch, report);
  const files = foreignRuntimeFiles(packages, FOREIGN[arch].node);
  return { packages, nodeVersion: packages.nodeVersion, files };
}

/** The image for the present inputs, built if it is not in the cache. */
export async function ensureImage(
  report: (line: string) => void,
  arch: Architecture = 'x86_64',
): Promise<GuestImage> {
  const { packages, nodeVersion, files } = await (arch === 'x86_64'
    ? ownParts(report)
    : foreignParts(arch, report));
  const init = readFileSync(join(HARNESS_DIR, 'guest', 'init.sh'));
  const key = imageKey(packages, nodeVersion, init, files);
  const cache = ensureCacheDir();
  const directory = join(cache, `image-${key}`);
  const image: GuestImage = {
    key,
    kernel: join(directory, 'vmlinuz'),
    initramfs: join(directory, 'initramfs.cpio'),
    kernelRelease: packages.kernelRelease,
    nodeVersion,
  };
  if (!existsSync(directory)) {
    await withLock(
      join(cache, 'image.lock'),
      () => report(WAITING),
      async () => {
        if (existsSync(directory)) return;
        report(`guest image: building (${arch}, kernel ${packages.kernelRelease}, Node.js ${nodeVersion})`);
        removeOldImages(cache);
        const temporary = mkdtempSync(join(cache, 'new-image-'));
        const entries: CpioEntry[] = [
          ...skeleton(packages, init),
          ...(await moduleEntries(packages)),
          ...toEntries(files),
        ];
        writeFileSync(join(temporary, 'initramfs.cpio'), encodeCpio(entries));
        copyFileSync(packages.kernel, join(temporary, 'vmlinuz'));
        renameSync(temporary, directory);
      },
    );
  }
  const now = new Date();
  utimesSync(directory, now, now);
  return image;
}

/** The folders, devices and commands that everything else stands on. */
function skeleton(packages: GuestPackages, init: Uint8Array): CpioEntry[] {
  const directories = ['dev', 'proc', 'sys', 'tmp', 'root', 'run', 'guest'];
  return [
    ...directories.map((path): CpioEntry => ({ type: 'directory', path })),
    { type: 'character-device', path: 'dev/console', major: 5, minor: 1 },
    { type: 'file', path: 'init', data: init, mode: 0o755 },
    { type: 'file', path: 'bin/busybox', data: readFileSync(packages.busybox), mode: 0o755 },
    ...APPLETS.map((name): CpioEntry => ({ type: 'symlink', path: `bin/${name}`, target: 'busybox' })),
    { type: 'file', path: 'etc/passwd', data: Buffer.from('root:x:0:0:root:/root:/bin/sh\n') },
    { type: 'file', path: 'etc/hosts', data: Buffer.from('127.0.0.1 localhost guest\n') },
  ];
}

function imageKey(
  packages: GuestPackages,
  nodeVersion: string,
  init: Uint8Array,
  files: readonly ImageFile[],
): string {
  const hash = createHash('sha256');
  const { kernelVersion, kernelRelease, busyboxVersion } = packages;
  hash.update(JSON.stringify([FORMAT, kernelVersion, kernelRelease, busyboxVersion, nodeVersion, APPLETS]));
  hash.update(init);
  for (const { source, path, mode } of files) {
    hash.update(JSON.stringify([path, mode]));
    hash.update(readFileSync(source));
  }
  return hash.digest('hex').slice(0, 16);
}

function removeOldImages(cache: string): void {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name);
    const isOld = /^image-[0-9a-f]+$/.test(name) && Date.now() - statSync(path).mtimeMs > KEEP_MS;
    // Under the lock, a folder with a temporary name belongs to a set-up that was killed.
    if (isOld || name.startsWith('new-image-')) rmSync(path, { recursive: true, force: true });
  }
  mkdirSync(cache, { recursive: true });
}
