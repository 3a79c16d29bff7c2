/** Node.js for the guest: the very binary that runs the harness, the libraries it is linked to, and koffi. */
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { run } from '../run.ts';
import type { CpioEntry } from './cpio.ts';

/** A file of the host and its place in the image. */
export interface ImageFile {
  readonly source: string;
  readonly path: string;
  readonly mode: number;
}

/** All files that `import 'koffi'` needs at run time. */
const KOFFI_FILES = [
  'package.json',
  'index.js',
  'index.cjs',
  'src/koffi/index.js',
  'src/koffi/index.cjs',
  'src/koffi/src/static.js',
  'src/koffi/src/static.cjs',
];

/** The files of Node.js, its libraries and koffi. */
export async function runtimeFiles(): Promise<ImageFile[]> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new HarnessError(
      'UNSUPPORTED_HOST',
      `The guest runs the host's own Node.js, so the host must be Linux on x86-64; this is ${process.platform} on ${process.arch}.`,
    );
  }
  const files: ImageFile[] = [{ source: process.execPath, path: 'usr/bin/node', mode: 0o755 }];
  for (const library of await sharedLibraries(process.execPath)) {
    files.push({ source: realpathSync(library), path: library.replace(/^\//, ''), mode: 0o755 });
  }
  const { main, native } = koffiFolders();
  for (const name of KOFFI_FILES) {
    files.push({ source: join(main, name), path: `node_modules/koffi/${name}`, mode: 0o644 });
  }
  const nativeTarget = 'node_modules/@koromix/koffi-linux-x64';
  for (const name of ['package.json', 'index.js']) {
    files.push({ source: join(native, name), path: `${nativeTarget}/${name}`, mode: 0o644 });
  }
  for (const name of readdirSync(join(native, 'linux_x64'))) {
    files.push({
      source: join(native, 'linux_x64', name),
      path: `${nativeTarget}/linux_x64/${name}`,
      mode: 0o755,
    });
  }
  return files;
}

/** Reads the files into entries of an archive. */
export function toEntries(files: readonly ImageFile[]): CpioEntry[] {
  return files.map(({ source, path, mode }) => ({ type: 'file', path, mode, data: readFileSync(source) }));
}

/** The libraries that the dynamic linker would load, the linker included, as absolute paths. */
async function sharedLibraries(binary: string): Promise<string[]> {
  return parseLdd(await run('IMAGE_FAILED', 'ldd', [binary]));
}

/** Takes the paths from what `ldd` prints. */
export function parseLdd(text: string): string[] {
  const paths: string[] = [];
  for (const line of text.split('\n')) {
    const missing = /^\s*(\S+) => not found/.exec(line);
    if (missing !== null) {
      throw new HarnessError(
        'IMAGE_FAILED',
        `Node.js needs the library ${missing[1] ?? ''}, which this system does not have.`,
      );
    }
    const path = /(?:=> |^\s+)(\/\S+) \(0x/.exec(line)?.[1];
    if (path !== undefined) paths.push(path);
  }
  return paths;
}

// With pnpm, koffi's native package is found from koffi's own folder only.
function koffiFolders(): { main: string; native: string } {
  const main = dirname(realpathSync(createRequire(import.meta.url).resolve('koffi')));
  const native = dirname(
    realpathSync(createRequire(join(main, 'index.cjs')).resolve('@koromix/koffi-linux-x64/package.json')),
  );
  if (!statSync(native).isDirectory()) {
    throw new HarnessError('IMAGE_FAILED', `koffi's native library is missing in ${native}.`);
  }
  return { main, native };
}
