/**
 * Tries the next release on a copy: there, `changeset version` gives each package its version and its changelog. Checks and
 * prints what would be published, and tries the workflow's way to publish; the repository itself is not changed.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { publishProblems } from './publish-try.ts';
import { libraries, root } from './workspace.ts';

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly private?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
}

const read = (file: string): Manifest => JSON.parse(fs.readFileSync(file, 'utf8')) as Manifest;

const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'virtio-release-'));
const problems: string[] = [];
try {
  const files = [
    'package.json',
    'pnpm-workspace.yaml',
    'pnpm-lock.yaml',
    ...fs.globSync(['.changeset/*', '{packages,apps,tooling}/*/{package.json,CHANGELOG.md}'], { cwd: root }),
  ];
  for (const file of files) {
    fs.mkdirSync(path.dirname(path.join(copy, file)), { recursive: true });
    fs.copyFileSync(path.join(root, file), path.join(copy, file));
  }
  // Changesets asks git where the root is.
  execFileSync('git', ['init', '--quiet', copy]);
  const changesets = (): string[] =>
    fs.globSync('.changeset/*.md', { cwd: copy }).filter((file) => !file.endsWith('README.md'));
  // Behind a release there are none until the next change, and `changeset version` fails without one.
  if (changesets().length > 0) {
    const out = execFileSync('changeset', ['version'], { cwd: copy, encoding: 'utf8', stdio: 'pipe' });
    if (/\berror\b/i.test(out)) problems.push(out.trim());
  }
  const pending = changesets();
  if (pending.length > 0) problems.push(`changesets that were not used: ${pending.join(', ')}`);
  const folders = libraries().map(({ folder }) => path.relative(root, folder));
  const versions = new Map(
    folders.map((folder) => {
      const { name, version } = read(path.join(copy, folder, 'package.json'));
      return [name, version];
    }),
  );
  for (const folder of folders) {
    const before = read(path.join(root, folder, 'package.json'));
    const after = read(path.join(copy, folder, 'package.json'));
    const released = before.version !== after.version;
    if (after.version === '0.0.0') {
      problems.push(`${after.name} would never be published: it has no changeset`);
    }
    const changelog = path.join(copy, folder, 'CHANGELOG.md');
    const text = fs.existsSync(changelog) ? fs.readFileSync(changelog, 'utf8') : '';
    if (released && !text.includes(`## ${after.version}`)) {
      problems.push(`${after.name} ${after.version} has no changelog`);
    }
    for (const [name, range] of Object.entries(after.dependencies ?? {})) {
      if (versions.has(name) && range !== 'workspace:^') {
        problems.push(
          `${after.name} depends on ${name} by ${range}: two copies could be installed; use workspace:^`,
        );
      }
    }
    console.log(`${released ? '+' : ' '} ${after.name.padEnd(22)}${before.version} -> ${after.version}`);
  }
  for (const file of fs.globSync('{apps,tooling}/*/package.json', { cwd: root })) {
    const [before, after] = [read(path.join(root, file)), read(path.join(copy, file))];
    if (before.version !== after.version) problems.push(`${after.name} is private and got a version`);
  }

  // One package tells as much as all: publishing stops at the first that fails.
  const tried = 'packages/core';
  for (const file of fs.globSync('{packages,apps,tooling}/*', { cwd: copy })) {
    if (file !== tried) fs.rmSync(path.join(copy, file), { recursive: true });
  }
  problems.push(...(await publishProblems(copy)));
} finally {
  fs.rmSync(copy, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;
