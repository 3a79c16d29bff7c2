/** The engines that run unit tests: what a bundle for each is, and the command that runs it. */
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { bundleText } from './bundle.ts';
import { ensureQuickJs } from './quickjs.ts';

const GUEST = fileURLToPath(new URL('../guest', import.meta.url));

/** Engines by name. Node.js is the measure of the runner itself. */
export const ENGINES = ['quickjs', 'deno', 'bun', 'node'] as const;
export type Engine = (typeof ENGINES)[number];

/** Bundles a module, given as text, for an engine. */
export async function bundleFor(engine: Engine, text: string, outfile: string): Promise<void> {
  const alias = { vitest: join(GUEST, 'unit/vitest.ts') };
  if (engine === 'quickjs') {
    const script = await bundleText(text, {
      resolveDir: GUEST,
      prelude: join(GUEST, 'unit/hosted.ts'),
      alias,
      external: ['os', 'std'],
    });
    writeFileSync(outfile, script);
    return;
  }
  await build({
    stdin: { contents: text, resolveDir: GUEST, loader: 'ts' },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'es2024',
    conditions: ['@virtio/source'],
    nodePaths: [join(GUEST, '../node_modules')],
    inject: [join(GUEST, 'unit/hosted-node.ts')],
    plugins: [emulator],
    loader: { '.wasm': 'binary' },
    // The clock of tests is a CommonJS module that asks for modules of Node.js'.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    alias,
    keepNames: true,
    logLevel: 'silent',
  });
}

/** The emulator v86 looks for its WebAssembly beside its sources; in a bundle that is elsewhere, so the bundle has it. */
const emulator: Plugin = {
  name: 'emulator',
  setup(host) {
    host.onResolve({ filter: /^#platform$/ }, ({ resolveDir }) => ({
      path: join(resolveDir, 'platform.browser.ts'),
    }));
  },
};

/** The command that runs a bundle. */
export async function commandOf(engine: Engine, bundle: string): Promise<readonly [string, ...string[]]> {
  switch (engine) {
    case 'quickjs': {
      const [program = 'qjs', ...args] = await ensureQuickJs('qjs', console.log);
      // Errors of listeners become rejections that nobody handles, and tests cause such.
      return [program, ...args, '--stack-size', '4M', '--no-unhandled-rejection', '--module', bundle];
    }
    case 'deno':
      return [join(folderOf('@deno/linux-x64-glibc'), 'deno'), 'run', '--quiet', '--allow-all', bundle];
    case 'bun':
      return [join(folderOf('@oven/bun-linux-x64'), 'bin/bun'), '--no-install', bundle];
    case 'node':
      return [process.execPath, bundle];
  }
}

function folderOf(name: string): string {
  try {
    return join(createRequire(import.meta.url).resolve(`${name}/package.json`), '..');
  } catch {
    throw new HarnessError('MISSING_PACKAGES', `${name} is not installed; it is only available for x64.`);
  }
}
