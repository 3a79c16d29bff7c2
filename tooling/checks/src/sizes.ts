/** How many bytes a package costs its user: bundled and minified by esbuild, then gzipped. */
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { libraries, root } from './workspace.ts';

export interface Size {
  readonly what: string;
  readonly minified: number;
  readonly gzipped: number;
}

/** Everything that the packages export, kept: the upper bound of what a program takes from them. */
async function measure(what: string, folders: readonly string[], external: readonly string[]): Promise<Size> {
  const contents = folders
    .map(
      (folder, index) => `export * as p${index} from ${JSON.stringify(path.join(folder, 'src/index.ts'))};`,
    )
    .join('\n');
  const result = await build({
    stdin: { contents, resolveDir: root, loader: 'ts' },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: 'es2024',
    platform: 'neutral',
    conditions: ['@virtio/source'],
    external: ['node:*', 'koffi', ...external],
    logLevel: 'error',
  });
  const bytes = result.outputFiles[0]?.contents ?? new Uint8Array();
  return { what, minified: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
}

/** The size of each package without the other packages, then of the bundle that a disk needs. */
export async function sizes(): Promise<Size[]> {
  const all = libraries();
  const each = await Promise.all(all.map(({ name, folder }) => measure(name, [folder], ['@virtio/*'])));
  const disk = ['core', 'pci', 'blk'].map((name) => path.join(root, 'packages', name));
  return [...each, await measure('core + pci + blk', disk, [])];
}

export function printSizes(rows: readonly Size[]): void {
  console.log(`${'bytes of'.padEnd(24)}${'minified'.padStart(10)}${'gzipped'.padStart(10)}`);
  for (const { what, minified, gzipped } of rows) {
    console.log(`${what.padEnd(24)}${String(minified).padStart(10)}${String(gzipped).padStart(10)}`);
  }
}
