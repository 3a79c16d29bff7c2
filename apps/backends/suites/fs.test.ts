/** File systems of virtiofsd (Debian 13: virtiofsd). What was written is looked at in the folder that it shares. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type FileSystem } from '@virtio/files';
import { FuseFileSystem, VirtioFs } from '@virtio/fs';
import { openDriver } from '@virtio/vhost-user';
import { describe, expect, it } from 'vitest';
import { cases } from '../../../packages/files/test/cases.ts';
import { Folder } from '../src/backend.ts';
import { FileServer } from '../src/file-server.ts';

/** Runs a test on an empty share; afterwards no request is in flight, and the server keeps no node. */
async function mounted(
  body: (fs: FileSystem, server: FileServer, device: VirtioFs) => Promise<void>,
  options: readonly string[] = [],
): Promise<void> {
  using folder = new Folder();
  await using server = await FileServer.start(folder, options);
  using device = await openDriver(VirtioFs, `vhost-user:${server.socket}`);
  const fs = await FuseFileSystem.mount(device);
  await body(fs, server, device);
  await fs.unmount();
  expect([fs.client.nodesInUse, fs.client.inFlight]).toEqual([0, 0]);
}

describe('a file system over FUSE', () => {
  it.each(Object.entries(cases))('%s', async (_name, body) => {
    await mounted(body);
  });

  it('has the name and the contents that the host gave it', async () => {
    await mounted(async (fs, server, device) => {
      expect(device.tag).toBe('share');
      const bytes = Uint8Array.from({ length: 2_000_000 }, (_, i) => i * 31 + (i >> 8));
      await fs.mkdir('/a/b', { recursive: true });
      await fs.writeFile('/a/b/file', bytes, { mode: 0o640 });
      await using readOnly = await fs.open('/a/b/file');
      await expect(readOnly.write('x')).rejects.toMatchObject({ code: 'EBADF' });
      await readOnly.close();
      await fs.link('/a/b/file', '/name');
      const path = join(server.share, 'a/b/file');
      expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
      expect(statSync(path).mode & 0o777).toBe(0o640);
      expect(statSync(join(server.share, 'name')).ino).toBe(statSync(path).ino);
      expect((await fs.stat('/name')).ino).toBe(statSync(path).ino);
      await fs.rm('/a', { recursive: true });
      expect(readdirSync(server.share)).toEqual(['name']);
    });
  });

  it('has extended attributes', async () => {
    await mounted(
      async (fs) => {
        await fs.writeFile('/file', '');
        await fs.setxattr('/file', 'user.one', Uint8Array.of(1, 2, 3));
        await fs.setxattr('/file', 'user.two', new Uint8Array(2000).fill(7));
        expect((await fs.listxattr('/file')).sort()).toEqual(['user.one', 'user.two']);
        expect(await fs.getxattr('/file', 'user.one')).toEqual(Uint8Array.of(1, 2, 3));
        await expect(
          fs.setxattr('/file', 'user.one', Uint8Array.of(4), { only: 'create' }),
        ).rejects.toMatchObject({ code: 'EEXIST' });
        await fs.removexattr('/file', 'user.one');
        await expect(fs.getxattr('/file', 'user.one')).rejects.toMatchObject({ code: 'ENODATA' });
      },
      ['--xattr'],
    );
  });

  it('of a server that is killed rejects all that is asked', async () => {
    using folder = new Folder();
    await using server = await FileServer.start(folder);
    using device = await openDriver(VirtioFs, `vhost-user:${server.socket}`);
    const fs = await FuseFileSystem.mount(device);
    const writes = Array.from({ length: 20 }, (_, i) => fs.writeFile(`/${i}`, new Uint8Array(500_000)));
    const ends = Promise.allSettled(writes);
    await server.kill();
    for (const end of await ends) {
      if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'DEVICE_REMOVED' });
    }
    await expect(fs.stat('/')).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
  });
});
