// How every library of the house is built: one ES module with its declarations and source map.
// Imports of workspace packages, of `dependencies` and of Node.js stay imports.
import { defineConfig } from 'tsup';

export default defineConfig({
  entry: ['src/index.ts'],
  format: ['esm'],
  target: 'es2024',
  platform: 'neutral',
  external: [/^node:/],
  removeNodeProtocol: false,
  tsconfig: 'tsconfig.json',
  dts: true,
  sourcemap: true,
  clean: true,
  treeshake: false,
  splitting: false,
  silent: true,
});
