/**
 * Bundles a TypeScript file for the guest: one ES module with everything it imports, except Node.js' own modules and
 * koffi, which the image has. Errors are reported before any guest boots.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { build, type BuildFailure, type BuildOptions, type Message, type OutputFile } from 'esbuild';
import { HarnessError } from '../errors.ts';
import { HARNESS_DIR } from '../paths.ts';

/**
 * Bundles the file and returns the module's text, with a source map inside.
 *
 * @param options `small`: without comments, spaces and the source map, for programs that are started often: a guest reads it each time
 */
export async function bundle(file: string, { small = false } = {}): Promise<Uint8Array> {
  const path = resolve(file);
  if (!existsSync(path) || !statSync(path).isFile()) {
    throw new HarnessError('BUNDLE_FAILED', `There is no file ${path}.`);
  }
  const [output] = await runBuild(
    {
      entryPoints: [path],
      absWorkingDir: dirname(path),
      sourceRoot: `${dirname(path)}/`,
      ...(small && { minify: true, sourcemap: false }),
    },
    file,
  );
  if (output === undefined) {
    throw new HarnessError('BUNDLE_FAILED', `${file}: the bundler returned no output.`);
  }
  return output.contents;
}

/** A module and its source map. */
export interface MappedBundle {
  readonly code: Uint8Array;
  /** The source map, which stays on the host: to read it takes Node.js in a guest longer than most tests. */
  readonly map: string;
}

/** Bundles a module that is given as text, as if it were the file `name` in `directory`. */
export async function bundleSource(contents: string, directory: string, name: string): Promise<MappedBundle> {
  const stdin = { contents, resolveDir: directory, sourcefile: name, loader: 'ts' } as const;
  const outputs = await runBuild(
    {
      ...{ stdin, absWorkingDir: directory, outfile: join(directory, 'bundle.mjs') },
      ...{ sourcemap: 'external', sourcesContent: false },
    },
    name,
  );
  const output = (ending: string): OutputFile => {
    const found = outputs.find(({ path }) => path.endsWith(ending));
    if (found === undefined) throw new Error(`The bundler returned no ${ending}.`);
    return found;
  };
  return { code: output('.mjs').contents, map: output('.map').text };
}

async function runBuild(options: BuildOptions, name: string): Promise<readonly OutputFile[]> {
  try {
    const result = await build({
      sourcemap: 'inline',
      sourcesContent: true,
      ...options,
      bundle: true,
      write: false,
      platform: 'node',
      format: 'esm',
      target: 'node24',
      conditions: ['@virtio/source'],
      external: ['koffi'],
      // A script anywhere on the disk finds the packages of the project.
      nodePaths: [join(HARNESS_DIR, 'node_modules')],
      keepNames: true,
      logLevel: 'silent',
      // CommonJS packages inside an ES module still call require.
      banner: {
        js: "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);",
      },
    });
    return result.outputFiles;
  } catch (error) {
    if (!isBuildFailure(error)) throw error;
    throw new HarnessError(
      'BUNDLE_FAILED',
      `${name} cannot run in the guest:\n${error.errors.map(describe).join('\n')}`,
    );
  }
}

function isBuildFailure(error: unknown): error is BuildFailure {
  return error instanceof Error && 'errors' in error && Array.isArray(error.errors);
}

function describe({ text, location, notes }: Message): string {
  const place = location === null ? '' : `${location.file}:${location.line}:${location.column + 1}: `;
  const line = location === null ? '' : `\n    ${location.lineText.trim()}`;
  const note = notes[0]?.text;
  return `  ${place}${text}${line}${note === undefined ? '' : `\n    ${note}`}`;
}
