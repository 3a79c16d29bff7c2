/**
 * Bundles TypeScript for the engine: one ES module of ECMAScript 2023, with what the engine lacks ahead of it. Modules of Node.js'
 * are not there; a few that tests use have small stand-ins, the others throw where something of them is used.
 */
import { existsSync, statSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type BuildFailure, type BuildOptions, type Plugin } from 'esbuild';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';

const APP = fileURLToPath(new URL('..', import.meta.url));
const GUEST = join(APP, 'guest');

/** Bundles a file. Its arguments become the global `scriptArgs`. */
export async function bundleFile(file: string, args: readonly string[] = []): Promise<Uint8Array> {
  const path = resolve(file);
  if (!existsSync(path) || !statSync(path).isFile()) {
    throw new HarnessError('BUNDLE_FAILED', `There is no file ${path}.`);
  }
  const text = `import ${JSON.stringify(path)};`;
  const banner = `globalThis.scriptArgs = ${JSON.stringify(args)};`;
  return bundleText(text, { resolveDir: dirname(path), banner });
}

/** How a module is bundled that is given as text. */
export interface BundleOptions {
  /** The folder that it stands in. */
  readonly resolveDir: string;
  /** Stand-ins for modules. */
  readonly plugins?: readonly Plugin[];
  /** What runs ahead of everything but the polyfill, in place of a guest's prelude. */
  readonly prelude?: string;
  readonly banner?: string;
  readonly alias?: Readonly<Record<string, string>>;
  /** Modules that the engine itself has. */
  readonly external?: readonly string[];
}

/** Bundles a module that is given as text. */
export async function bundleText(contents: string, how: BundleOptions): Promise<Uint8Array> {
  const { resolveDir, plugins = [], prelude = join(GUEST, 'prelude.ts'), banner = '', alias, external } = how;
  const options: BuildOptions = {
    stdin: { contents, resolveDir, sourcefile: 'script.ts', loader: 'ts' },
    inject: [join(GUEST, 'polyfill.ts'), prelude],
    plugins: [...plugins, missing],
    banner: { js: banner },
    absWorkingDir: APP,
    nodePaths: [join(APP, 'node_modules')],
    alias: { '@virtio/bare-guest': join(GUEST, 'index.ts'), ...alias },
    external: [...(external ?? [])],
  };
  try {
    const result = await build({
      ...options,
      bundle: true,
      write: false,
      platform: 'neutral',
      mainFields: ['module', 'main'],
      format: 'esm',
      target: 'es2023',
      conditions: ['@virtio/source'],
      keepNames: true,
      logLevel: 'silent',
    });
    const [output] = result.outputFiles;
    if (output === undefined) throw new HarnessError('BUNDLE_FAILED', 'The bundler returned no output.');
    return output.contents;
  } catch (error) {
    if (!isBuildFailure(error)) throw error;
    const lines = error.errors.map(({ text, location }) =>
      location === null ? `  ${text}` : `  ${location.file}:${location.line}:${location.column + 1}: ${text}`,
    );
    throw new HarnessError('BUNDLE_FAILED', `The script cannot run in a bare guest:\n${lines.join('\n')}`);
  }
}

/** A module of Node.js' throws where something of it is used. */
const missing: Plugin = {
  name: 'missing',
  setup(host) {
    host.onResolve(
      { filter: /^(node:|(koffi|fast-png|crypto|fs|perf_hooks|timers|timers\/promises|util)$)/ },
      ({ path }) => ({
        path,
        namespace: 'missing',
      }),
    );
    host.onLoad({ filter: /.*/, namespace: 'missing' }, async ({ path }) => {
      const names = isBuiltin(path) ? Object.keys((await import(path)) as object) : ['decode', 'encode'];
      const lines = [
        `import { notHere } from ${JSON.stringify(join(GUEST, 'not-here.ts'))};`,
        ...names
          .filter((name) => name !== 'default')
          .map(
            (name, index) =>
              `const v${index} = notHere(${JSON.stringify(path)}, '${name}'); export { v${index} as ${name} };`,
          ),
        `export default notHere(${JSON.stringify(path)}, 'default');`,
      ];
      return { contents: lines.join('\n'), resolveDir: GUEST, loader: 'js' };
    });
  },
};

function isBuildFailure(error: unknown): error is BuildFailure {
  return error instanceof Error && 'errors' in error && Array.isArray(error.errors);
}
