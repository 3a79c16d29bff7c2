/**
 * No module imports itself by way of others, not even for a type: what depends on each other belongs into one file, or the part that
 * both need into one of its own.
 */
import { parseCircular, parseDependencyTree } from 'dpdm';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { root } from './workspace.ts';

const TIMEOUT_MS = 300_000;

const cycles = async (context: string, ...globs: readonly string[]): Promise<string[][]> => {
  const tree = await parseDependencyTree([...globs], { context, cwd: context, transform: false });
  // If nothing was found there would be no cycle either.
  expect(Object.keys(tree).length).toBeGreaterThan(1);
  return parseCircular(tree);
};

it('finds a cycle of types', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'cycles-'));
  try {
    fs.writeFileSync(path.join(folder, 'a.ts'), "import { type B } from './b.ts';\nexport type A = B | 1;\n");
    fs.writeFileSync(path.join(folder, 'b.ts'), "import type { A } from './a.ts';\nexport type B = A | 2;\n");
    const found = await cycles(folder, '*.ts');
    expect(found.map((cycle) => cycle.toSorted())).toEqual([['a.ts', 'b.ts']]);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

it(
  'no module imports itself by way of others',
  async () => {
    const sources = '{packages,apps,tooling}/*/{src,guest,browser,test,fuzz,bench,examples}/**/*.ts';
    expect(await cycles(root, sources)).toEqual([]);
  },
  TIMEOUT_MS,
);
