/**
 * Bundles a TypeScript file for the guest: one ES module with everything it imports, except Node.js' own modules and
 * koffi, which the image has. Errors are reported before any guest boots.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { build, type BuildFailure, type BuildOptions, type Message } from 'esbuild';
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
  return runBuild(
    {
      entryPoints: [path],
      absWorkingDir: dirname(path),
      sourceRoot: `${dirname(path)}/`,
      ...(small && { minify: true, sourcemap: false }),
    },
    file,
  );
}

/** Bundles a module that is given as text, as if it were the file `name` in `directory`. */
export async function bundleSource(contents: string, directory: string, name: string): Promise<Uint8Array> {
  const stdin = { contents, resolveDir: directory, sourcefile: name, loader: 'ts' } as const;
  return runBuild({ stdin, absWorkingDir: directory, sourceRoot: `${directory}/` }, name);
}

async function runBuild(options: BuildOptions, name: string): Promise<Uint8Array> {
  try {
    const result = await build({
      sourcemap: 'inline',
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
      sourcesContent: true,
      keepNames: true,
      logLevel: 'silent',
      // CommonJS packages inside an ES module still call require.
      banner: {
        js: "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);",
      },
    });
    const output = result.outputFiles[0];
    if (output === undefined) {
      throw new HarnessError('BUNDLE_FAILED', `${name}: the bundler returned no output.`);
    }
    return output.contents;
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
