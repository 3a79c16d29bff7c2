// How every library of the project is built: one ES module with its declarations and source map.
// Imports of workspace packages, of `dependencies` and of Node.js stay imports.
import fs from 'node:fs';
import { build } from 'esbuild';
import { defineConfig } from 'tsup';
import { pureTables, terse } from './terse.js';

const target = 'es2024';
const platform = 'neutral';

/** Builds the file of the condition `virtio-terse`, if the package of the current folder has it. */
async function buildTerse() {
  const { exports } = JSON.parse(fs.readFileSync('package.json', 'utf8'));
  const outfile = exports['.']['virtio-terse'];
  if (outfile === undefined) return;
  await build({
    entryPoints: ['src/index.ts'],
    bundle: true,
    packages: 'external',
    format: 'esm',
    target,
    platform,
    plugins: [terse],
    outfile,
  });
}

export default defineConfig({
  entry: ['src/index.ts'],
  format: ['esm'],
  target,
  platform,
  external: [/^node:/],
  esbuildPlugins: [pureTables],
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.json',
  dts: true,
  sourcemap: true,
  clean: true,
  treeshake: false,
  splitting: false,
  silent: true,
  onSuccess: buildTerse,
});
