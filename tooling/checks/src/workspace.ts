import fs from 'node:fs';
import path from 'node:path';

export const root = path.resolve(import.meta.dirname, '../../..');
export const cache = path.join(root, '.cache');

export interface Library {
  /** As npm knows it, e.g. `@virtio/core`. */
  readonly name: string;
  /** Its folder, absolute. */
  readonly folder: string;
}

/** The packages that are published, in the order of their names. */
export function libraries(): Library[] {
  return fs
    .readdirSync(path.join(root, 'packages'))
    .map((entry) => path.join(root, 'packages', entry))
    .filter((folder) => fs.existsSync(path.join(folder, 'package.json')))
    .map((folder) => {
      const { name, private: hidden } = readManifest(folder);
      return { name, folder, hidden };
    })
    .filter(({ hidden }) => hidden !== true)
    .map(({ name, folder }) => ({ name, folder }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

interface Manifest {
  name: string;
  private?: boolean;
}

function readManifest(folder: string): Manifest {
  return JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')) as Manifest;
}
