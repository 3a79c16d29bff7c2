/** Builds the image of an architecture: the native layer, linked with the engine. It is kept by the content of all that goes in. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensureCacheDir } from '@virtio/qemu-harness/src/paths.ts';
import { run } from '@virtio/qemu-harness/src/run.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { ensureBarePackages, ensureToolchain } from './packages.ts';
import { type Architecture, TARGETS } from './machines.ts';

const NATIVE = fileURLToPath(new URL('../native', import.meta.url));

/** The flags that all sources are compiled with. */
const CFLAGS = [
  '-O2',
  '-ffreestanding',
  // Compilers turn a calloc of ours into a call of itself.
  '-fno-builtin',
  '-fno-stack-protector',
  '-fno-pic',
  '-fno-asynchronous-unwind-tables',
  '-ffunction-sections',
  '-Wall',
  '-Werror',
  '-nostdlibinc',
];

/** An image. */
export interface BareImage {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
}

/** Builds the image if it is not in the cache. */
export async function ensureBareImage(
  arch: Architecture,
  report: (line: string) => void,
): Promise<BareImage> {
  const cache = ensureCacheDir();
  const target = TARGETS[arch];
  const packages = join(await ensureBarePackages(report), target.debian, 'usr');
  const sources = ['main.c', 'heap.c', 'libc.c', 'testing.c', `${arch}.c`, `${arch}.S`];
  const hash = createHash('sha256').update(JSON.stringify([target, CFLAGS]));
  for (const name of [...sources, 'machine.h', 'link.ld']) hash.update(readFileSync(join(NATIVE, name)));
  const directory = join(cache, `bare-${arch}-${hash.digest('hex').slice(0, 16)}`);
  const path = join(directory, 'image');
  if (!existsSync(path)) {
    const { clang, lld } = await ensureToolchain(report);
    report(`bare guest: building the image for ${arch}`);
    const temporary = mkdtempSync(`${directory}.new-`);
    try {
      const only = (folder: string, end: string): string => {
        const name = readdirSync(folder).find((entry) => entry.endsWith(end));
        if (name !== undefined) return join(folder, name);
        throw new HarnessError(
          'IMAGE_FAILED',
          `${folder} has no file whose name ends in ${end}; delete the folder and try again.`,
        );
      };
      const lib = join(packages, 'lib');
      const includes = [only(join(packages, 'include'), '-linux-musl'), join(packages, 'include', 'quickjs')];
      const objects = await Promise.all(
        sources.map(async (name) => {
          const object = join(temporary, `${name}.o`);
          await run('IMAGE_FAILED', clang, [
            `--target=${target.gnu}-musl`,
            ...target.cflags,
            ...CFLAGS,
            ...includes.flatMap((folder) => ['-isystem', folder]),
            ...['-c', join(NATIVE, name), '-o', object],
          ]);
          return object;
        }),
      );
      await run('IMAGE_FAILED', lld, [
        ...['-static', '--gc-sections', '--strip-all', '-z', 'norelro', '-T', join(NATIVE, 'link.ld')],
        `--defsym=RAM_BASE=${target.load}`,
        ...['-o', join(temporary, 'image'), ...objects],
        join(only(lib, '-linux-gnu'), 'quickjs', 'libquickjs.a'),
        join(only(lib, '-linux-musl'), 'libc.a'),
        join(only(join(lib, 'gcc'), '-linux-gnu'), '14', 'libgcc.a'),
      ]);
      for (const object of objects) rmSync(object);
      mkdirSync(cache, { recursive: true });
      rmSync(directory, { recursive: true, force: true });
      renameSync(temporary, directory);
    } finally {
      rmSync(temporary, { recursive: true, force: true });
    }
  }
  return { path, size: statSync(path).size };
}
