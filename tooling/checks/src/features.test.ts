import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { libraries } from './workspace.ts';

/** What a table of features can do, see `defineFeatures` of core. */
interface FeatureTable {
  names(bits: bigint): readonly string[];
}

const tables = await Promise.all(
  libraries().map(async ({ name, folder }) => {
    const module = (await import(pathToFileURL(path.join(folder, 'src/index.ts')).href)) as Record<
      string,
      unknown
    >;
    return Object.keys(module)
      .filter((key) => key.endsWith('Features'))
      .map((table) => ({ name, folder, table, features: module[table] as FeatureTable | undefined }))
      .filter(({ features }) => typeof features?.names === 'function');
  }),
).then((found) => found.flat());

const all = ({ features }: { features: FeatureTable | undefined }): readonly string[] =>
  features?.names(~0n) ?? [];
const common = all(tables.find(({ table }) => table === 'CommonFeatures') ?? { features: undefined });

it('finds the tables of all devices that have features of their own', () => {
  expect(tables.map(({ table }) => table)).toEqual(
    expect.arrayContaining([
      'BlkFeatures',
      'CommonFeatures',
      'ConsoleFeatures',
      'GpuFeatures',
      'NetFeatures',
    ]),
  );
  expect(common.length).toBeGreaterThan(10);
});

it.each(tables)(
  'the README of $name tells of each feature of $table, accepted or not',
  ({ folder, table, features }) => {
    const readme = fs.readFileSync(path.join(folder, 'README.md'), 'utf8');
    const own = all({ features }).filter(
      (feature) => table === 'CommonFeatures' || !common.includes(feature),
    );
    expect(own.filter((feature) => !readme.includes(`\`${feature}\``))).toEqual([]);
  },
);
