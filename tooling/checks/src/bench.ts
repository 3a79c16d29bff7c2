/**
 * `npm run bench [-- part of a file's name]`: runs every `bench/*.bench.ts` of packages and apps, each in a process of its own
 * whose garbage collector can be called and does not come by itself while 16 MB are allocated, then prints the sizes of the
 * packages.
 */
import fs from 'node:fs';
import path from 'node:path';
import { run } from '@virtio/setup/processes';
import { USAGE } from '@virtio/setup/usage';
import { printSizes, sizes } from './sizes.ts';
import { root } from './workspace.ts';

const wanted = process.argv.slice(2);
const all = fs.globSync('{packages,apps}/*/bench/*.bench.ts', { cwd: root }).sort();
const files = all.filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)));
if (files.length === 0) {
  console.error(
    `No benchmark matches ${wanted.join(' or ')}; there are ${all.join(', ')}.\n\n${USAGE.bench}`,
  );
  process.exitCode = 2;
}
for (const file of files) {
  console.log(`\n${file}`);
  const args = [
    '--expose-gc',
    '--min-semi-space-size=16',
    '--conditions=@virtio/source',
    path.join(root, file),
  ];
  const status = await run(process.execPath, args, { cwd: root });
  if (status !== 0) process.exitCode = status;
}
if (wanted.length === 0) {
  console.log('\nsizes (esbuild --minify, gzip -9)');
  printSizes(await sizes());
}
