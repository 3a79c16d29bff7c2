/**
 * The packages in a guest as npm installs them: the same tree as in the check of installed packages, without the repository.
 */
import { deepEqual } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { disk, guestTest, type HostEnv } from '../../framework/define.ts';
import { addressOf } from '../linux/_linux.ts';

const exec = promisify(execFile);

const SIZE = 1 << 20;
const APP = '/tmp/app';
const TREE = 'tree.tar.gz';

/** The statements of the README, in each of the three ways to get the packages; loading Node.js once takes less time than thrice. */
const PROGRAMS = {
  'index.ts': `
import { createHash, type Hash } from 'node:crypto';
import { createRequire } from 'node:module';
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/linux';

const address = process.argv[2] as string;
const hash: Hash = createHash('sha256');
{
  using blk: VirtioBlk = openDriver(VirtioBlk, address);
  const bytes = new Uint8Array(blk.capacity * 512);
  await blk.read(0, bytes);
  hash.update(bytes);
}
const { read } = await import('./index.mjs');
const required = createRequire(import.meta.url)('./index.cjs') as { read: typeof read; where: string };
console.log(
  JSON.stringify({
    typescript: hash.digest('hex'),
    module: await read(address),
    require: await required.read(address),
    imported: import.meta.resolve('@virtio/blk'),
    required: required.where,
  }),
);
`,
  'index.mjs': `
import { createHash } from 'node:crypto';
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/linux';

export async function read(address) {
  using blk = openDriver(VirtioBlk, address);
  const bytes = new Uint8Array(blk.capacity * 512);
  await blk.read(0, bytes);
  return createHash('sha256').update(bytes).digest('hex');
}
`,
  'index.cjs': `
const { createHash } = require('node:crypto');
const { VirtioBlk } = require('@virtio/blk');
const { openDriver } = require('@virtio/linux');

exports.where = require.resolve('@virtio/blk');
exports.read = async (address) => {
  using blk = openDriver(VirtioBlk, address);
  const bytes = new Uint8Array(blk.capacity * 512);
  await blk.read(0, bytes);
  return createHash('sha256').update(bytes).digest('hex');
};
`,
} as const;

export default [
  guestTest({
    device: 'guest',
    name: 'runs programs in TypeScript, as ES modules and with require on packages that npm installed from a registry',
    long: true,
    timeoutS: 120,
    devices: { disk: disk({ size: SIZE, seed: 21 }) },
    skip: ({ transport, ring }) =>
      transport === 'pci-vfio' && ring.name === 'split' ? undefined : 'the packages are the same everywhere',
    prepare: async (directory) => {
      const cwd = join(import.meta.dirname, '../../../../..');
      const packages = ['blk', 'linux'].flatMap((name) => ['--filter', `@virtio/${name}`]);
      await exec('turbo', ['run', 'build', ...packages, '--output-logs=errors-only', '--ui=stream'], { cwd });
      const check = [
        'tooling/checks/src/install.ts',
        '--keep',
        join(directory, TREE),
        '@virtio/blk+@virtio/linux',
      ];
      await exec(process.execPath, check, { cwd });
    },
    host: {
      tree: (_args: null, { directory }: HostEnv): string =>
        readFileSync(join(directory, TREE)).toString('base64'),
      hash: (_args: null, env: HostEnv): Promise<string> => env.hashImage('disk', 0, SIZE),
    },
    async guest(context) {
      mkdirSync(APP, { recursive: true });
      writeFileSync(`${APP}/${TREE}`, Buffer.from(await context.host('tree', null), 'base64'));
      execFileSync('tar', ['-xzf', TREE], { cwd: APP });
      writeFileSync(`${APP}/package.json`, '{ "private": true, "type": "module" }');
      for (const [file, text] of Object.entries(PROGRAMS)) writeFileSync(`${APP}/${file}`, text);

      const printed = execFileSync(process.execPath, ['index.ts', addressOf(context)], {
        cwd: APP,
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const hash = await context.host('hash', null);
      const place = `${APP}/node_modules/@virtio/blk/dist/index.js`;
      deepEqual(JSON.parse(printed), {
        typescript: hash,
        module: hash,
        require: hash,
        imported: `file://${place}`,
        required: place,
      });
      rmSync(APP, { recursive: true });
    },
  }),
];
