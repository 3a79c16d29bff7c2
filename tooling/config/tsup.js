// How every library of the house is built: one ES module with its declarations and source map.
// The workspace packages it imports stay imports, and so does everything in `dependencies`.
import { defineConfig } from 'tsup';

/** @param {import('tsup').Options} [overrides] */
export const library = (overrides = {}) =>
  defineConfig({
    entry: ['src/index.ts'],
    format: ['esm'],
    target: 'es2024',
    platform: 'neutral',
    tsconfig: 'tsconfig.build.json',
    dts: true,
    sourcemap: true,
    clean: true,
    treeshake: false,
    splitting: false,
    silent: true,
    ...overrides,
  });

export default library();
