/** The program `virtio` of `@virtio/cli`, in a process of its own, on devices of back ends. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import { FileServer } from '../src/file-server.ts';

const PROGRAM = join(import.meta.dirname, '../../../packages/cli/src/bin.ts');

/** Runs the program on the file server's device; the server ends with it. */
async function virtio(
  folder: Folder,
  command: (device: string, share: string) => readonly string[],
  input = '',
): Promise<{ status: number | null; out: string; err: string }> {
  await using server = await FileServer.start(folder);
  const args = command(`vhost-user:${server.socket}`, server.share);
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--conditions=@virtio/source', PROGRAM, ...args],
    { encoding: 'utf8', input, timeout: 120_000 },
  );
  return { status, out: stdout, err: stderr };
}

it('probes a file system, and copies files both ways', async () => {
  using folder = new Folder();
  const share = folder.file('share');
  mkdirSync(join(share, 'sub'), { recursive: true });
  writeFileSync(join(share, 'greeting'), 'hello from the host');

  const probed = await virtio(folder, (device) => ['probe', device, '--type', 'fs', '--json']);
  expect(probed.err).toBe('');
  expect(JSON.parse(probed.out)).toMatchObject({ type: 'FileSystem', config: { tag: 'share' } });

  const listed = await virtio(folder, (device) => ['fs', 'ls', device, '--json']);
  expect(JSON.parse(listed.out)).toMatchObject([{ name: 'greeting', size: 19 }, { name: 'sub' }]);

  expect(await virtio(folder, (device) => ['fs', 'get', device, '/greeting'])).toEqual({
    status: 0,
    out: 'hello from the host',
    err: '',
  });

  const put = await virtio(folder, (device) => ['fs', 'put', device, '-', '/sub/answer'], 'hello host');
  expect([put.status, readFileSync(join(share, 'sub/answer'), 'utf8')]).toEqual([0, 'hello host']);
  const again = await virtio(folder, (device) => ['fs', 'put', device, '-', '/sub/answer'], 'x');
  expect(again.status).toBe(4);
  expect(again.err).toMatch(/exists already, with 10 bytes\nhint: add --force/);

  const script = 'cd sub\npwd\nmkdir deep/er\nmv answer deep/er/moved\ncat deep/er/moved\n';
  const shell = await virtio(folder, (device) => ['fs', 'shell', device], script);
  expect(shell).toMatchObject({ status: 0, out: '/sub\nhello host', err: '' });
  expect(statSync(join(share, 'sub/deep/er/moved')).size).toBe(10);
});

it('says what to do where nobody listens, and nothing about PCI', async () => {
  using folder = new Folder();
  const { status, err } = await virtio(folder, () => ['fs', 'ls', `vhost-user:${folder.file('nobody')}`]);
  expect(status).toBe(3);
  expect(err).toMatch(/start the program that listens there first/);
  expect(err).not.toMatch(/virtio list/);
});
