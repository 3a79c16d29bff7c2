import { CommonFeatures, decodeUtf8Lossless } from '@virtio/core';
import { ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { type MemoryServer, refusal } from '../test/memory-server.ts';
import { bytes, failure, leavesNothing, mounted, pattern, same, setUp, usual } from '../test/set-up.ts';
import { type Dirent, FileType, OpenFlag, P9FileSystem } from './index.ts';

const packed = usual | CommonFeatures.set('RING_PACKED').bits;

describe.each(ringVariants)('P9FileSystem on a ring that is $name', ({ features }) => {
  it('reads and writes files of any size and leaves nothing behind', async () => {
    const rig = await mounted({ features });
    const { fs, server } = rig;
    for (const size of [0, 1, 8168, 8169, 32_768, 32_769, 524_288, 524_289, 1_500_000]) {
      const data = pattern(size, size);
      await fs.writeFile('/file', data);
      expect(same(server.find('/file')?.bytes, data)).toBe(true);
      expect(same(await fs.readFile('/file'), data)).toBe(true);
      expect(same(fs.readFileSync('/file'), data)).toBe(true);
    }
    await leavesNothing(rig, fs);
  });

  it('does the same synchronously, on a transport without interrupts', () => {
    const rig = setUp({ features, interrupts: false });
    const { driver, device, server } = rig;
    const fs = P9FileSystem.mountSync(driver);
    const data = pattern(300_000);
    expect(fs.mkdirSync('/a/b/c', { recursive: true })).toBe('/a');
    fs.writeFileSync('/a/b/file', data);
    expect(same(server.find('/a/b/file')?.bytes, data)).toBe(true);
    expect(same(fs.readFileSync('/a/b/file'), data)).toBe(true);
    expect(fs.readdirSync('/a/b')).toEqual(['c', 'file']);
    fs.rmSync('/a', { recursive: true });
    expect(server.root.entries.size).toBe(0);
    fs.unmountSync();
    driver[Symbol.dispose]();
    expect([...server.fids.keys()]).toEqual([]);
    device.assertClean();
  });
});

describe.each([
  ['split ring', usual, true],
  ['packed ring', packed, true],
  ['qids that tell no kinds', usual, false],
])('P9FileSystem (%s)', (_name, features, kindsInQids) => {
  const prepare = (server: MemoryServer): void => {
    server.kindsInQids = kindsInQids;
  };
  const cases: [string, (fs: P9FileSystem, rig: Awaited<ReturnType<typeof mounted>>) => Promise<void>][] = [
    [
      'reads text, and refuses encodings that it does not have',
      async (fs, { server }) => {
        server.put('/text', bytes('Grüße, 世界'));
        expect(await fs.readFile('/text', 'utf8')).toBe('Grüße, 世界');
        expect(await fs.readFile('text', { encoding: 'utf-8' })).toBe('Grüße, 世界');
        expect(await failure(() => fs.readFile('/text', 'latin1' as 'utf8'))).toMatchObject({
          code: 'INVALID_PARAM',
        });
      },
    ],
    [
      'reads files that say they are empty and are not',
      async (fs, { server }) => {
        const data = pattern(100_000);
        server.put('/proc', data);
        server.tamper = (reply, type) => {
          // size in Rgetattr
          if (type === 24) reply.fill(0, 56, 64);
          return reply;
        };
        expect(same(await fs.readFile('/proc'), data)).toBe(true);
      },
    ],
    [
      'reads what is there of a file that shrank, and of one that grew',
      async (fs, { server }) => {
        server.put('/file', pattern(1000));
        const claim = (size: number): void => {
          server.tamper = (reply, type) => {
            if (type === 24) new DataView(reply.buffer).setUint32(56, size, true);
            return reply;
          };
        };
        claim(40_000_000);
        expect(same(await fs.readFile('/file'), pattern(1000))).toBe(true);
        claim(10);
        expect(same(await fs.readFile('/file'), pattern(1000).subarray(0, 10))).toBe(true);
      },
    ],
    [
      'is not made to allocate memory by a size alone',
      async (fs, { server }) => {
        server.put('/file', pattern(10));
        server.tamper = (reply, type) => {
          if (type === 24) reply.fill(0xff, 56, 62);
          return reply;
        };
        expect(await failure(() => fs.readFile('/file'))).toMatchObject({ code: 'EFBIG' });
        server.tamper = (reply, type) => {
          if (type === 24) new DataView(reply.buffer).setUint32(56, 0x7fff_ffff, true);
          return reply;
        };
        expect((await fs.readFile('/file')).buffer.byteLength).toBeLessThan(20_000_000);
      },
    ],
    [
      'reads a small file in two rounds after its path: opening, and its size along with its contents',
      async (fs, { server }) => {
        server.put('/small', pattern(30_000));
        await fs.stat('/small');
        server.log.length = 0;
        expect(same(await fs.readFile('/small'), pattern(30_000))).toBe(true);
        const kind = kindsInQids ? [] : [24];
        expect(server.log.map(({ type }) => type)).toEqual([110, ...kind, 12, 24, 116, 120]);
      },
    ],
    [
      'says in errors what was being done: opening, reading, writing or closing',
      async (fs, { server }) => {
        server.put('/f', pattern(100));
        for (const [type, syscall] of [
          [12, 'open'],
          [24, kindsInQids ? 'read' : 'open'],
          [116, 'read'],
        ] as const) {
          server.refuse = (asked) => (asked === type ? 5 : undefined);
          const message = `EIO: input/output error, ${syscall} '/f'`;
          expect(await failure(() => fs.readFile('/f'))).toMatchObject({
            code: 'EIO',
            syscall,
            path: '/f',
            message,
          });
        }
        for (const [type, syscall] of [
          [12, 'open'],
          [118, 'write'],
          [120, 'close'],
        ] as const) {
          // Those for which nobody waits are not refused.
          server.refuse = (asked) =>
            asked === type && server.log.some((each) => each.type === 12) ? 28 : undefined;
          server.log.length = 0;
          expect(await failure(() => fs.writeFile('/f', 'x'))).toMatchObject({
            code: 'ENOSPC',
            syscall,
            path: '/f',
          });
        }
        server.refuse = undefined;
        expect(await failure(() => fs.readFile('/'))).toMatchObject({
          code: 'EISDIR',
          syscall: 'read',
          path: '/',
        });
        expect(await failure(() => fs.copyFile('/', '/g'))).toMatchObject({
          code: 'EISDIR',
          syscall: 'copyfile',
        });
      },
    ],
    [
      'goes on after short reads and short writes',
      async (fs, { server }) => {
        server.mostBytes = 7777;
        const data = pattern(200_000);
        await fs.writeFile('/short', data);
        expect(same(server.find('/short')?.bytes, data)).toBe(true);
        expect(same(await fs.readFile('/short'), data)).toBe(true);
      },
    ],
    [
      'keeps to the iounit of the server and to a smaller msize',
      async (fs, rig) => {
        rig.server.iounit = 20_000;
        rig.server.msize = 30_000;
        await fs.remount();
        expect(fs.client.msize).toBe(30_000);
        const data = pattern(100_000);
        await fs.writeFile('/units', data);
        expect(same(await fs.readFile('/units'), data)).toBe(true);
        const before = rig.server.log.length;
        await fs.readFile('/units');
        expect(rig.server.log.slice(before).filter(({ type }) => type === 116)).toHaveLength(5);
      },
    ],
    [
      'writes pieces as they come, and appends',
      async (fs, { server }) => {
        const source = async function* (): AsyncGenerator<string | Uint8Array> {
          yield 'one ';
          await Promise.resolve();
          yield bytes('two ');
        };
        await fs.writeFile('/pieces', source());
        await fs.appendFile('/pieces', ['three ', bytes('four ')]);
        await fs.appendFile('/pieces', 'five');
        expect(await fs.readFile('/pieces', 'utf8')).toBe('one two three four five');
        fs.appendFileSync('/pieces', '!');
        expect(server.find('/pieces')?.bytes.at(-1)).toBe(0x21);
        await fs.writeFile('/pieces', '');
        expect(server.find('/pieces')?.bytes).toHaveLength(0);
      },
    ],
    [
      'gives new files their permissions, less the umask, and their group',
      async (usual, { driver, server }) => {
        await usual.unmount();
        await using fs = await P9FileSystem.mount(driver, { umask: 0o027, gid: 42 });
        await fs.writeFile('/a', '');
        await fs.writeFile('/b', '', { mode: 0o777 });
        await fs.mkdir('/c');
        expect(server.find('/a')).toMatchObject({ mode: FileType.FILE | 0o640, gid: 42 });
        expect(server.find('/b')?.mode).toBe(FileType.FILE | 0o750);
        expect(server.find('/c')).toMatchObject({ mode: FileType.DIRECTORY | 0o750, gid: 42 });
      },
    ],
    [
      'opens files in all ways of node:fs',
      async (fs, { server }) => {
        const text = (): string => new TextDecoder().decode(server.find('/f')?.bytes);
        for (const flags of ['r', 'r+', OpenFlag.WRONLY] as const) {
          expect(await failure(() => fs.open('/f', flags))).toMatchObject({
            code: 'ENOENT',
            syscall: 'open',
            path: '/f',
          });
        }
        await (await fs.open('/f', 'wx')).close();
        for (const flags of ['wx', 'wx+', 'ax', 'ax+'] as const) {
          expect(await failure(() => fs.open('/f', flags))).toMatchObject({ code: 'EEXIST', path: '/f' });
        }
        for (const [flags, after] of [
          ['w', 'new'],
          ['a', 'newnew'],
          ['r+', 'newnew'],
          ['a+', 'newnewnew'],
          ['w+', 'new'],
          ['as', 'newnew'],
        ] as const) {
          const handle = await fs.open('/f', flags);
          await handle.write('new');
          await handle.close();
          expect(text(), flags).toBe(after);
        }
        expect(await failure(() => fs.open('/f', 'rw' as 'r'))).toMatchObject({ code: 'INVALID_PARAM' });
      },
    ],
    [
      'refuses to open directories for writing, and files as directories',
      async (fs, { server }) => {
        server.put('/d', 'directory');
        server.put('/f', bytes('x'));
        expect(await failure(() => fs.open('/d', 'r+'))).toMatchObject({ code: 'EISDIR' });
        expect(await failure(() => fs.writeFile('/d', ''))).toMatchObject({ code: 'EISDIR' });
        expect(await failure(() => fs.open('/f', OpenFlag.DIRECTORY))).toMatchObject({ code: 'ENOTDIR' });
        expect(await failure(() => fs.readFile('/f/'))).toMatchObject({ code: 'ENOTDIR' });
        expect(await failure(() => fs.readFile('/f/g'))).toMatchObject({ code: 'ENOTDIR' });
        expect(await failure(() => fs.writeFile('/new/', ''))).toMatchObject({ code: 'ENOENT' });
      },
    ],
    [
      'starts over when a file appears between looking and creating, or goes between looking and opening',
      async (fs, { server }) => {
        let once = true;
        server.refuse = (type) => {
          if (type !== 14 || !once) return undefined;
          once = false;
          server.put('/race', bytes('theirs'));
          return 17;
        };
        await fs.appendFile('/race', ' ours');
        expect(await fs.readFile('/race', 'utf8')).toBe('theirs ours');
        once = true;
        server.refuse = (type) => {
          if (type !== 12 || !once) return undefined;
          once = false;
          server.root.entries.delete('race');
          return 2;
        };
        await fs.writeFile('/race', 'again');
        expect(await fs.readFile('/race', 'utf8')).toBe('again');
        server.refuse = (type) => (type === 14 ? 17 : undefined);
        expect(await failure(() => fs.writeFile('/never', ''))).toMatchObject({ code: 'EEXIST' });
      },
    ],
    [
      'reads attributes',
      async (fs, { server }) => {
        const inode = server.put('/f', pattern(1000), FileType.FILE | 0o640);
        Object.assign(inode, {
          uid: 7,
          gid: 8,
          links: 3,
          rdev: 259,
          atime: [-1, 500_000_000],
          mtime: [1_700_000_000, 123_456_789],
        });
        server.put('/l', 'f');
        const stats = await fs.stat('/l');
        expect(stats).toMatchObject({
          size: 1000,
          uid: 7,
          gid: 8,
          nlink: 3,
          rdev: 259,
          blksize: 4096,
          blocks: 2,
          dev: 0,
        });
        expect(stats.mode).toBe(FileType.FILE | 0o640);
        expect(stats.qid.path).toBe(inode.number);
        expect(stats.ino).toBe(Number(inode.number));
        expect(stats.atimeMs).toBe(-500);
        expect(stats.mtimeMs).toBeCloseTo(1_700_000_000_123.456, 2);
        expect(stats.mtime).toEqual(new Date(1_700_000_000_123));
        expect([stats.birthtimeMs, stats.ctime.getTime()]).toEqual([0, 0]);
        expect([stats.isFile(), stats.isDirectory(), stats.isSymbolicLink()]).toEqual([true, false, false]);
        const link = await fs.lstat('/l');
        expect([link.isSymbolicLink(), link.size]).toEqual([true, 1]);
        expect((await fs.stat('/')).isDirectory()).toBe(true);
        await fs.access('/f');
        expect(await failure(() => fs.access('/g'))).toMatchObject({
          code: 'ENOENT',
          syscall: 'access',
          path: '/g',
        });
      },
    ],
    [
      'changes attributes',
      async (fs, { server }) => {
        const inode = server.put('/f', pattern(10));
        const link = server.put('/l', 'f');
        await fs.chmod('/l', 0o600);
        await fs.chown('/l', 1000, 1001);
        await fs.utimes('/l', 1.5, new Date(2_000_250));
        await fs.truncate('/l', 4);
        expect(inode).toMatchObject({ mode: FileType.FILE | 0o600, uid: 1000, gid: 1001 });
        expect([inode.atime, inode.mtime]).toEqual([
          [1, 500_000_000],
          [2000, 250_000_000],
        ]);
        expect(inode.bytes).toEqual(pattern(10).subarray(0, 4));
        await fs.utimes('/f', -0.25, 1_700_000_000.123_457);
        expect([inode.atime, inode.mtime]).toEqual([
          [-1, 750_000_000],
          [1_700_000_000, 123_457_000],
        ]);
        await fs.utimes('/f', 1_700_000_000_123_456_789n, -1n);
        expect([inode.atime, inode.mtime]).toEqual([
          [1_700_000_000, 123_456_789],
          [-1, 999_999_999],
        ]);
        const { atimeNs, mtimeNs } = await fs.stat('/f');
        expect([atimeNs, mtimeNs]).toEqual([1_700_000_000_123_456_789n, -1n]);
        await fs.lchown('/l', 5, 6);
        await fs.lutimes('/l', 7, 8);
        expect(link).toMatchObject({ uid: 5, gid: 6, atime: [7, 0], mtime: [8, 0] });
        await fs.truncate('/f');
        expect(inode.bytes).toHaveLength(0);
        for (const bad of [-1, 0.5, Number.NaN, 2 ** 53]) {
          expect(await failure(() => fs.truncate('/f', bad))).toMatchObject({ code: 'INVALID_PARAM' });
        }
        for (const bad of [Number.NaN, 'now' as unknown as number]) {
          expect(await failure(() => fs.utimes('/f', bad, 0))).toMatchObject({ code: 'INVALID_PARAM' });
        }
        for (const bad of [-1, 0.5, 0x10000, '0755' as unknown as number]) {
          expect(await failure(() => fs.chmod('/f', bad))).toMatchObject({ code: 'INVALID_PARAM' });
          expect(await failure(() => fs.open('/new', 'w', bad))).toMatchObject({ code: 'INVALID_PARAM' });
          expect(await failure(() => fs.mkdir('/new', { mode: bad }))).toMatchObject({
            code: 'INVALID_PARAM',
          });
        }
        expect(await failure(() => fs.stat('/new'))).toMatchObject({ code: 'ENOENT' });
        expect(await failure(() => fs.truncate('/'))).toMatchObject({ code: 'EISDIR' });
      },
    ],
    [
      'refuses paths and data that are none, before it opens anything',
      async (fs, { server }) => {
        server.put('/f', bytes('kept'));
        for (const wrong of [
          undefined,
          5,
          {},
          new ArrayBuffer(2),
          new Uint32Array(2),
        ] as unknown as string[]) {
          expect(await failure(() => fs.readFile(wrong))).toMatchObject({ code: 'INVALID_PARAM' });
          expect(await failure(() => fs.rm(wrong))).toMatchObject({ code: 'INVALID_PARAM' });
          expect(await failure(() => fs.writeFile('/f', wrong))).toMatchObject({ code: 'INVALID_PARAM' });
        }
        expect(await fs.readFile('/f', 'utf8')).toBe('kept');
      },
    ],
    [
      'lists directories, whatever their size',
      async (fs, { server }) => {
        const names = Array.from({ length: 3000 }, (_, i) => `file ${i} ${'x'.repeat(i % 100)}`);
        for (const name of names) server.put(`/many/${name}`, bytes(''));
        server.put('/many/dir', 'directory');
        server.put('/many/link', 'dir');
        expect(await fs.readdir('/many')).toEqual([...names, 'dir', 'link']);
        const entries = await fs.readdir('/many', { withFileTypes: true });
        expect(kinds(entries.slice(-3))).toEqual([
          'file 2999 '.padEnd(109, 'x') + ': file',
          'dir: directory',
          'link: link',
        ]);
        expect(entries[0]?.parentPath).toBe('/many');
        const seen: string[] = [];
        for await (const { name } of fs.opendir('/many')) seen.push(name);
        expect(seen).toEqual([...names, 'dir', 'link']);
        for await (const { name } of fs.opendir('/many')) if (name === names[5]) break;
        expect(await fs.readdir('/')).toEqual(['many']);
        expect(await failure(() => fs.readdir('/many/link2'))).toMatchObject({
          code: 'ENOENT',
          syscall: 'scandir',
        });
        expect(await failure(() => fs.readdir(`/many/${names[0] ?? ''}`))).toMatchObject({ code: 'ENOTDIR' });
      },
    ],
    [
      'asks for the types of entries that the server does not tell',
      async (fs, { server }) => {
        server.entryTypes = false;
        for (let i = 0; i < 100; i += 1) server.put(`/d/f${i}`, bytes(''));
        server.put('/d/dir', 'directory');
        server.put('/d/link', 'nowhere');
        server.put('/d/pipe', bytes(''), FileType.FIFO | 0o600);
        const entries = await fs.readdir('/d', { withFileTypes: true });
        expect(entries).toHaveLength(103);
        expect(kinds(entries.slice(-4))).toEqual(['f99: file', 'dir: directory', 'link: link', 'pipe: fifo']);
        const dir: Dirent[] = [];
        for await (const entry of fs.opendir('/d')) dir.push(entry);
        expect(kinds(dir)).toEqual(kinds(entries));
        expect(kinds(fs.readdirSync('/d', { withFileTypes: true }))).toEqual(kinds(entries));
      },
    ],
    [
      'lists trees, without following links, and leaves out what goes meanwhile',
      async (fs, { server }) => {
        for (const path of ['/t/a', '/t/d/b', '/t/d/e/f/c', '/t/z/g']) server.put(path, pattern(1));
        server.put('/t/empty', 'directory');
        server.put('/t/up', '..');
        const names = ['a', 'd', 'd/b', 'd/e', 'd/e/f', 'd/e/f/c', 'empty', 'up', 'z', 'z/g'];
        expect((await fs.readdir('/t', { recursive: true })).sort()).toEqual(names);
        expect(fs.readdirSync('t/', { recursive: true }).sort()).toEqual(names);
        for (const top of ['/t', 't/', '/t/./']) {
          const entries = await fs.readdir(top, { recursive: true, withFileTypes: true });
          expect(
            entries
              .filter((entry) => entry.isDirectory())
              .map(({ name }) => name)
              .sort(),
          ).toEqual(['d', 'e', 'empty', 'f', 'z']);
          for (const { parentPath, name } of entries) {
            expect(await fs.lstat(`${parentPath}/${name}`)).toBeDefined();
          }
        }
        expect(await fs.readdir('/t/empty', { recursive: true })).toEqual([]);
        expect(await failure(() => fs.readdir('/t/a', { recursive: true }))).toMatchObject({
          code: 'ENOTDIR',
          syscall: 'scandir',
        });
        expect(await failure(() => fs.readdir('/no', { recursive: true }))).toMatchObject({
          code: 'ENOENT',
          path: '/no',
        });

        // A directory that is removed, or becomes a file, after it was listed.
        const gone = server.find('/t')?.entries;
        server.tamper = (reply, type) => {
          if (type === 40) {
            gone?.delete('z');
            gone?.set('d', server.makeInode(FileType.FILE | 0o644));
          }
          return reply;
        };
        expect((await fs.readdir('/t', { recursive: true })).sort()).toEqual(['a', 'd', 'empty', 'up', 'z']);
        server.tamper = undefined;

        const loop = server.put('/loop', 'directory');
        loop.entries.set('loop', loop);
        expect(await failure(() => fs.readdir('/loop', { recursive: true }))).toMatchObject({
          code: 'ELOOP',
        });
      },
    ],
    [
      'makes directories with names that nothing has yet',
      async (fs, { server }) => {
        server.put('/tmp', 'directory');
        const paths = [await fs.mkdtemp('/tmp/x-'), await fs.mkdtemp('/tmp/x-'), fs.mkdtempSync('tmp/')];
        expect(paths[0]).toMatch(/^\/tmp\/x-[A-Za-z0-9]{6}$/);
        expect(paths[2]).toMatch(/^tmp\/[A-Za-z0-9]{6}$/);
        expect(server.find('/tmp')?.entries.size).toBe(3);
        expect(server.find(paths[0] ?? '')?.mode).toBe(FileType.DIRECTORY | 0o700);
        let tries = 0;
        server.refuse = (type) => (type === 72 && ++tries < 5 ? 17 : undefined);
        await fs.mkdtemp('/tmp/y');
        expect(tries).toBe(5);
        server.refuse = (type) => (type === 72 ? 17 : undefined);
        expect(await failure(() => fs.mkdtemp('/tmp/z'))).toMatchObject({
          code: 'EEXIST',
          syscall: 'mkdtemp',
          path: '/tmp/zXXXXXX',
        });
        server.refuse = undefined;
        expect(await failure(() => fs.mkdtemp('/no/x'))).toMatchObject({ code: 'ENOENT' });
      },
    ],
    [
      'makes directories, and those above them',
      async (fs, { server }) => {
        await fs.mkdir('/a');
        expect(await failure(() => fs.mkdir('/a'))).toMatchObject({
          code: 'EEXIST',
          syscall: 'mkdir',
          path: '/a',
        });
        expect(await failure(() => fs.mkdir('/b/c'))).toMatchObject({ code: 'ENOENT', path: '/b/c' });
        expect(await failure(() => fs.mkdir('/'))).toMatchObject({ code: 'EEXIST' });
        expect(await fs.mkdir('/a/b/c/d', { recursive: true })).toBe('/a/b');
        expect(server.find('/a/b/c/d')).toBeDefined();
        expect(await fs.mkdir('/a/b/c/d/', { recursive: true })).toBeUndefined();
        expect(await fs.mkdir('/', { recursive: true })).toBeUndefined();
        await fs.writeFile('/file', '');
        expect(await failure(() => fs.mkdir('/file', { recursive: true }))).toMatchObject({ code: 'EEXIST' });
        expect(await failure(() => fs.mkdir('/file/x', { recursive: true }))).toMatchObject({
          code: 'ENOTDIR',
        });
      },
    ],
    [
      'removes files, directories and trees',
      async (fs, { server }) => {
        for (let i = 0; i < 200; i += 1) server.put(`/t/d${i % 7}/f${i}`, bytes('x'));
        server.put('/t/d0/link', '/keep');
        server.put('/keep/file', bytes('keep'));
        expect(await failure(() => fs.rm('/t'))).toMatchObject({ code: 'EISDIR', syscall: 'rm', path: '/t' });
        expect(await failure(() => fs.rmdir('/t'))).toMatchObject({ code: 'ENOTEMPTY' });
        expect(await failure(() => fs.unlink('/t'))).toMatchObject({ code: 'EISDIR' });
        expect(await failure(() => fs.rmdir('/t/d0/link'))).toMatchObject({ code: 'ENOTDIR' });
        await fs.rm('/t', { recursive: true });
        expect(server.find('/t')).toBeUndefined();
        expect(server.find('/keep/file')).toBeDefined();
        expect(await failure(() => fs.rm('/t', { recursive: true }))).toMatchObject({ code: 'ENOENT' });
        await fs.rm('/t', { recursive: true, force: true });
        await fs.unlink('/keep/file');
        await fs.rmdir('/keep');
        expect(server.root.entries.size).toBe(0);
        expect(await failure(() => fs.rm('/', { recursive: true }))).toMatchObject({ code: 'EINVAL' });
      },
    ],
    [
      'says why a file in a tree cannot be removed',
      async (fs, { server }) => {
        server.put('/t/f', bytes(''));
        let refusals = 0;
        server.refuse = (type) => (type === 76 && ++refusals > 1 ? 13 : undefined);
        expect(await failure(() => fs.rm('/t', { recursive: true }))).toMatchObject({
          code: 'EACCES',
          path: '/t',
        });
        server.refuse = (type) => (type === 76 ? 30 : undefined);
        expect(await failure(() => fs.rm('/t', { recursive: true }))).toMatchObject({ code: 'EROFS' });
      },
    ],
    [
      'renames and links',
      async (fs, { server }) => {
        const inode = server.put('/a/f', bytes('x'));
        server.put('/b', 'directory');
        await fs.rename('/a/f', '/b/g');
        expect(server.find('/b/g')).toBe(inode);
        await fs.link('/b/g', '/a/h');
        expect(server.find('/a/h')).toBe(inode);
        expect((await fs.stat('/a/h')).nlink).toBe(2);
        expect(await failure(() => fs.rename('/no', '/b/x'))).toMatchObject({
          code: 'ENOENT',
          syscall: 'rename',
          path: '/no',
          dest: '/b/x',
        });
        expect(await failure(() => fs.link('/b/g', '/a/h'))).toMatchObject({ code: 'EEXIST', dest: '/a/h' });
        expect(await failure(() => fs.rename('/', '/b/x'))).toMatchObject({ code: 'EBUSY' });
      },
    ],
    [
      'takes a path with a slash at its end for that of a directory, as Linux does',
      async (fs, { server }) => {
        const file = server.put('/f', bytes('x'));
        server.put('/d/e', bytes('y'));
        server.put('/link', 'd');
        for (const [code, attempt] of [
          ['ENOTDIR', () => fs.unlink('/f/')],
          ['ENOTDIR', () => fs.unlink('/link/')],
          ['EISDIR', () => fs.unlink('/d/')],
          ['ENOENT', () => fs.unlink('/no/')],
          ['ENOTDIR', () => fs.rm('/f/', { force: true })],
          ['ENOTDIR', () => fs.rm('/link//', { recursive: true })],
          ['ENOTDIR', () => fs.rename('/f/', '/g')],
          ['ENOTDIR', () => fs.rename('/f', '/g/')],
          ['ENOENT', () => fs.link('/f', '/g/')],
          ['EEXIST', () => fs.link('/f', '/d/')],
          ['ENOENT', () => fs.symlink('f', '/g/')],
          ['ENOENT', () => fs.mknod('/g/', FileType.FIFO | 0o644)],
        ] as const) {
          expect(await failure(attempt), String(attempt)).toMatchObject({ code });
        }
        expect([...server.root.entries.keys()]).toEqual(['f', 'd', 'link']);
        expect(server.find('/f')).toBe(file);
        await fs.rm('/no/', { force: true });
        await fs.rename('/d/', '/h/');
        await fs.rm('/h/', { recursive: true });
        expect([...server.root.entries.keys()]).toEqual(['f', 'link']);
      },
    ],
    [
      'makes no directories without end where none can be made, as in /proc of Linux',
      async (fs, { server }) => {
        const proc = server.put('/proc', 'directory');
        const reply = server.reply.bind(server);
        server.reply = (message) => {
          const view = new DataView(message.buffer);
          const made = message[4] === 72 ? server.fids.get(view.getUint32(7, true))?.inode : undefined;
          return made === proc ? refusal(message, 2) : reply(message);
        };
        for (const path of ['/proc/a', '/proc/a/b', '/proc/a/b/c']) {
          expect(await failure(() => fs.mkdir(path, { recursive: true }))).toMatchObject({
            code: 'ENOENT',
            path,
          });
        }
      },
    ],
    [
      'makes do with old servers that know neither renameat nor unlinkat',
      async (fs, { server }) => {
        for (const type of [74, 76]) server.unknown.add(type);
        const inode = server.put('/a/f', bytes('x'));
        server.put('/a/d/e', bytes('x'));
        await fs.rename('/a/f', '/g');
        expect(server.find('/g')).toBe(inode);
        expect(await failure(() => fs.unlink('/a'))).toMatchObject({ code: 'EISDIR' });
        expect(await failure(() => fs.rmdir('/g'))).toMatchObject({ code: 'ENOTDIR' });
        await fs.unlink('/g');
        await fs.rm('/a', { recursive: true });
        expect(server.root.entries.size).toBe(0);
      },
    ],
    [
      'makes and reads symbolic links, and device nodes',
      async (fs, { server }) => {
        await fs.symlink('../some/where', '/l');
        expect(server.find('/l')?.target).toBe('../some/where');
        expect(await fs.readlink('/l')).toBe('../some/where');
        await fs.writeFile('/f', 'contents');
        expect(await failure(() => fs.readlink('/f'))).toMatchObject({ code: 'EINVAL', syscall: 'readlink' });
        expect(await failure(() => fs.symlink('x', '/l'))).toMatchObject({
          code: 'EEXIST',
          path: 'x',
          dest: '/l',
        });
        expect(await failure(() => fs.symlink('', '/m'))).toMatchObject({ code: 'ENOENT' });
        await fs.mknod('/pipe', FileType.FIFO | 0o666);
        await fs.mknod('/null', FileType.CHARACTER_DEVICE | 0o600, 1, 3);
        expect((await fs.stat('/pipe')).isFIFO()).toBe(true);
        expect(await fs.stat('/null')).toMatchObject({ mode: FileType.CHARACTER_DEVICE | 0o600, rdev: 259 });
      },
    ],
    [
      'keeps names whatever their bytes are',
      async (fs, { server }) => {
        const names = [
          'ascii',
          'žluťoučký kůň',
          '日本語',
          'עברית',
          'العربية',
          '😀',
          'a\nb\\c"',
          decodeUtf8Lossless(Uint8Array.of(0xff, 0x41, 0x80)),
        ];
        for (const name of names) await fs.writeFile(`/${name}`, name);
        expect(await fs.readdir('/')).toEqual(names);
        for (const name of names) expect((await fs.stat(`/${name}`)).isFile()).toBe(true);
        expect([...server.root.entries.keys()].at(-1)).toBe('\xffA\x80');
        await fs.symlink(names.at(-1) ?? '', '/l');
        expect(await fs.readlink('/l')).toBe(names.at(-1));
        expect(await failure(() => fs.writeFile('/\ud800', ''))).toMatchObject({ code: 'EILSEQ' });
        expect(await failure(() => fs.writeFile('/a\0b', ''))).toMatchObject({ code: 'EINVAL' });
        expect(await failure(() => fs.mkdir('/a\0b'))).toMatchObject({ code: 'EINVAL' });
        expect(await failure(() => fs.writeFile(`/${'x'.repeat(256)}`, ''))).toMatchObject({
          code: 'ENAMETOOLONG',
        });
        expect(await failure(() => fs.stat(`/${'x'.repeat(70_000)}`))).toMatchObject({
          code: 'ENAMETOOLONG',
        });
        expect(await failure(() => fs.stat(''))).toMatchObject({ code: 'ENOENT' });
      },
    ],
    [
      'copies files',
      async (fs, { server }) => {
        server.put('/a', pattern(500_000), FileType.FILE | 0o755);
        server.put('/b', pattern(900_000));
        await fs.copyFile('/a', '/b');
        await fs.copyFile('/a', '/c');
        for (const path of ['/b', '/c']) expect(same(server.find(path)?.bytes, pattern(500_000))).toBe(true);
        expect(server.find('/c')?.mode).toBe(FileType.FILE | 0o755);
        await fs.copyFile('/a', '/a');
        expect(server.find('/a')?.bytes).toHaveLength(500_000);
        const error = await failure(() => fs.copyFile('/a', '/c', { exclusive: true }));
        expect(error).toMatchObject({ code: 'EEXIST', syscall: 'copyfile', path: '/a', dest: '/c' });
      },
    ],
    [
      'copies a file to itself without harm, also while another program writes to it',
      async (fs, { server }) => {
        const log = server.put('/log', bytes('0123456789'));
        const reply = server.reply.bind(server);
        server.reply = (message) => {
          if (message[4] === 24) log.bytes = Uint8Array.of(...log.bytes, 0x2b);
          return reply(message);
        };
        await fs.copyFile('/log', '/log');
        expect(Buffer.from(log.bytes).toString()).toMatch(/^0123456789\++$/);
      },
    ],
    [
      'tells of the file system',
      async (fs) => {
        expect(await fs.statfs('/')).toEqual({
          type: 0x01021997,
          bsize: 4096,
          blocks: 1000,
          bfree: 500,
          bavail: 400,
          files: 100,
          ffree: 50,
          fsid: 0xfeedfacecafebeefn,
          namelen: 255,
        });
      },
    ],
    [
      'sets, reads, lists and removes extended attributes',
      async (fs, { server }) => {
        const inode = server.put('/f', bytes(''));
        const large = pattern(60_000);
        await fs.setxattr('/f', 'user.a', bytes('value'));
        await fs.setxattr('/f', 'user.b', large, { only: 'create' });
        expect(inode.xattrs.get('user.a')).toEqual(bytes('value'));
        expect(await fs.getxattr('/f', 'user.a')).toEqual(bytes('value'));
        expect(same(await fs.getxattr('/f', 'user.b'), large)).toBe(true);
        expect(await fs.listxattr('/f')).toEqual(['user.a', 'user.b']);
        const taken = await failure(() => fs.setxattr('/f', 'user.a', large, { only: 'create' }));
        expect(taken).toMatchObject({ code: 'EEXIST', syscall: 'setxattr', path: '/f' });
        await fs.removexattr('/f', 'user.a');
        expect(await failure(() => fs.removexattr('/f', 'user.a'))).toMatchObject({ code: 'ENODATA' });
        expect(await failure(() => fs.getxattr('/f', 'user.a'))).toMatchObject({ code: 'ENODATA' });
        expect(await failure(() => fs.getxattr('/f', ''))).toMatchObject({ code: 'ENODATA' });
        await fs.setxattr('/f', 'user.b', bytes('x'), { only: 'replace' });
        expect(await fs.listxattr('/f')).toEqual(['user.b']);
        inode.xattrs.clear();
        expect(await fs.listxattr('/f')).toEqual([]);
      },
    ],
    [
      'reports a full disk as such, from whatever write it comes',
      async (fs, { server }) => {
        server.capacity = 400_000;
        expect(await failure(() => fs.writeFile('/f', pattern(1_000_000)))).toMatchObject({
          code: 'ENOSPC',
          path: '/f',
        });
      },
    ],
    [
      'reports what goes wrong when a written file is closed',
      async (fs, { server }) => {
        server.tamper = (reply, type) => (type === 120 ? refusal(reply, 122) : reply);
        expect(await failure(() => fs.writeFile('/f', 'x'))).toMatchObject({ code: 'EDQUOT' });
        expect(await failure(async () => (await fs.open('/f')).close())).toMatchObject({
          code: 'EDQUOT',
          syscall: 'close',
        });
        server.tamper = undefined;
      },
    ],
  ];

  it.each(cases)('%s', async (_what, body) => {
    const rig = await mounted({ features }, {}, prepare);
    await body(rig.fs, rig);
    await leavesNothing(rig, rig.fs);
  });

  it('has a synchronous form of all that it does', async () => {
    const rig = await mounted({ features }, {}, prepare);
    const { fs, server } = rig;
    fs.writeFileSync('/f', ['a', bytes('b')]);
    fs.appendFileSync('/f', 'c');
    expect(fs.readFileSync('/f', 'utf8')).toBe('abc');
    fs.copyFileSync('/f', '/g');
    fs.symlinkSync('f', '/l');
    fs.linkSync('/f', '/h');
    fs.mknodSync('/p', FileType.FIFO | 0o600);
    expect(fs.readlinkSync('/l')).toBe('f');
    expect(fs.realpathSync('/./l')).toBe('/f');
    expect([fs.statSync('/l').isFile(), fs.lstatSync('/l').isSymbolicLink()]).toEqual([true, true]);
    fs.accessSync('/l');
    expect(() => fs.accessSync('/m')).toThrow(/ENOENT/);
    fs.chmodSync('/f', 0o400);
    fs.chownSync('/f', 1, 2);
    fs.utimesSync('/f', 3, 4);
    fs.lchownSync('/l', 5, 6);
    fs.lutimesSync('/l', 7, 8);
    fs.truncateSync('/f', 2);
    expect(server.find('/f')).toMatchObject({
      mode: FileType.FILE | 0o400,
      uid: 1,
      gid: 2,
      atime: [3, 0],
      mtime: [4, 0],
    });
    expect(server.find('/l')).toMatchObject({ uid: 5, gid: 6, atime: [7, 0], mtime: [8, 0] });
    expect(fs.statfsSync('/').bsize).toBe(4096);
    fs.setxattrSync('/f', 'user.x', bytes('y'));
    expect(fs.getxattrSync('/f', 'user.x')).toEqual(bytes('y'));
    expect(fs.listxattrSync('/f')).toEqual(['user.x']);
    fs.removexattrSync('/f', 'user.x');
    fs.renameSync('/f', '/i');
    expect(fs.readdirSync('/')).toEqual(['g', 'l', 'h', 'p', 'i']);
    fs.mkdirSync('/d');
    fs.rmdirSync('/d');
    for (const name of fs.readdirSync('/')) fs.unlinkSync(name);
    expect(server.root.entries.size).toBe(0);
    await leavesNothing(rig, fs);
  });
});

describe('mounting', () => {
  it('can be undone and done again, on one device', async () => {
    const rig = setUp();
    for (let round = 0; round < 3; round += 1) {
      await using fs = await P9FileSystem.mount(rig.driver);
      await fs.writeFile(`/${round}`, 'x');
    }
    {
      using fs = P9FileSystem.mountSync(rig.driver);
      expect(fs.readdirSync('/')).toEqual(['0', '1', '2']);
    }
    expect([...rig.server.fids.keys()]).toEqual([]);
    rig.driver[Symbol.dispose]();
    rig.device.assertClean();
  });

  it('ends for good', async () => {
    const { fs } = await mounted();
    await fs.unmount();
    await fs.unmount();
    expect(await failure(() => fs.readFile('/x'))).toMatchObject({ code: 'NOT_READY' });
    expect(await failure(() => fs.remount())).toMatchObject({ code: 'DISPOSED' });
  });

  it('reports that the server lets nobody in', async () => {
    const { driver, server } = setUp();
    server.refuse = (type) => (type === 104 ? 1 : undefined);
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({
      name: 'FileError',
      code: 'EPERM',
    });
  });
});

function kinds(entries: readonly Dirent[]): string[] {
  return entries.map((entry) => {
    const kind = entry.isFile()
      ? 'file'
      : entry.isDirectory()
        ? 'directory'
        : entry.isSymbolicLink()
          ? 'link'
          : entry.isFIFO()
            ? 'fifo'
            : 'other';
    return `${entry.name}: ${kind}`;
  });
}
