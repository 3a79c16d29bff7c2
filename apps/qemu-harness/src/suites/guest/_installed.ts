/**
 * Packages in a guest as npm installs them: the very trees that the check of installed packages has tried, without the repository. The program
 * that uses them is the example with which the package's README begins.
 */
import { deepEqual, equal, notEqual, ok } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { GuestContext } from '../../framework/define.ts';
import { type Running, start } from '../_program.ts';
import { addressOf } from '../linux/_linux.ts';

const exec = promisify(execFile);

/** The packages of devices. */
export type DevicePackage =
  '9p' | 'blk' | 'console' | 'fs' | 'gpu' | 'input' | 'net' | 'rng' | 'socket' | 'sound';

const root = (): string => join(import.meta.dirname, '../../../../..');

let installing: Promise<void> | undefined;

/** Builds and installs the packages of all devices, where that was not done with the same files. */
function install(): Promise<void> {
  return (installing ??= (async () => {
    const cwd = root();
    const build = ['run', 'build', '--filter=@virtio/*', '--output-logs=errors-only', '--ui=stream'];
    await exec('turbo', build, { cwd });
    await exec(process.execPath, ['tooling/checks/src/install.ts', '--missing'], { cwd });
  })());
}

/** What was installed for a device's package. */
interface Installed {
  /** The names of all packages, `linux` and its own among them. */
  readonly packages: readonly string[];
  /** The first example of its README. */
  readonly example: string;
}

/** The archive with all that was installed: most packages are in each tree, and are in it once. */
const ARCHIVE = 'installed.tar';
const STORE = '/tmp/installed';
const LIST = 'installed.json';

/** Puts what npm installed for these packages into the guest, and their examples. */
export async function prepareInstalled(names: readonly DevicePackage[], directory: string): Promise<void> {
  await install();
  const trees = join(root(), '.cache/installed');
  const all = join(directory, 'installed');
  const list: Partial<Record<DevicePackage, Installed>> = {};
  for (const name of names) {
    const file = readdirSync(trees).find((one) => one.startsWith(`${name}-`) && one.endsWith('.tar.gz'));
    if (file === undefined) throw new Error(`@virtio/${name} was not installed`);
    const folder = mkdtempSync(join(directory, 'tree-'));
    execFileSync('tar', ['-xzf', join(trees, file), '-C', folder]);
    const readme = readFileSync(join(root(), 'packages', name, 'README.md'), 'utf8');
    const example = /^```ts\n(.*?)^```/ms.exec(readme)?.[1];
    if (example === undefined) throw new Error(`the README of @virtio/${name} has no example`);
    list[name] = { packages: readdirSync(join(folder, 'node_modules/@virtio')), example };
    cpSync(folder, all, { recursive: true });
  }
  writeFileSync(join(all, LIST), JSON.stringify(list));
  mkdirSync(join(directory, 'guest'));
  execFileSync('tar', ['-cf', join(directory, 'guest', ARCHIVE), '-C', all, '.']);
}

/** Makes the folder `node_modules` of a program in the guest, with the packages of one tree and no others; returns the example. */
function unpack(name: DevicePackage, app: string): string {
  if (!existsSync(STORE)) {
    mkdirSync(STORE);
    execFileSync('tar', ['-xf', `/guest/${ARCHIVE}`, '-C', STORE]);
  }
  const list = JSON.parse(readFileSync(`${STORE}/${LIST}`, 'utf8')) as Record<DevicePackage, Installed>;
  const { packages, example } = list[name];
  mkdirSync(`${app}/node_modules/@virtio`, { recursive: true });
  const from = packages.map((one) => `${STORE}/node_modules/@virtio/${one}`);
  execFileSync('cp', ['-al', ...from, `${app}/node_modules/@virtio`]);
  return example;
}

/** The address that all examples have. */
const EXAMPLE = "'0000:00:03.0'";

/** Gets the packages in both ways that JavaScript knows, opens the device, and then goes on with the example, in TypeScript. */
const ENTRY = `
import { createRequire } from 'node:module';

const [name, address, options] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const names = ['@virtio/' + name, '@virtio/linux'];
const imported = await Promise.all(names.map((one) => import(one)));
const required = names.map((one) => require(one));
const [, Driver] = Object.entries(required[0]).find(([key]) => key.toLowerCase() === 'virtio' + name);
{
  using driver = required[1].openDriver(Driver, address, JSON.parse(options));
  console.log(
    JSON.stringify({
      imported: import.meta.resolve(names[0]),
      required: require.resolve(names[0]),
      same: imported[0][Driver.name] === Driver && imported[1].openDriver === required[1].openDriver,
      features: driver.features.names(),
    }),
  );
}
await import('./example.ts');
`;

/**
 * Starts the example of a package on the test's device `device`; it has what was installed and nothing else.
 *
 * @param more statements behind the example
 */
export function startExample(
  context: Pick<GuestContext, 'cell' | 'device'>,
  name: DevicePackage,
  device: string,
  more = '',
): Running {
  const app = `/tmp/app-${name}`;
  const example = unpack(name, app);

  const address = addressOf(context, device);
  const options = { unsafePhysicalMemory: context.cell.transport !== 'pci-vfio' };
  const program = example.replace(EXAMPLE, `'${address}', ${JSON.stringify(options)}`);
  notEqual(program, example, `the example opens no device at ${EXAMPLE}`);
  writeFileSync(`${app}/package.json`, '{ "private": true, "type": "module" }');
  writeFileSync(`${app}/example.ts`, `${program}${more}`);
  writeFileSync(`${app}/index.mjs`, ENTRY);
  return start(['index.mjs', name, address, JSON.stringify(options)], { cwd: app, input: 'open' });
}

/** Ends the program's input, waits for its end, and returns what the example printed; the packages must have come from what was installed. */
export async function endExample({ child, ended }: Running, name: DevicePackage): Promise<string> {
  child.stdin?.end();
  const { status, stdout, stderr } = await ended;
  ok(
    status === 0 || child.signalCode === 'SIGTERM',
    `it ended with ${status ?? child.signalCode}: ${stderr}`,
  );
  equal(stderr, '');
  const [first = '', ...rest] = stdout.toString().split('\n');
  const got = JSON.parse(first) as Record<string, unknown>;
  const place = `/tmp/app-${name}/node_modules/@virtio/${name}/dist/index.js`;
  deepEqual([got.imported, got.required], [`file://${place}`, place]);
  equal(got.same, true, 'what is imported is not what is required');
  ok(Array.isArray(got.features) && got.features.includes('VERSION_1'), first);
  rmSync(`/tmp/app-${name}`, { recursive: true });
  return rest.join('\n');
}
