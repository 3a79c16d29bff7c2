import path from 'node:path';
import { build } from 'esbuild';
import { expect, it } from 'vitest';
import { libraries } from './workspace.ts';

/** The classes of a package whose bundle has another name for them than the source. */
async function renamed(folder: string): Promise<string[]> {
  const { outputFiles } = await build({
    entryPoints: [path.join(folder, 'src/index.ts')],
    bundle: true,
    packages: 'external',
    format: 'esm',
    target: 'es2024',
    platform: 'neutral',
    write: false,
  });
  return outputFiles.flatMap(({ text }) =>
    [...text.matchAll(/class (_\w*Error)\b/g)].map(([, name = '']) => name),
  );
}

it('keeps the names of error classes, which Node.js prints', { timeout: 60_000 }, async () => {
  const found: Record<string, string[]> = {};
  for (const { name, folder } of libraries()) found[name] = await renamed(folder);
  expect(found).toEqual(Object.fromEntries(libraries().map(({ name }) => [name, []])));
});
