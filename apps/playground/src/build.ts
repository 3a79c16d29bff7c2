/**
 * Writes the playground to a folder: a page, its style, and one script that has everything, so that it works from a disk, too. The
 * manual has it (`npm run docs`); `node --conditions=@virtio/source src/build.ts FOLDER` makes it alone.
 */
import fs from 'node:fs';
import path from 'node:path';
import { build, type BuildOptions } from 'esbuild';

const here = path.resolve(import.meta.dirname, '..');
const tutorial = path.resolve(here, '../examples/src/balloon');

const EXAMPLES = [
  { title: 'Console', files: ['examples/console.ts'] },
  { title: 'Shared folder', files: ['examples/shared-folder.ts'] },
  {
    title: 'The balloon of the tutorial',
    files: [
      'examples/balloon.ts',
      path.join(tutorial, 'virtio-balloon.ts'),
      path.join(tutorial, 'protocol.ts'),
    ],
  },
];

/** In the playground all files of a program lie in one folder. */
function textOf(file: string): string {
  return fs.readFileSync(file, 'utf8').replace(/from '(?:\.{1,2}\/)+(?:[\w-]+\/)*/g, "from './");
}

/** The programs that a reader starts from. */
export function examples(): { title: string; files: [name: string, text: string][] }[] {
  return EXAMPLES.map(({ title, files }) => ({
    title,
    files: files.map((file) => [path.basename(file), textOf(path.resolve(here, file))]),
  }));
}

const COMMON = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  write: false,
  format: 'iife',
  platform: 'browser',
  target: 'es2024',
  conditions: ['@virtio/source'],
  legalComments: 'eof',
  logLevel: 'error',
} as const satisfies BuildOptions;

async function bundle(entry: string, options: BuildOptions): Promise<string> {
  const { outputFiles } = await build({ ...COMMON, ...options, entryPoints: [entry], write: false });
  return outputFiles[0]?.text ?? '';
}

/** Writes the playground to `folder`. */
export async function buildPlayground(folder: string): Promise<void> {
  const worker = await bundle('browser/worker.ts', {
    loader: { '.wasm': 'binary' },
    // v86 asks for these where it finds itself in Node.js.
    external: ['node:*', 'fs', 'crypto', 'perf_hooks'],
  });
  const define = { EXAMPLES: JSON.stringify(examples()), WORKER: JSON.stringify(worker) };
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'playground.js'), await bundle('browser/page.ts', { define }));
  for (const file of ['index.html', 'style.css']) {
    fs.copyFileSync(path.join(here, 'browser', file), path.join(folder, file));
  }
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) {
    console.error('Give the folder to write to: node --conditions=@virtio/source src/build.ts FOLDER');
    process.exit(2);
  }
  await buildPlayground(path.resolve(folder));
}
