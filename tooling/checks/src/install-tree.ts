/** What comes along when a package is installed: what does, and what should. */
import fs from 'node:fs';
import path from 'node:path';
import { libraries } from './workspace.ts';

/**
 * The packages from outside that each package of ours brings. A new one is written here deliberately, or not at all. `*` stands for
 * the machine, of which koffi has one package each.
 */
const OUTSIDERS: Readonly<Record<string, readonly string[]>> = {
  '@virtio/linux': ['koffi', '@koromix/koffi-*'],
};

/** The names of all packages in `folder`'s `node_modules`, whatever the depth, in order. */
export function installedTree(folder: string): string[] {
  const lock = path.join(folder, 'node_modules/.package-lock.json');
  const { packages } = JSON.parse(fs.readFileSync(lock, 'utf8')) as { packages: Record<string, unknown> };
  return Object.keys(packages)
    .map((where) => where.slice(where.lastIndexOf('node_modules/') + 'node_modules/'.length))
    .map((name) => (name.startsWith('@koromix/koffi-') ? '@koromix/koffi-*' : name))
    .sort();
}

/** The names of all packages that should be there once `install` was installed, in order. */
export function expectedTree(install: readonly string[]): string[] {
  const folders = new Map(libraries().map(({ name, folder }) => [name, folder]));
  const expected = new Set<string>();
  const visit = (name: string): void => {
    const folder = folders.get(name);
    if (folder === undefined || expected.has(name)) return;
    expected.add(name);
    for (const outsider of OUTSIDERS[name] ?? []) expected.add(outsider);
    const manifest = fs.readFileSync(path.join(folder, 'package.json'), 'utf8');
    const { dependencies = {} } = JSON.parse(manifest) as { dependencies?: Record<string, string> };
    Object.keys(dependencies).forEach(visit);
  };
  install.forEach(visit);
  return [...expected].sort();
}
