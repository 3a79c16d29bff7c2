/**
 * Packages in a guest as npm installs them: the very trees that the check of installed packages has tried, without the repository. The program
 * that uses them is the example with which the package's README begins.
 */
import { deepEqual, equal, notEqual, ok } from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
export function prepareInstalled(): Promise<void> {
  return (installing ??= (async () => {
    const cwd = root();
    const build = ['run', 'build', '--filter=@virtio/*', '--output-logs=errors-only', '--ui=stream'];
    await exec('turbo', build, { cwd });
    await exec(process.execPath, ['tooling/checks/src/install.ts', '--missing'], { cwd });
  })());
}

/** What the guest gets of a package: the folder `node_modules` with it and `linux`, packed and in Base64, and the example. */
export interface Installed {
  readonly tree: string;
  readonly example: string;
}

/** What tests ask of the host. */
export const installedHost = {
  installed: ({ name }: { name: DevicePackage }): Installed => {
    const trees = join(root(), '.cache/installed');
    const file = readdirSync(trees).find((one) => one.startsWith(`${name}-`) && one.endsWith('.tar.gz'));
    if (file === undefined) throw new Error(`@virtio/${name} was not installed`);
    const readme = readFileSync(join(root(), 'packages', name, 'README.md'), 'utf8');
    const example = /^```ts\n(.*?)^```/ms.exec(readme)?.[1];
    if (example === undefined) throw new Error(`the README of @virtio/${name} has no example`);
    return { tree: readFileSync(join(trees, file)).toString('base64'), example };
  },
};

/** The address that all examples have. */
const EXAMPLE = "'0000:00:03.0'";

/** Gets the packages in both ways that JavaScript knows, opens the device with each, and then goes on with the example, in TypeScript. */
const ENTRY = `
import { createRequire } from 'node:module';

const [name, address, options] = process.argv.slice(2);
const { require } = { require: createRequire(import.meta.url) };
const opened = ([device, { openDriver }]) => {
  const [, Driver] = Object.entries(device).find(([key]) => key.toLowerCase() === 'virtio' + name);
  using driver = openDriver(Driver, address, JSON.parse(options));
  return driver.features.names();
};
const names = ['@virtio/' + name, '@virtio/linux'];
console.log(
  JSON.stringify({
    imported: import.meta.resolve(names[0]),
    required: require.resolve(names[0]),
    import: opened(await Promise.all(names.map((one) => import(one)))),
    require: opened(names.map((one) => require(one))),
  }),
);
await import('./example.ts');
`;

/**
 * Starts the example of a package on the test's device `device`; it has what was installed and nothing else.
 *
 * @param more statements behind the example
 */
export async function startExample(
  context: GuestContext<typeof installedHost>,
  name: DevicePackage,
  device: string,
  more = '',
): Promise<Running> {
  const { tree, example } = await context.host('installed', { name });
  const app = `/tmp/app-${name}`;
  rmSync(app, { recursive: true, force: true });
  mkdirSync(app);
  writeFileSync(`${app}/tree.tar.gz`, Buffer.from(tree, 'base64'));
  execFileSync('tar', ['-xzf', 'tree.tar.gz'], { cwd: app });

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
  deepEqual(got.import, got.require);
  ok(Array.isArray(got.import) && got.import.includes('VERSION_1'), first);
  rmSync(`/tmp/app-${name}`, { recursive: true });
  return rest.join('\n');
}
