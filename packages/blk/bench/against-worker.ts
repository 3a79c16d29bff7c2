/** Measures the packages of one tree, told by `against.ts`: a sample of each row whenever it is asked. */
import path from 'node:path';
import { CommonFeatures } from '@virtio/core';
import { type Sample, sampler } from '@virtio/checks/measure';
import { bareRow, type Packages, rows } from './rows.ts';

const tree = process.argv[2] ?? '';
const load = (file: string): Promise<unknown> => import(path.join(tree, 'packages', file));
const packages = {
  testing: await load('testing/src/index.ts'),
  disk: await load('blk/examples/fake-disk.ts'),
  blk: await load('blk/src/index.ts'),
} as Packages;

const split = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;
const all = [
  ...rows(packages, split).map(([name, ...rest]) => [`split: ${name}`, ...rest] as const),
  ...rows(packages, split | CommonFeatures.mask('RING_PACKED')).map(
    ([name, ...rest]) => [`packed: ${name}`, ...rest] as const,
  ),
  bareRow(),
];
// Twice, as in the first time the code is compiled anew whenever a row takes another way.
for (const row of all) await (await sampler(row))();
const samplers = new Map<string, () => Promise<Sample>>();
for (const row of all) samplers.set(row[0], await sampler(row));
process.on('message', () => {
  void (async () => {
    const found: Record<string, Sample> = {};
    for (const [name, sample] of samplers) found[name] = await sample();
    process.send?.(found);
  })();
});
process.send?.('ready');
