/** What becomes of a process where koffi is missing, or has no library for the platform. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const INDEX = fileURLToPath(new URL('./index.ts', import.meta.url));

/** Doors that make a system call. */
const CALLS = {
  eventfd: 'linux.eventfd()',
  duplicate: 'linux.duplicate(0)',
  poll: 'linux.pollDescriptors([], 0)',
  signal: 'linux.signalEventfd(0)',
  close: 'linux.closeDescriptor(99)',
  poller: 'new linux.EventPoller()',
  mapping: 'linux.Mapping.map({ size: 4096 })',
  socket: "linux.UnixSocket.connect('/tmp/none')",
  pair: 'linux.UnixSocket.pair()',
  listener: "new linux.UnixListener('/tmp/none')",
  file: "linux.SharedFile.create('none', 2097152)",
  memory: 'linux.PhysicalHal.unsafe().alloc(4096)',
} as const;

interface Failure {
  readonly code?: string;
  readonly message: string;
  readonly cause?: string;
}

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'virtio-koffi-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/**
 * Runs each call in a process of its own where `koffi` resolves to something else.
 *
 * @param resolve a statement in a hook that has `next`
 */
function failures(resolve: string): Record<string, Failure> {
  const hook = `
    import { registerHooks } from 'node:module';
    registerHooks({ resolve: (specifier, context, next) => {
      if (specifier === 'koffi') { ${resolve} }
      return next(specifier, context);
    } });`;
  const script = `
    const linux = await import(${JSON.stringify(INDEX)});
    const results = {};
    const tell = (name, error) => {
      results[name] = { code: error.code, message: error.message, cause: error.cause?.code ?? error.cause?.message };
    };
    ${Object.entries(CALLS)
      .map(
        ([name, call]) => `try { ${call}; tell('${name}', {}); } catch (error) { tell('${name}', error); }`,
      )
      .join('\n')}
    results.list = { message: String(Array.isArray(linux.listDevices())) };
    console.log(JSON.stringify(results));`;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      '--conditions=@virtio/source',
      '--import',
      `data:text/javascript,${encodeURIComponent(hook)}`,
      '--input-type=module',
      '-e',
      script,
    ],
    // Without NODE_PATH, in which the runner of the tests has the library.
    { encoding: 'utf8', env: { ...process.env, NODE_PATH: '' } },
  );
  expect(stderr).toBe('');
  return JSON.parse(stdout) as Record<string, Failure>;
}

describe('without koffi', () => {
  it('each system call says what to install; devices are listed all the same', () => {
    const { list, ...others } = failures(
      "throw Object.assign(new Error('Cannot find package koffi'), { code: 'MODULE_NOT_FOUND' });",
    );
    expect(list?.message).toBe('true');
    expect(Object.keys(others)).toEqual(Object.keys(CALLS));
    for (const failure of Object.values(others)) {
      expect(failure).toEqual({
        code: 'UNSUPPORTED',
        message: expect.stringMatching(
          /^@virtio\/linux makes system calls through the package koffi, which was not found; run "npm install koffi" /,
        ) as string,
        cause: 'MODULE_NOT_FOUND',
      });
    }
  }, 60_000);

  it('says so where koffi has no library for the platform', () => {
    // The package itself, without the one that has the library.
    const koffi = dirname(createRequire(import.meta.url).resolve('koffi'));
    const copy = join(folder, 'node_modules/koffi');
    cpSync(koffi, copy, { recursive: true });
    const url = pathToFileURL(join(copy, 'index.cjs')).href;
    const { list, ...others } = failures(`return { url: ${JSON.stringify(url)}, shortCircuit: true };`);
    expect(list?.message).toBe('true');
    for (const failure of Object.values(others)) {
      expect(failure).toEqual({
        code: 'UNSUPPORTED',
        message: expect.stringContaining(
          'koffi, which does not load here (Cannot find the native Koffi module; did you bundle it correctly?); on this machine, delete ' +
            'node_modules and run "npm install" without --omit=optional, so that its library for ' +
            `${process.platform}-${process.arch} (@koromix/koffi-${process.platform}-${process.arch}) is installed`,
        ) as string,
        cause: 'Cannot find the native Koffi module; did you bundle it correctly?',
      });
    }
  }, 60_000);
});
