/** The packages of others that ours bring along, as they are installed here: a registry for checks is given these. */
import fs from 'node:fs';
import path from 'node:path';
import { libraries } from './workspace.ts';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

const manifestOf = (folder: string): Manifest =>
  JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')) as Manifest;

/** Where `name` is, as the package in `folder` finds it: in its own `node_modules`, or beside it in pnpm's store. */
function find(name: string, folder: string): string | undefined {
  for (let at = folder; ; at = path.dirname(at)) {
    const found = path.join(at, 'node_modules', name);
    if (fs.existsSync(found)) return fs.realpathSync(found);
    if (path.dirname(at) === at) return undefined;
  }
}

/**
 * The folders of all packages of others that an installation of ours needs on this machine. Packages for other machines are not
 * installed, so they are not among them: all of those are optional.
 */
export function outsiders(): string[] {
  const ours = new Set(libraries().map(({ name }) => name));
  const found = new Map<string, string>();
  const visit = (folder: string, peers = false): void => {
    const { dependencies, optionalDependencies, peerDependencies } = manifestOf(folder);
    const wanted = { ...(peers ? peerDependencies : {}), ...dependencies, ...optionalDependencies };
    for (const name of Object.keys(wanted)) {
      if (ours.has(name)) continue;
      const at = find(name, folder);
      if (at === undefined) {
        if (dependencies?.[name] !== undefined && optionalDependencies?.[name] === undefined) {
          throw new Error(`${name}, which ${folder} needs, is not installed; run "npm run pnpm -- install"`);
        }
        continue;
      }
      const { version } = manifestOf(at);
      if (found.has(`${name}@${version}`)) continue;
      found.set(`${name}@${version}`, at);
      visit(at);
    }
  };
  for (const { folder } of libraries()) visit(folder, true);
  return [...found.values()];
}

/**
 * Makes a workspace in `folder` of copies of these packages, so that pnpm can publish them as it does ours. What only their authors need
 * is left out.
 */
export function copyOutsiders(folder: string): void {
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  fs.writeFileSync(path.join(folder, 'pnpm-workspace.yaml'), 'packages: ["*"]\n');
  for (const [index, from] of outsiders().entries()) {
    const to = path.join(folder, String(index));
    fs.cpSync(from, to, { recursive: true, dereference: true });
    const manifest: Record<string, unknown> = { ...manifestOf(to) };
    delete manifest.devDependencies;
    delete manifest.publishConfig;
    delete manifest.packageManager;
    // pnpm refuses to publish a program whose first line ends in CRLF, which one of them has. Nobody here runs it.
    delete manifest.bin;
    delete manifest.directories;
    fs.writeFileSync(path.join(to, 'package.json'), JSON.stringify(manifest));
  }
}
