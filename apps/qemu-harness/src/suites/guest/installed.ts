/** The packages as they are published, in a guest: unpacked from their tarballs as npm does, with nothing of the repository beside them. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { disk, guestTest, type HostEnv } from '../../framework/define.ts';
import { addressOf } from '../linux/_linux.ts';

const exec = promisify(execFile);

const SIZE = 1 << 20;
const APP = '/tmp/app';

/** What a program with a disk installs, and what that depends on. The image has koffi, which `linux` depends on. */
const PACKAGES = ['blk', 'core', 'linux', 'mmio', 'pci'] as const;

const READ = `
  const address = process.argv[2];
  using blk = openDriver(VirtioBlk, address);
  const bytes = new Uint8Array(blk.capacity * 512);
  await blk.read(0, bytes);
  console.log(createHash('sha256').update(bytes).digest('hex'));
`;

const PROGRAMS = {
  'index.ts': `
import { createHash, type Hash } from 'node:crypto';
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/linux';
const place: string = import.meta.resolve('@virtio/blk');
if (place !== 'file://${APP}/node_modules/@virtio/blk/dist/index.js') throw new Error(place);
const hash: Hash = createHash('sha256');
const address = process.argv[2] as string;
using blk: VirtioBlk = openDriver(VirtioBlk, address);
const bytes = new Uint8Array(blk.capacity * 512);
await blk.read(0, bytes);
console.log(hash.update(bytes).digest('hex'));
`,
  'index.mjs': `
import { createHash } from 'node:crypto';
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/linux';
${READ}`,
  'index.cjs': `
const { createHash } = require('node:crypto');
const { VirtioBlk } = require('@virtio/blk');
const { openDriver } = require('@virtio/linux');
(async () => {${READ}})();
`,
} as const;

interface Manifest {
  readonly name: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

export default [
  guestTest({
    device: 'guest',
    name: 'runs programs in TypeScript, as ES modules and with require on packages installed from their tarballs',
    long: true,
    timeoutS: 120,
    devices: { disk: disk({ size: SIZE, seed: 21 }) },
    skip: ({ transport, ring }) =>
      transport === 'pci-vfio' && ring.name === 'split' ? undefined : 'the packages are the same everywhere',
    prepare: async (directory) => {
      const filters = PACKAGES.flatMap((name) => ['--filter', `@virtio/${name}`]);
      const cwd = join(import.meta.dirname, '../../../../..');
      await exec('turbo', ['run', 'build', ...filters, '--output-logs=errors-only', '--ui=stream'], { cwd });
      await exec('pnpm', ['-r', ...filters, 'pack', '--pack-destination', join(directory, 'tarballs')], {
        cwd,
      });
    },
    host: {
      tarballs: (_args: null, { directory }: HostEnv): readonly string[] =>
        readdirSync(join(directory, 'tarballs')).sort(),
      tarball: ({ file }: { file: string }, { directory }: HostEnv): string =>
        readFileSync(join(directory, 'tarballs', file)).toString('base64'),
      hash: (_args: null, env: HostEnv): Promise<string> => env.hashImage('disk', 0, SIZE),
    },
    async guest(context) {
      const tree = `${APP}/node_modules/@virtio`;
      mkdirSync(tree, { recursive: true });
      const installed = new Map<string, Manifest>();
      for (const file of await context.host('tarballs', null)) {
        writeFileSync('/tmp/tarball', Buffer.from(await context.host('tarball', { file }), 'base64'));
        execFileSync('tar', ['-xzf', '/tmp/tarball', '-C', APP]);
        const manifest = JSON.parse(readFileSync(`${APP}/package/package.json`, 'utf8')) as Manifest;
        installed.set(manifest.name, manifest);
        execFileSync('mv', [`${APP}/package`, `${APP}/node_modules/${manifest.name}`]);
      }
      deepEqual(
        [...installed.keys()].sort(),
        PACKAGES.map((name) => `@virtio/${name}`),
      );
      for (const { name, dependencies = {} } of installed.values()) {
        for (const [other, range] of Object.entries(dependencies)) {
          ok(installed.has(other) || other === 'koffi', `${name} needs ${other}, which is not here`);
          ok(/^[\^\d]/.test(range), `${name} needs ${other} ${range}`);
        }
      }

      const wanted = await context.host('hash', null);
      writeFileSync(`${APP}/package.json`, '{ "private": true, "type": "module" }');
      for (const [file, text] of Object.entries(PROGRAMS)) {
        writeFileSync(`${APP}/${file}`, text);
        const printed = execFileSync(process.execPath, [file, addressOf(context)], {
          cwd: APP,
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        equal(printed, `${wanted}\n`, file);
      }
      rmSync(APP, { recursive: true });
      rmSync('/tmp/tarball');
    },
  }),
];
