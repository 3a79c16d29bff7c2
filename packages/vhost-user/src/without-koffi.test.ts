/** Opening a device where koffi, which `@virtio/linux` makes system calls with, is not installed. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const INDEX = fileURLToPath(new URL('./index.ts', import.meta.url));

it('says what to install where koffi is missing, with and without a listening socket', () => {
  const hook = `
    import { registerHooks } from 'node:module';
    registerHooks({ resolve: (specifier, context, next) => {
      if (specifier === 'koffi') throw Object.assign(new Error('none'), { code: 'MODULE_NOT_FOUND' });
      return next(specifier, context);
    } });`;
  const script = `
    const { openVhostUser } = await import(${JSON.stringify(INDEX)});
    for (const server of [false, true]) {
      const error = await openVhostUser('/tmp/none.sock', { deviceType: 2, server }).catch((thrown) => thrown);
      console.log(error.name, error.code, error.message);
    }`;
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
    { encoding: 'utf8' },
  );
  expect(stderr).toBe('');
  const line =
    'VirtioError UNSUPPORTED @virtio/linux makes system calls through the package koffi, which was not found; run ';
  expect(stdout.split('\n').map((text) => text.slice(0, line.length))).toEqual([line, line, '']);
}, 60_000);
