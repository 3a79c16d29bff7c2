/**
 * Chooses the kernel modules for the guest. The order in which they load comes from `modules.dep`, which the kernel
 * package does not carry; busybox makes it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { run } from '../run.ts';
import { spawnSync } from 'node:child_process';
import type { GuestPackages } from '../setup/guest-packages.ts';
import type { CpioEntry } from './cpio.ts';

/** Modules in the image. Those that `init` does not load are there for scripts and tests that ask for them. */
const WANTED = [
  'vfio-pci',
  'vfio_iommu_type1',
  'uio_pci_generic',
  'vhost_net',
  'vhost_vsock',
  'tun',
] as const;

/** A module and those it needs, as paths below the modules' folder; the nearest need comes first. */
export type ModuleDependencies = ReadonlyMap<string, readonly string[]>;

/** Parses `modules.dep`. */
export function parseModulesDep(text: string): ModuleDependencies {
  const dependencies = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [path = '', needs = ''] = line.split(':', 2);
    if (path !== '') {
      dependencies.set(
        path,
        needs.split(' ').filter((need) => need !== ''),
      );
    }
  }
  return dependencies;
}

/** A module's name as the kernel knows it: `-` and `_` are the same, suffixes do not count. */
export function moduleName(path: string): string {
  return path
    .replace(/^.*\//, '')
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');
}

/** The paths of the modules with these names and of all that they need. Modules built into the kernel have none. */
export function selectModules(dependencies: ModuleDependencies, names: readonly string[]): string[] {
  const byName = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const selected = new Set<string>();
  for (const name of names) {
    const path = byName.get(moduleName(name));
    if (path === undefined) continue;
    selected.add(path);
    for (const need of dependencies.get(path) ?? []) selected.add(need);
  }
  return [...selected];
}

async function readDependencies({
  modulesDir,
  kernelRelease,
  tools,
}: GuestPackages): Promise<ModuleDependencies> {
  if (!existsSync(join(modulesDir, 'modules.dep'))) {
    const root = join(modulesDir, '../../..');
    await run('IMAGE_FAILED', tools, ['depmod', '-b', root, kernelRelease]);
  }
  return parseModulesDep(readFileSync(join(modulesDir, 'modules.dep'), 'utf8'));
}

/** Modules that the image does not have, with all that they need, in the order in which `insmod` takes them. */
export async function moreModules(packages: GuestPackages, names: readonly string[]): Promise<Uint8Array[]> {
  const dependencies = await readDependencies(packages);
  const ordered = new Set<string>();
  for (const name of names) {
    for (const path of selectModules(dependencies, [name]).reverse()) ordered.add(path);
  }
  return [...ordered].map((path) => readModule(packages.tools, join(packages.modulesDir, path)));
}

/** The entries of the image for `/lib/modules`. */
export async function moduleEntries(packages: GuestPackages): Promise<CpioEntry[]> {
  const { modulesDir, kernelRelease, tools } = packages;
  const dependencies = await readDependencies(packages);
  const selected = selectModules(dependencies, WANTED);
  if (!selected.some((path) => moduleName(path) === 'vfio_pci')) {
    throw new HarnessError(
      'IMAGE_FAILED',
      `The kernel ${kernelRelease} has no vfio-pci module in ${dirname(modulesDir)}.`,
    );
  }
  const target = `lib/modules/${kernelRelease}`;
  const entries: CpioEntry[] = selected.map((path) => ({
    type: 'file',
    path: `${target}/${plain(path)}`,
    data: readModule(tools, join(modulesDir, path)),
  }));
  const lines = selected.map(
    (path) => `${plain(path)}: ${(dependencies.get(path) ?? []).map(plain).join(' ')}\n`,
  );
  entries.push({ type: 'file', path: `${target}/modules.dep`, data: Buffer.from(lines.join(''), 'utf8') });
  return entries;
}

const plain = (path: string): string => path.replace(/\.(xz|gz)$/, '');

// Unpacked here once instead of at each boot.
function readModule(tools: string, path: string): Uint8Array {
  if (path === plain(path)) return readFileSync(path);
  const unpacked = spawnSync(tools, [path.endsWith('.xz') ? 'xzcat' : 'zcat', path], {
    maxBuffer: 1 << 28,
  });
  if (unpacked.status !== 0) {
    throw new HarnessError(
      'IMAGE_FAILED',
      `Could not unpack the kernel module ${path}: ${unpacked.stderr.toString()}`,
    );
  }
  return unpacked.stdout;
}
