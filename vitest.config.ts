// The unit tests of every package, each a project of its own. They run from the sources, those of the packages they import, too.
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { defaultServerConditions } from 'vite';
import { type TestProjectInlineConfiguration, defineConfig } from 'vitest/config';

const conditions = ['@virtio/source', ...defaultServerConditions];
const include = ['{src,guest}/**/*.test.ts'];
/**
 * Packages whose tests start programs, threads or devices of the system, or count what the process has open: each file of them has modules
 * of its own. The others are plain ECMAScript with no state in any module; loading them anew for each file took longer than their tests.
 */
const ISOLATED = /^(?:apps|tooling)\/|^packages\/(?:cli|linux|vhost-user)\//;

function project(manifest: string): TestProjectInlineConfiguration[] {
  const root = path.resolve(import.meta.dirname, path.dirname(manifest));
  if (fs.globSync(include, { cwd: root }).length === 0) return [];
  const { name } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { name: string };
  return [
    {
      root,
      resolve: { conditions },
      ssr: { resolve: { conditions } },
      test: {
        name,
        include,
        environment: 'node',
        isolate: ISOLATED.test(manifest),
        restoreMocks: true,
        testTimeout: 20_000,
        // Only for what hangs: to load v86 takes a busy machine its time.
        hookTimeout: 60_000,
      },
    },
  ];
}

export default defineConfig({
  test: {
    // By default it leaves one processor of two to itself, which waits most of the time.
    maxWorkers: availableParallelism(),
    projects: fs
      .globSync('{packages,apps,tooling}/*/package.json', { cwd: import.meta.dirname })
      .sort()
      .flatMap(project),
  },
});
