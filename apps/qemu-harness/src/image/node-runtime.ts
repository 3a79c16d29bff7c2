/**
 * Node.js for the guest, the libraries it is linked to, and koffi: the very binary that runs the harness, or one of the guest's own
 * architecture.
 */
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { run } from '../run.ts';
import type { ForeignPackages } from '../setup/foreign-packages.ts';
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
  const main = koffiFolder();
  return [...files, ...koffiFiles(main, nativeFolder(main), 'x64')];
}

/** The modules that Debian's Node.js has outside its binary and loads for what the guest does. */
const DEBIAN_MODULES = [
  'usr/share/nodejs/acorn/dist/acorn.js',
  'usr/share/nodejs/acorn-walk/dist/walk.js',
  'usr/share/nodejs/undici/undici-fetch.js',
];

/** The same for a guest of another architecture, from its packages. */
export function foreignRuntimeFiles(packages: ForeignPackages, node: string): ImageFile[] {
  const { userland, npmNode, koffi } = packages;
  const binary = npmNode === undefined ? join(userland, 'usr/bin/node') : join(npmNode, 'bin/node');
  const files: ImageFile[] = [{ source: binary, path: 'usr/bin/node', mode: 0o755 }];
  const [triplet = ''] = readdirSync(join(userland, 'usr/lib')).filter((name) => name.endsWith('-linux-gnu'));
  for (const name of sonames(join(userland, 'usr/lib', triplet))) {
    const source = realpathSync(join(userland, 'usr/lib', triplet, name));
    files.push({ source, path: `lib/${triplet}/${name}`, mode: 0o755 });
    // Binaries name the dynamic linker by this path.
    if (name.startsWith('ld-linux-')) files.push({ source, path: `lib/${name}`, mode: 0o755 });
  }
  if (npmNode === undefined) {
    const there = DEBIAN_MODULES.filter((path) => existsSync(join(userland, path)));
    files.push(...there.map((path) => ({ source: join(userland, path), path, mode: 0o644 })));
  }
  return [...files, ...koffiFiles(koffiFolder(), koffi, node)];
}

/** The libraries of a folder by the names that programs are linked to: links where there are some, else files. */
export function sonames(directory: string): string[] {
  const names = readdirSync(directory).filter((name) => /\.so\.\d/.test(name));
  const links = names.filter((name) => lstatSync(join(directory, name)).isSymbolicLink());
  const targets = new Set(links.map((name) => basename(readlinkSync(join(directory, name)))));
  return names.filter((name) => !targets.has(name)).sort();
}

/** koffi: what is written in JavaScript, and its native part in the folders that its package has for this architecture. */
function koffiFiles(main: string, native: string, node: string): ImageFile[] {
  const target = `node_modules/@koromix/koffi-linux-${node}`;
  const folders = readdirSync(native).filter((name) => name.startsWith(`linux_${node}`));
  return [
    ...KOFFI_FILES.map((name) => {
      return { source: join(main, name), path: `node_modules/koffi/${name}`, mode: 0o644 };
    }),
    ...['package.json', 'index.js'].map((name) => {
      return { source: join(native, name), path: `${target}/${name}`, mode: 0o644 };
    }),
    ...folders.flatMap((folder) =>
      readdirSync(join(native, folder)).map((name) => {
        return { source: join(native, folder, name), path: `${target}/${folder}/${name}`, mode: 0o755 };
      }),
    ),
  ];
}

/** Reads the files into entries of an archive. */
export function toEntries(files: readonly ImageFile[]): CpioEntry[] {
  return files.map(({ source, path, mode }) => ({ type: 'file', path, mode, data: readFileSync(source) }));
}

/** The libraries that the dynamic linker would load, the linker included, as absolute paths. */
export async function sharedLibraries(binary: string): Promise<string[]> {
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

function koffiFolder(): string {
  return dirname(realpathSync(createRequire(import.meta.url).resolve('koffi')));
}

// With pnpm, koffi's native package is found from koffi's own folder only.
function nativeFolder(main: string): string {
  const native = dirname(
    realpathSync(createRequire(join(main, 'index.cjs')).resolve('@koromix/koffi-linux-x64/package.json')),
  );
  if (!statSync(native).isDirectory()) {
    throw new HarnessError('IMAGE_FAILED', `koffi's native library is missing in ${native}.`);
  }
  return native;
}
