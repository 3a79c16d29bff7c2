/**
 * Finds the suites: each module below `suites` that is not a unit test exports its tests as `default`. The author of a device
 * adds a file and changes nothing else.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { HARNESS_DIR } from '../paths.ts';
import { bundleSource, type MappedBundle } from '../script/bundle.ts';
import type { GuestTest } from './define.ts';

const SUITES_DIR = join(HARNESS_DIR, 'src', 'suites');

/** The modules of all suites. Names that begin with `_` are helpers of suites. */
export function suiteFiles(): string[] {
  return readdirSync(SUITES_DIR, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && !/(^|\/)_/.test(name))
    .sort()
    .map((name) => join(SUITES_DIR, name));
}

/** All tests, in the order of their files. */
export async function discoverTests(files: readonly string[] = suiteFiles()): Promise<GuestTest[]> {
  const tests: GuestTest[] = [];
  const seen = new Set<string>();
  for (const file of files) {
    const module = (await import(pathToFileURL(file).href)) as { default?: readonly GuestTest[] };
    if (module.default === undefined) throw new Error(`${file} exports no tests as default.`);
    for (const test of module.default) {
      const key = `${test.device}: ${test.name}`;
      if (seen.has(key)) throw new Error(`Two tests are named '${key}'; rename one.`);
      seen.add(key);
      tests.push(test);
    }
  }
  return tests;
}

/** The guest's half of all suites, bundled. */
export async function bundleSuites(): Promise<MappedBundle> {
  const files = suiteFiles();
  const lines = files.map((file, index) => `import suite${index} from ${JSON.stringify(file)};`);
  lines.push(`import { serveTests } from ${JSON.stringify(join(HARNESS_DIR, 'guest', 'test-runner.ts'))};`);
  lines.push(`serveTests([${files.map((_, index) => `...suite${index}`).join(', ')}]);`);
  return bundleSource(lines.join('\n'), HARNESS_DIR, 'suites.ts');
}
