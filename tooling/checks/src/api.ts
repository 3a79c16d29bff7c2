/**
 * The public interface of each package, as a report that is committed (`packages/NAME/NAME.api.md`): a change of it is then seen
 * in review. Compares by default; `--write` writes; `--since REF` fails if a report changed since then without a changeset
 * for its package. Reads the built declarations: `npm run build` comes first.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { CompilerState, Extractor, ExtractorConfig, ExtractorLogLevel } from '@microsoft/api-extractor';
import { USAGE } from '@virtio/setup/usage';
import { type Library, cache, libraries, root } from './workspace.ts';

function configOf({ name, folder }: Library): ExtractorConfig {
  const short = name.replace('@virtio/', '');
  const quiet = { default: { logLevel: ExtractorLogLevel.None } };
  return ExtractorConfig.prepare({
    configObjectFullPath: path.join(folder, 'api-extractor.json'),
    packageJsonFullPath: path.join(folder, 'package.json'),
    configObject: {
      projectFolder: folder,
      mainEntryPointFilePath: path.join(folder, 'dist/index.d.ts'),
      newlineKind: 'lf',
      compiler: {
        overrideTsconfig: {
          compilerOptions: {
            target: 'es2023',
            lib: ['es2023', 'esnext.disposable'],
            module: 'nodenext',
            moduleResolution: 'nodenext',
            types: ['node'],
            typeRoots: [path.join(root, 'node_modules/@types')],
            strict: true,
            skipLibCheck: true,
          },
          files: [path.join(folder, 'dist/index.d.ts')],
        },
      },
      apiReport: {
        enabled: true,
        reportFolder: folder,
        reportTempFolder: path.join(cache, 'api'),
        reportFileName: `${short}.api.md`,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        compilerMessageReporting: quiet,
        extractorMessageReporting: quiet,
        tsdocMessageReporting: quiet,
      },
    },
  });
}

/** Writes the reports of packages, or compares them; returns the names of those that were not the same. */
function changedReports(packages: readonly Library[], write: boolean): string[] {
  const [first, ...others] = packages.map(configOf);
  if (first === undefined) throw new Error('there are no packages');
  // One program for all: most of what it has to parse and bind is in each of them.
  const compilerState = CompilerState.create(first, {
    additionalEntryPoints: others.map(({ mainEntryPointFilePath }) => mainEntryPointFilePath),
  });
  const changed = [first, ...others].filter(
    (config) =>
      Extractor.invoke(config, {
        compilerState,
        localBuild: write,
        messageCallback: (message) => {
          message.handled = true;
        },
      }).apiReportChanged,
  );
  return changed.map(({ packageJson }) => packageJson?.name ?? '');
}

/** The packages whose report changed since `ref` and that no changeset added since then names. */
function withoutChangeset(ref: string): string[] {
  const changed = execFileSync('git', ['diff', '--name-only', '--diff-filter=ACMR', `${ref}...HEAD`], {
    cwd: root,
    encoding: 'utf8',
  }).split('\n');
  const named = changed
    .filter((file) => /^\.changeset\/(?!README)[^/]+\.md$/.test(file))
    .map((file) => fs.readFileSync(path.join(root, file), 'utf8').split('---')[1] ?? '')
    .join('');
  return libraries()
    .filter(({ name, folder }) => {
      const short = name.replace('@virtio/', '');
      const file = path.relative(root, path.join(folder, `${short}.api.md`));
      return changed.includes(file) && !new RegExp(`['"]${name}['"]:`).test(named);
    })
    .map(({ name }) => name);
}

const [mode, ref] = process.argv.slice(2);
if (mode === '--since' && ref !== undefined) {
  const missing = withoutChangeset(ref);
  for (const name of missing) {
    console.error(`${name}: its interface changed without a changeset; run "npm run changeset"`);
  }
  if (missing.length > 0) process.exitCode = 1;
} else if (mode === undefined || mode === '--write') {
  fs.mkdirSync(path.join(cache, 'api'), { recursive: true });
  const changed = changedReports(libraries(), mode === '--write');
  for (const name of changed) {
    const what =
      mode === '--write'
        ? 'changed; the report is updated'
        : 'changed; run "npm run api -- --write" to update the report';
    console.log(`${name}: the interface ${what}`);
  }
  console.log(`${libraries().length} interfaces, ${changed.length} changed`);
  if (changed.length > 0 && mode !== '--write') process.exitCode = 1;
} else {
  console.error(`Unknown argument ${mode}.\n\n${USAGE.api}`);
  process.exitCode = 2;
}
