/** Single files: what is refused and why, what is kept where, what is cancelled, and what survives a reset. */
import { FileType } from '@virtio/9p';
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guestTest, onPci, pattern, small } from '../../framework/define.ts';
import { host } from './_compare.ts';
import { makeShare, mount, refused, share } from './_share.ts';

/** Whether this process may mount file systems. */
const mayMount = (): boolean => spawnSync('unshare', ['--mount', 'true']).status === 0;

export default [
  guestTest({
    device: '9p',
    name: "reports the host's errors by their names",
    devices: {
      share: share(),
      readonly: share({ readOnly: true }),
      kernel: share({ path: '/proc/sys/kernel' }),
    },
    prepare(directory) {
      const path = makeShare(directory);
      writeFileSync(join(path, 'file'), 'x');
      symlinkSync('loop', join(path, 'loop'));
    },
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      await refused('ENOENT', () => fs.readFile('/missing'));
      await refused('ENOENT', () => fs.writeFile('/no/such/place', ''));
      await refused('ENOTDIR', () => fs.readFile('/file/below'));
      await refused('ENOTDIR', () => fs.readdir('/file'));
      await refused('EISDIR', () => fs.writeFile('/', ''));
      await refused('EISDIR', () => fs.readFile('/'));
      await refused('EISDIR', () => fs.copyFile('/', '/copy'));
      await refused('EEXIST', () => fs.writeFile('/file', '', { flag: 'wx' }));
      await refused('EEXIST', () => fs.mkdir('/file'));
      await refused('ELOOP', () => fs.stat('/loop'));
      await refused('EINVAL', () => fs.readlink('/file'));
      await refused('ENAMETOOLONG', () => fs.writeFile(`/${'n'.repeat(256)}`, ''));
      await refused('ENAMETOOLONG', () => fs.mkdir(`/${'漢'.repeat(86)}`));
      await refused('ENAMETOOLONG', () => fs.symlink('t'.repeat(5000), '/link'));
      await refused('ENODATA', () => fs.getxattr('/file', 'user.none'));
      await fs.mkdir('/full/of/files', { recursive: true });
      await refused('ENOTEMPTY', () => fs.rmdir('/full'));
      await refused('EISDIR', () => fs.unlink('/full'));
      await refused('ENOTDIR', () => fs.rmdir('/file'));
      await refused('EISDIR', () => fs.rename('/file', '/full'));
      await refused('ENOTEMPTY', async () => {
        await fs.mkdir('/other');
        await fs.rename('/other', '/full');
      });
      {
        await using readOnly = await mount(context, 'readonly');
        equal(await readOnly.fs.readFile('/file', 'utf8'), 'x');
        await refused('EROFS', () => readOnly.fs.writeFile('/file', 'y'));
        await refused('EROFS', () => readOnly.fs.writeFile('/new', 'y'));
        await refused('EROFS', () => readOnly.fs.unlink('/file'));
      }
      {
        // Not even root may write to these.
        await using kernel = await mount(context, 'kernel');
        equal(await kernel.fs.readFile('/ostype', 'utf8'), 'Linux\n');
        await refused('EACCES', () => kernel.fs.open('/ostype', 'r+'));
      }
    },
  }),

  guestTest({
    device: '9p',
    name: 'reports that the disk is full',
    devices: { share: share() },
    skip: () => (mayMount() ? undefined : 'a full disk is a small file system, and only root may mount one'),
    prepare(directory) {
      // Mounted elsewhere, so that the test's folder can be removed whatever happens.
      const path = mkdtempSync(join(tmpdir(), 'virtio-full-'));
      const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'virtio-full', path]);
      if (status !== 0) throw new Error(`mount: ${stderr.toString()}`);
      process.once('exit', () => {
        spawnSync('umount', ['--lazy', path]);
        rmdirSync(path);
      });
      symlinkSync(path, join(directory, 'share'));
    },
    host,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      await fs.writeFile('/fits', pattern(new Uint8Array(500_000), 1));
      await refused('ENOSPC', () => fs.writeFile('/large', new Uint8Array(3_000_000)));
      const handle = await fs.open('/slowly', 'w');
      await refused('ENOSPC', async () => {
        for (;;) await handle.write(new Uint8Array(100_000));
      });
      await handle.close();
      await fs.rm('/large');
      await fs.rm('/slowly');
      await fs.writeFile('/small', 'room again');
      equal(await context.host('read', { path: 'small' }), 'room again');
    },
  }),

  guestTest({
    device: '9p',
    name: 'keeps owners, permissions and links as attributes of ordinary files (mapped-xattr)',
    long: true,
    devices: { share: share({ model: 'mapped-xattr' }) },
    prepare: (directory) => void makeShare(directory),
    host,
    async guest(context) {
      const attributes = async (fs: Awaited<ReturnType<typeof mount>>['fs']): Promise<unknown[]> => {
        const entries = await fs.readdir('/', { withFileTypes: true });
        const described = entries.map(async ({ name }) => {
          const { mode, uid, gid, size } = await fs.lstat(`/${name}`);
          return [name, mode, uid, gid, size];
        });
        return (await Promise.all(described)).sort();
      };
      const expected = [
        ['dir', FileType.DIRECTORY | 0o711, 1000, 50, 4096],
        ['file', FileType.FILE | 0o640, 1234, 5678, 8],
        ['link', FileType.SYMLINK | 0o777, 1000, 50, 4],
        ['null', FileType.CHARACTER_DEVICE | 0o600, 1000, 50, 0],
        ['pipe', FileType.FIFO | 0o666, 1000, 50, 0],
      ];
      {
        await using mounted = await mount(context, 'share', { umask: 0, uid: 1000, gid: 50 });
        const { fs } = mounted;
        await fs.writeFile('/file', 'contents', { mode: 0o640 });
        await fs.chown('/file', 1234, 5678);
        await fs.mkdir('/dir', { mode: 0o711 });
        await fs.symlink('file', '/link');
        await fs.mknod('/pipe', FileType.FIFO | 0o666);
        await fs.mknod('/null', FileType.CHARACTER_DEVICE | 0o600, 1, 3);
        equal((await fs.stat('/null')).rdev, 0x103);
        deepEqual(await attributes(fs), expected);
        const kinds = (await fs.readdir('/', { withFileTypes: true })).map(
          (entry) => `${entry.name} ${entry.isSymbolicLink()} ${entry.isFIFO()} ${entry.isDirectory()}`,
        );
        deepEqual(kinds.sort(), [
          'dir false false true',
          'file false false false',
          'link true false false',
          'null false false false',
          'pipe false true false',
        ]);
      }
      // On the host all but the directory are plain files of whoever runs QEMU, and the link's target is contents.
      for (const name of ['file', 'link', 'null', 'pipe']) {
        const { mode, uid } = await context.host('stat', { path: name });
        equal(mode & FileType.MASK, FileType.FILE, name);
        equal(uid, (await context.host('stat', { path: '' })).uid, name);
      }
      equal(await context.host('read', { path: 'link' }), 'file');
      await using again = await mount(context);
      deepEqual(await attributes(again.fs), expected);
      equal(await again.fs.readFile('/link', 'utf8'), 'contents');
    },
  }),

  guestTest({
    device: '9p',
    name: 'sets, lists and removes extended attributes',
    devices: { share: share(), other: share() },
    prepare: (directory) => void makeShare(directory),
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      const value = pattern(new Uint8Array(3000), 1);
      await fs.writeFile('/file', '');
      await fs.setxattr('/file', 'user.short', new TextEncoder().encode('hodnota'));
      await fs.setxattr('/file', 'user.dlouhý', value, { only: 'create' });
      await refused('EEXIST', () => fs.setxattr('/file', 'user.short', value, { only: 'create' }));
      await refused('ENODATA', () => fs.setxattr('/file', 'user.new', value, { only: 'replace' }));
      // Another device sees what is really on the host's file.
      await using other = await mount(context, 'other');
      deepEqual((await other.fs.listxattr('/file')).sort(), ['user.dlouhý', 'user.short']);
      deepEqual(await other.fs.getxattr('/file', 'user.dlouhý'), value);
      await fs.removexattr('/file', 'user.short');
      deepEqual(await other.fs.listxattr('/file'), ['user.dlouhý']);
    },
  }),

  guestTest({
    device: '9p',
    name: 'does it all synchronously as well',
    essential: true,
    devices: { share: share() },
    prepare: (directory) => void makeShare(directory),
    host,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      const data = pattern(new Uint8Array(small(context.cell, 1_500_000, 300_000)), 3);
      fs.mkdirSync('/a/b', { recursive: true });
      fs.writeFileSync('/a/b/data', data);
      fs.copyFileSync('/a/b/data', '/a/copy');
      ok(Buffer.from(fs.readFileSync('/a/copy')).equals(data));
      equal(await context.host('hash', { path: 'a/copy' }), await context.host('hash', { path: 'a/b/data' }));
      using handle = fs.openSync('/a/copy', 'r+');
      handle.writeSync('overwritten', { position: 1000 });
      handle.truncateSync(2000);
      handle.fsyncSync();
      handle.utimesSync(1_500_000_000.25, 1_500_000_001.5);
      const { size, mtimeMs } = await context.host('stat', { path: 'a/copy' });
      deepEqual([size, mtimeMs], [2000, 1_500_000_001_500]);
      equal(await context.host('bytes', { path: 'a/copy', from: 1000, to: 1011 }), 'overwritten');
      fs.linkSync('/a/copy', '/a/link');
      equal((await context.host('stat', { path: 'a/copy' })).nlink, 2);
      const theirs = await context.host('statfs', null);
      const { type, bsize, blocks, files } = fs.statfsSync('/');
      deepEqual({ type, files }, { type: theirs.type, files: theirs.files });
      // QEMU counts in blocks of a message's size, whole ones only.
      const short = theirs.bsize * theirs.blocks - bsize * blocks;
      ok(short >= 0 && short < bsize, `${short} bytes are missing`);
      handle.closeSync();
      fs.rmSync('/a', { recursive: true });
      deepEqual(await context.host('list', { path: '' }), []);
    },
  }),

  guestTest({
    device: '9p',
    name: 'has requests flushed that were cancelled, and goes on',
    long: true,
    devices: { share: share() },
    prepare(directory) {
      const path = makeShare(directory);
      writeFileSync(join(path, 'file'), pattern(new Uint8Array(5_000_000), 6));
      for (let n = 0; n < 200; n++) writeFileSync(join(path, `f${n}`), '');
    },
    host,
    timeoutS: 120,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      let cancelled = 0;
      for (let round = 0; round < 25; round++) {
        const abort = new AbortController();
        const { signal } = abort;
        const attempts = [
          fs.readFile('/file', { signal }),
          fs.copyFile('/file', '/copy', { signal }),
          fs.readdir('/', { withFileTypes: true, signal }),
          fs.writeFile('/written', new Uint8Array(2_000_000), { signal }),
        ];
        for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve));
        abort.abort();
        for (const result of await Promise.allSettled<unknown>(attempts)) {
          if (result.status === 'fulfilled') continue;
          equal((result.reason as { code?: unknown }).code, 'ABORTED');
          cancelled++;
        }
      }
      context.note(`${cancelled} of 100 operations were cancelled`);
      ok(cancelled > 25);
      await fs.copyFile('/file', '/copy');
      equal(await context.host('hash', { path: 'copy' }), await context.host('hash', { path: 'file' }));
      await fs.unmount();
      equal(fs.client.inFlight, 0);
    },
  }),

  guestTest({
    device: '9p',
    name: 'can be mounted again after a reset in the middle of everything',
    long: true,
    devices: { share: share() },
    prepare(directory) {
      writeFileSync(join(makeShare(directory), 'file'), pattern(new Uint8Array(20_000_000), 7));
    },
    host,
    timeoutS: 120,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs, device } = mounted;
      let lost = 0;
      for (let round = 0; round < 5; round++) {
        const handle = await fs.open('/file');
        const ends = Promise.allSettled<unknown>([
          fs.readFile('/file'),
          fs.copyFile('/file', '/copy'),
          handle.read(new Uint8Array(10_000_000), { position: 0 }),
        ]);
        for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve));
        device.reset();
        for (const end of await ends) {
          if (end.status === 'fulfilled') continue;
          equal((end.reason as { code?: unknown }).code, 'DEVICE_RESET');
          lost++;
        }
        await rejects(fs.readFile('/file'), { code: 'DEVICE_RESET' });
        await fs.remount();
        await rejects(handle.stat(), { code: 'ESTALE' });
        await handle.close();
      }
      context.note(`${lost} of 15 operations were lost`);
      ok(lost >= 3);
      await fs.copyFile('/file', '/copy');
      equal(await context.host('hash', { path: 'copy' }), await context.host('hash', { path: 'file' }));
    },
  }),

  guestTest({
    device: '9p',
    name: 'is unplugged in the middle of everything, which rejects, and is let go',
    devices: { share: share({ hotplug: true }) },
    skip: (cell) => (onPci(cell) ? undefined : 'MMIO has no hot-unplug'),
    prepare(directory) {
      writeFileSync(join(makeShare(directory), 'file'), pattern(new Uint8Array(5_000_000), 8));
    },
    timeoutS: 90,
    host: {
      unplug: (_args: null, env) => env.qmp('device_del', { id: env.deviceId('share') }),
      gone: (_args: null, env) => env.qmpEvent('DEVICE_DELETED', 60_000),
    },
    async guest(context) {
      const gone = context.host('gone', null);
      {
        await using mounted = await mount(context);
        const { fs } = mounted;
        const reading = rejects(
          async () => {
            for (;;) await fs.readFile('/file');
          },
          { code: 'DEVICE_REMOVED' },
        );
        await context.host('unplug', null);
        await reading;
        await rejects(fs.stat('/'), { code: 'DEVICE_REMOVED' });
      }
      await gone;
    },
  }),
];
