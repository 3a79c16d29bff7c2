/** What the 9P tests share: a device before a folder of the host, and a tree with all that trees can have in it. */
import { type MountOptions, P9Error, P9FileSystem, Virtio9p } from '@virtio/9p';
import { equal } from 'node:assert/strict';
import {
  chmodSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { type DeviceSpec, type GuestContext, pattern } from '../../framework/define.ts';
import { expectRing, open } from '../_open.ts';

/** How a folder is shared. */
export interface ShareSpec {
  /** The folder on the host (default `share` in the test's folder). */
  readonly path?: string;
  /** How owners, permissions and links are kept (default `none`: as the host's own). */
  readonly model?: 'none' | 'mapped-xattr';
  readonly readOnly?: boolean;
  /**
   * Whether files keep the inode numbers of the host. QEMU 10 and later renumber them by default (`multidevs=remap`), so that
   * files of several file systems below one share never have one number: the host's number moved up a bit, with a 1 behind
   * it, for those of the first one. `forbid` is the one other choice that lets no two files share a number.
   */
  readonly hostInodes?: boolean;
  readonly hotplug?: boolean;
}

/** A 9P device with a folder of the host behind it. */
export function share({
  path = '{dir}/share',
  model = 'none',
  readOnly = false,
  hostInodes = false,
  hotplug = false,
}: ShareSpec = {}): DeviceSpec {
  const options = `security_model=${model}${readOnly ? ',readonly=on' : ''}${hostInodes ? ',multidevs=forbid' : ''}`;
  return {
    model: 'virtio-9p',
    properties: { mount_tag: 'sdílené' },
    before: ['-fsdev', `local,id={id}-fs,path=${path},${options}`],
    after: ['-set', 'device.{id}.fsdev={id}-fs'],
    hotplug,
  };
}

/** Makes the folder that {@link share} shares by default. */
export function makeShare(directory: string): string {
  const path = join(directory, 'share');
  mkdirSync(path);
  return path;
}

/** A mounted file system. */
export interface Mounted extends AsyncDisposable {
  readonly fs: P9FileSystem;
  readonly device: Virtio9p;
}

/** Opens a device of the test and mounts what it shares. */
export async function mount(
  context: Pick<GuestContext, 'cell' | 'device'>,
  name = 'share',
  options: MountOptions = { umask: 0 },
): Promise<Mounted> {
  await using stack = new AsyncDisposableStack();
  const opened = stack.use(open(context, name));
  const device = stack.use(new Virtio9p(opened.transport, opened.hal));
  expectRing(device.features, context.cell);
  equal(device.mountTag, 'sdílené');
  const fs = stack.use(await P9FileSystem.mount(device, options));
  const kept = stack.move();
  return { fs, device, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** Fails unless an operation is refused with this code. */
export async function refused(code: string, attempt: () => Promise<unknown>): Promise<void> {
  try {
    await attempt();
  } catch (error) {
    if (!P9Error.is(error)) throw error;
    equal(error.code, code, error.message);
    return;
  }
  throw new Error(`it was not refused with ${code}`);
}

/** Names in many scripts, and names that trouble programs. */
export const NAMES = [
  'plain',
  'with space',
  'příliš žluťoučký kůň',
  'Ελληνικά',
  'кириллица',
  'עברית',
  'العربية',
  'हिन्दी',
  'ไทย',
  '日本語',
  '한국어',
  '简体中文',
  'e\u0301 decomposed',
  '\u00e9 composed',
  '😀👩‍👩‍👧‍👦🏳️‍🌈',
  '-rf',
  '$(echo)',
  'quote\'"`',
  'back\\slash',
  'line\nfeed',
  'tab\there',
  '...',
  'x'.repeat(255),
  '漢'.repeat(85),
] as const;

/** A name that is no UTF-8. */
export const RAW_NAME = Buffer.from([0x66, 0xff, 0x80, 0xc3, 0x28, 0xed, 0xa0, 0x80]);

/** How many files {@link makeTree} makes with ordinary names. */
export const FILES = 2000;

/** The size of the sparse file, most of which is a hole. */
export const SPARSE_SIZE = 32 << 20;

/** A moment with microseconds. */
const moment = (n: number): number => 1_600_000_000 + n + (n % 997) / 1000;

/** Makes a tree with 2,000 files, names in many scripts, a sparse file, links and permissions. */
export function makeTree(root: string): void {
  mkdirSync(root);
  const directories = Array.from({ length: 40 }, (_, n) => join(root, `d${n % 8}`, `e${n}`));
  for (const directory of directories) mkdirSync(directory, { recursive: true });
  for (let n = 0; n < FILES; n++) {
    const path = join(directories[n % directories.length] ?? root, `file-${n}`);
    const size = n % 10 === 0 ? 0 : (n * 37) % 9001;
    writeFileSync(path, pattern(new Uint8Array(size), n).subarray(0, size));
    if (n % 3 === 0) chmodSync(path, [0o600, 0o755, 0o444, 0o640, 0o777, 0o000, 0o4711][n % 7] ?? 0o644);
    utimesSync(path, moment(n), moment(n + 1));
  }
  const names = join(root, 'names');
  mkdirSync(names);
  for (const name of NAMES) writeFileSync(join(names, name), name);
  writeFileSync(Buffer.concat([Buffer.from(`${names}/`), RAW_NAME]), RAW_NAME);
  mkdirSync(join(names, 'složka 📁'));
  writeFileSync(join(names, 'složka 📁', 'ファイル'), 'x');

  const links = join(root, 'links');
  mkdirSync(links);
  symlinkSync('../names/日本語', join(links, 'relative'));
  symlinkSync('/names/plain', join(links, 'absolute'));
  symlinkSync('nowhere/at all', join(links, 'dangling'));
  symlinkSync(`${'../'.repeat(20)}names`, join(links, 'directory'));
  symlinkSync('y'.repeat(4000), join(links, 'long'));
  writeFileSync(join(links, 'first'), 'one file, three names');
  linkSync(join(links, 'first'), join(links, 'second'));
  linkSync(join(links, 'first'), join(root, 'third'));

  const sparse = openSync(join(root, 'sparse'), 'w');
  ftruncateSync(sparse, SPARSE_SIZE);
  for (const position of [0, 10 << 20, 30_000_000]) {
    writeSync(sparse, pattern(new Uint8Array(5000), 9, position & ~3), 0, 5000, position);
  }
  closeSync(sparse);

  const sticky = join(root, 'sticky');
  mkdirSync(sticky);
  chmodSync(sticky, 0o1777);
  const deep = join(root, ...Array.from({ length: 30 }, (_, n) => `level ${n}`));
  mkdirSync(deep, { recursive: true });
  writeFileSync(join(deep, 'bottom'), 'deep');
  for (const directory of [...directories, names, sticky, root]) {
    utimesSync(directory, moment(1), moment(2));
  }
}
