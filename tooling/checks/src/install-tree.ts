/** The packages that an installation brings along, and those that it should bring along. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { libraries } from './workspace.ts';

/**
 * The packages from outside that each package of ours brings. A new one is written here deliberately, or not at all. `*` stands for
 * the machine, of which koffi has one package each.
 */
const OUTSIDERS: Readonly<Record<string, readonly string[]>> = {
  '@virtio/linux': ['koffi', '@koromix/koffi-*'],
  '@virtio/cli': [
    '@bomb.sh/tab',
    '@colors/colors',
    'ansi-regex',
    'cli-progress',
    'cli-table3',
    'commander',
    'emoji-regex',
    'fast-png',
    'fflate',
    'iobuffer',
    'is-fullwidth-code-point',
    'picocolors',
    'string-width',
    'strip-ansi',
    'wavefile',
  ],
};

/** What `@types/node` is made of. */
const NODE_TYPES = ['@types/node', 'undici-types'];

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

const manifests: ReadonlyMap<string, Manifest> = new Map(
  libraries().map(({ name, folder }) => [
    name,
    JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')) as Manifest,
  ]),
);

/** Whether one of these packages declares Node.js's types as its (optional) peer. */
export function expectsNodeTypes(install: readonly string[]): boolean {
  return install.some((name) => manifests.get(name)?.peerDependencies?.['@types/node'] !== undefined);
}

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
  const expected = new Set<string>();
  const visit = (name: string): void => {
    const manifest = manifests.get(name);
    if (manifest === undefined || expected.has(name)) return;
    expected.add(name);
    for (const outsider of OUTSIDERS[name] ?? []) expected.add(outsider);
    Object.keys(manifest.dependencies ?? {}).forEach(visit);
  };
  install.forEach(visit);
  if (expectsNodeTypes(install)) NODE_TYPES.forEach((name) => expected.add(name));
  return [...expected].sort();
}

/** What is wrong with an installed tree, a complaint each; a package that is there twice is, too: its errors and classes are not the other's. */
export function treeProblems(installed: readonly string[], expected: readonly string[]): string[] {
  return [
    ...installed
      .filter((name) => !expected.includes(name))
      .map((name) => `${name} is installed, but not expected`),
    ...expected.filter((name) => !installed.includes(name)).map((name) => `${name} is missing`),
    ...installed
      .filter((name, index) => name.startsWith('@virtio/') && installed.indexOf(name) !== index)
      .map((name) => `${name} is installed more than once`),
  ];
}

/** A hash of what those of our packages that are among `names` would publish to run. */
export function contentHash(names: readonly string[]): string {
  const hash = createHash('sha256');
  for (const { name, folder } of libraries()) {
    if (!names.includes(name)) continue;
    for (const file of ['package.json', 'dist/index.js']) {
      const at = path.join(folder, file);
      hash.update(`${name} ${file}\n`);
      if (fs.existsSync(at)) hash.update(fs.readFileSync(at));
    }
  }
  return hash.digest('hex').slice(0, 16);
}
