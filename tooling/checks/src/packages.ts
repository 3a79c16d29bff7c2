/**
 * Checks each package as its users will get it: packed by pnpm, then judged by publint and by
 * "are the types wrong", with a few rules of the project on what must be inside.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { groupProblemsByKind } from '@arethetypeswrong/core/utils';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { type Library, cache, libraries } from './workspace.ts';

/** CommonJS reaches these packages through `require(esm)`; node10 knows no `exports` and is long gone. */
const ACCEPTED: ReadonlySet<string> = new Set(['CJSResolvesToESM', 'NoResolution:node10']);

async function problemsOf({ name, folder }: Library, to: string): Promise<string[]> {
  const tarball = path.join(to, `${name.replace(/\W+/g, '-').replace(/^-/, '')}.tgz`);
  execFileSync('pnpm', ['pack', '--out', tarball], { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
  const bytes = fs.readFileSync(tarball);
  const problems: string[] = [];

  const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { messages, pkg } = await publint({ pack: { tarball: data }, strict: true });
  for (const message of messages) {
    problems.push(`publint: ${formatMessage(message, pkg, { color: false }) ?? message.code}`);
  }

  const contents = createPackageFromTarballData(new Uint8Array(data));
  const types = await checkPackage(contents);
  if (!types.types) problems.push('attw: the package has no types');
  else {
    for (const [kind, found] of Object.entries(groupProblemsByKind(types.problems))) {
      for (const problem of found) {
        const resolution = 'resolutionKind' in problem ? problem.resolutionKind : '';
        if (ACCEPTED.has(kind) || ACCEPTED.has(`${kind}:${resolution}`)) continue;
        problems.push(`attw: ${JSON.stringify(problem)}`);
      }
    }
  }

  const files = contents.listFiles().map((file) => file.replace(/^\/node_modules\/@virtio\/[^/]+\//, ''));
  for (const wanted of ['LICENSE', 'README.md', 'dist/index.js', 'dist/index.d.ts', 'dist/index.js.map']) {
    if (!files.includes(wanted)) problems.push(`the package lacks ${wanted}`);
  }
  const terse = /"virtio-terse": "\.\/([^"]+)"/.exec(
    contents.readFile(`/node_modules/${name}/package.json`),
  )?.[1];
  if (terse !== undefined && !files.includes(terse)) problems.push(`the package lacks ${terse}`);
  if (!files.includes('src/index.ts')) problems.push('the package lacks its sources');
  for (const file of files.filter((each) => /\.test\.ts$|tsconfig|\.config\.ts$/.test(each))) {
    problems.push(`${file} does not belong in the package`);
  }
  const links = contents
    .readFile(`/node_modules/${name}/README.md`)
    .matchAll(/\]\((?!\w+:|\.\.\/|#)([^)]+)\)/g);
  for (const [, link = ''] of links) {
    if (!files.includes(link)) problems.push(`its README points to ${link}, which is not in the package`);
  }
  const manifest = contents.readFile(`/node_modules/${name}/package.json`);
  if (/"(?:workspace|catalog):/.test(manifest)) {
    problems.push('package.json still has a workspace: or catalog: version');
  }
  return problems;
}

const folder = path.join(cache, 'packed');
fs.rmSync(folder, { recursive: true, force: true });
fs.mkdirSync(folder, { recursive: true });
let failed = 0;
for (const library of libraries()) {
  let problems: string[];
  try {
    problems = await problemsOf(library, folder);
  } catch (error) {
    problems = [String(error)];
  }
  console.log(`${library.name}: ${problems.length === 0 ? 'ok' : `${problems.length} problems`}`);
  for (const problem of problems) console.error(`  ${problem}`);
  if (problems.length > 0) failed++;
}
if (failed > 0) process.exitCode = 1;
