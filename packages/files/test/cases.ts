/** What every file system must do, whatever protocol is below: one suite for 9P and FUSE. */
import { FileError, FileHandle, type FileSystem, FileType, type ErrnoName } from '@virtio/files';
import { expect } from 'vitest';

/** A share that is empty, mounted. */
export type Case = (fs: FileSystem) => Promise<void>;

/** Bytes that differ from place to place. */
function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

async function refused(code: ErrnoName, attempt: () => unknown): Promise<void> {
  try {
    await attempt();
  } catch (error) {
    expect(FileError.is(error), String(error)).toBe(true);
    expect((error as FileError).code).toBe(code);
    return;
  }
  expect.fail(`it was to be refused with ${code}`);
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** The cases by what they show. */
export const cases: Readonly<Record<string, Case>> = {
  'reads back what was written, of any size': async (fs) => {
    for (const size of [0, 1, 511, 4096, 70_000, 1_048_577, 5_000_001]) {
      const bytes = pattern(size, size);
      await fs.writeFile('/file', bytes);
      expect(same(await fs.readFile('/file'), bytes), `${size} bytes`).toBe(true);
      expect((await fs.stat('/file')).size).toBe(size);
    }
  },

  'does the same by spinning': async (fs) => {
    const bytes = pattern(1_500_000);
    fs.writeFileSync('/file', bytes);
    expect(same(fs.readFileSync('/file'), bytes)).toBe(true);
    fs.mkdirSync('/a/b', { recursive: true });
    fs.copyFileSync('/file', '/a/b/copy');
    fs.renameSync('/a/b/copy', '/a/moved');
    expect(fs.readdirSync('/', { recursive: true }).sort()).toEqual(['a', 'a/b', 'a/moved', 'file']);
    using handle = fs.openSync('/a/moved', 'r+');
    expect(handle.readSync(new Uint8Array(100), { position: 1_499_950 })).toBe(50);
    expect(handle.writeSync('end', { position: 1_500_000 })).toBe(3);
    expect(handle.statSync().size).toBe(1_500_003);
    fs.rmSync('/a', { recursive: true });
    expect(fs.readdirSync('/')).toEqual(['file']);
    await fs.access('/file');
  },

  'appends, and writes where it is told': async (fs) => {
    await fs.writeFile('/log', 'one\n');
    await fs.appendFile('/log', 'two\n');
    await fs.appendFile('/log', ['three', '\n']);
    expect(await fs.readFile('/log', 'utf8')).toBe('one\ntwo\nthree\n');
    await using handle = await fs.open('/log', 'a+');
    await handle.write('four\n', { position: 0 });
    expect(await fs.readFile('/log', 'utf8')).toBe('one\ntwo\nthree\nfour\n');
    await using other = await fs.open('/log', 'r+');
    await other.write('ONE', { position: 0 });
    await other.write('!', { position: 30 });
    expect((await fs.readFile('/log')).subarray(19)).toEqual(
      Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x21),
    );
  },

  'keeps the position of a handle': async (fs) => {
    await fs.writeFile('/file', 'abcdefghij');
    await using handle = await fs.open('/file', 'r+');
    expect(handle).toBeInstanceOf(FileHandle);
    const buffer = new Uint8Array(4);
    expect((await handle.read(buffer)).bytesRead).toBe(4);
    expect((await handle.read(buffer)).bytesRead).toBe(4);
    expect(new TextDecoder().decode(buffer)).toBe('efgh');
    expect((await handle.read(buffer)).bytesRead).toBe(2);
    expect((await handle.read(buffer)).bytesRead).toBe(0);
    await handle.writev([new Uint8Array([0x4b]), new Uint8Array([0x4c, 0x4d])]);
    expect(await handle.readFile('utf8')).toBe('');
    expect(await fs.readFile('/file', 'utf8')).toBe('abcdefghijKLM');
    const parts = [new Uint8Array(2), new Uint8Array(3)];
    expect((await handle.readv(parts, 0)).bytesRead).toBe(5);
    expect(new TextDecoder().decode(parts[1])).toBe('cde');
  },

  'reads and writes many pieces at once': async (fs) => {
    const bytes = pattern(400_000);
    await using handle = await fs.open('/file', 'w+');
    const size = 1000;
    const offsets = Array.from({ length: 400 }, (_, i) => ((i * 7919) % 400) * size);
    await Promise.all(offsets.map((at) => handle.write(bytes.subarray(at, at + size), { position: at })));
    await handle.sync();
    await handle.datasync();
    const back = await Promise.all(
      offsets.map(async (at) => (await handle.read(new Uint8Array(size), { position: at })).buffer),
    );
    expect(back.every((piece, i) => same(piece, bytes.subarray(offsets[i], (offsets[i] ?? 0) + size)))).toBe(
      true,
    );
  },

  'streams, and reads line by line': async (fs) => {
    const bytes = pattern(300_000);
    await using handle = await fs.open('/file', 'w+');
    const sink = handle.createWriteStream();
    for (let at = 0; at < bytes.length; at += 50_000) await sink.write(bytes.subarray(at, at + 50_000));
    expect(sink.bytesWritten).toBe(bytes.length);
    let at = 0;
    for await (const piece of handle.createReadStream({ start: 0, highWaterMark: 33_333 })) {
      expect(same(piece, bytes.subarray(at, at + piece.length))).toBe(true);
      at += piece.length;
    }
    expect(at).toBe(bytes.length);
    await fs.writeFile('/lines', 'one\r\ntwo\n\nlast');
    await using lines = await fs.open('/lines');
    const read: string[] = [];
    for await (const line of lines.readLines()) read.push(line);
    expect(read).toEqual(['one', 'two', '', 'last']);
  },

  'truncates and extends': async (fs) => {
    await fs.writeFile('/file', 'abcdef');
    await fs.truncate('/file', 3);
    expect(await fs.readFile('/file', 'utf8')).toBe('abc');
    await using handle = await fs.open('/file', 'r+');
    await handle.truncate(5);
    expect(await fs.readFile('/file')).toEqual(Uint8Array.of(97, 98, 99, 0, 0));
    await fs.writeFile('/file', 'x');
    expect(await fs.readFile('/file', 'utf8')).toBe('x');
  },

  'opens in the ways of node:fs': async (fs) => {
    await refused('ENOENT', () => fs.open('/new', 'r+'));
    await (await fs.open('/new', 'wx', 0o600)).close();
    await refused('EEXIST', () => fs.open('/new', 'wx'));
    expect((await fs.stat('/new')).mode & 0o777).toBe(0o600);
    await (await fs.open('/other', 'w', 0o666)).close();
    expect((await fs.stat('/other')).mode & 0o777, 'less the umask').toBe(0o644);
    const handle = await fs.open('/new');
    await handle.close();
    await refused('EBADF', () => handle.read(new Uint8Array(1)));
  },

  'copies files with their permissions': async (fs) => {
    const bytes = pattern(3_000_000);
    await fs.writeFile('/source', bytes, { mode: 0o640 });
    await fs.writeFile('/target', pattern(3_500_000, 2));
    await fs.copyFile('/source', '/target');
    await fs.copyFile('/source', '/new');
    expect(same(await fs.readFile('/target'), bytes)).toBe(true);
    expect(same(await fs.readFile('/new'), bytes)).toBe(true);
    expect((await fs.stat('/new')).mode & 0o777).toBe(0o640);
    await refused('EEXIST', () => fs.copyFile('/source', '/new', { exclusive: true }));
    await fs.writeFile('/empty', '');
    await fs.copyFile('/empty', '/new');
    expect((await fs.stat('/new')).size).toBe(0);
  },

  'lists directories of any size': async (fs) => {
    await fs.mkdir('/many');
    const names = Array.from({ length: 700 }, (_, i) => `entry number ${i}`);
    await Promise.all(names.map((name) => fs.writeFile(`/many/${name}`, '')));
    expect((await fs.readdir('/many')).sort()).toEqual([...names].sort());
    const found: string[] = [];
    for await (const entry of fs.opendir('/many')) {
      expect(entry.isFile()).toBe(true);
      found.push(entry.name);
    }
    expect(found.sort()).toEqual([...names].sort());
    await fs.rm('/many', { recursive: true });
    await refused('ENOENT', () => fs.readdir('/many'));
  },

  'tells the kinds of entries': async (fs) => {
    await fs.mkdir('/d/e', { recursive: true });
    await fs.writeFile('/d/f', '');
    await fs.symlink('f', '/d/l');
    const entries = await fs.readdir('/d', { withFileTypes: true, recursive: true });
    const kinds = entries.map((entry) => [
      entry.name,
      entry.isDirectory(),
      entry.isFile(),
      entry.isSymbolicLink(),
      entry.parentPath,
    ]);
    expect(kinds.sort()).toEqual([
      ['e', true, false, false, '/d'],
      ['f', false, true, false, '/d'],
      ['l', false, false, true, '/d'],
    ]);
  },

  'makes directories': async (fs) => {
    expect(await fs.mkdir('/a/b/c', { recursive: true })).toBe('/a');
    expect(await fs.mkdir('/a/b/c', { recursive: true })).toBeUndefined();
    await refused('EEXIST', () => fs.mkdir('/a'));
    await refused('ENOENT', () => fs.mkdir('/x/y'));
    await fs.mkdir('/mode', { mode: 0o700 });
    expect((await fs.stat('/mode')).mode & 0o777).toBe(0o700);
    const temporary = await fs.mkdtemp('/a/t-');
    expect(temporary).toMatch(/^\/a\/t-\w{6}$/);
    expect((await fs.stat(temporary)).isDirectory()).toBe(true);
    await refused('ENOTEMPTY', () => fs.rmdir('/a'));
    await fs.rmdir('/mode');
    await fs.rm('/a', { recursive: true });
    await fs.rm('/a', { recursive: true, force: true });
    expect(await fs.readdir('/')).toEqual([]);
  },

  'renames, also onto what is there': async (fs) => {
    await fs.writeFile('/one', '1');
    await fs.writeFile('/two', '2');
    await fs.rename('/one', '/two');
    expect(await fs.readFile('/two', 'utf8')).toBe('1');
    await refused('ENOENT', () => fs.rename('/one', '/three'));
    await fs.mkdir('/d');
    await fs.rename('/two', '/d/two');
    await fs.rename('/d', '/e');
    expect(await fs.readFile('/e/two', 'utf8')).toBe('1');
  },

  links: async (fs) => {
    await fs.mkdir('/d');
    await fs.writeFile('/d/file', 'x');
    await fs.link('/d/file', '/name');
    expect((await fs.stat('/name')).nlink).toBe(2);
    expect((await fs.stat('/name')).ino).toBe((await fs.stat('/d/file')).ino);
    await fs.symlink('d/file', '/relative');
    await fs.symlink('/d', '/absolute');
    expect(await fs.readlink('/relative')).toBe('d/file');
    expect(await fs.readFile('/relative', 'utf8')).toBe('x');
    expect(await fs.readFile('/absolute/file', 'utf8')).toBe('x');
    expect(await fs.realpath('/absolute/../absolute/file')).toBe('/d/file');
    expect((await fs.lstat('/relative')).isSymbolicLink()).toBe(true);
    expect((await fs.stat('/relative')).isFile()).toBe(true);
    await fs.symlink('loop', '/loop');
    await refused('ELOOP', () => fs.stat('/loop'));
    await fs.unlink('/relative');
    await refused('EINVAL', () => fs.readlink('/name'));
    await fs.unlink('/d/file');
    expect((await fs.stat('/name')).nlink).toBe(1);
  },

  'changes permissions and times': async (fs) => {
    await fs.writeFile('/file', 'x');
    await fs.chmod('/file', 0o751);
    expect((await fs.stat('/file')).mode).toBe(FileType.FILE | 0o751);
    await fs.utimes('/file', 12.5, new Date(98_765));
    const stats = await fs.stat('/file');
    expect([stats.atimeMs, stats.mtimeMs]).toEqual([12_500, 98_765]);
    await fs.utimes('/file', 1_000_000_007n, 2_000_000_009n);
    expect((await fs.stat('/file')).mtimeNs).toBe(2_000_000_009n);
    expect((await fs.stat('/file')).atimeNs).toBe(1_000_000_007n);
    await using handle = await fs.open('/file', 'r+');
    await handle.chmod(0o600);
    await handle.utimes(5, 6);
    const again = await handle.stat();
    expect([again.mode & 0o777, again.atimeMs, again.mtimeMs]).toEqual([0o600, 5000, 6000]);
    await fs.chown('/file', -1, -1);
  },

  'refuses what a kernel refuses, with its errors': async (fs) => {
    await fs.writeFile('/file', 'x');
    await fs.mkdir('/full');
    await fs.writeFile('/full/file', '');
    await refused('ENOENT', () => fs.readFile('/missing'));
    await refused('ENOENT', () => fs.writeFile('/no/such/place', ''));
    await refused('ENOTDIR', () => fs.readFile('/file/below'));
    await refused('ENOTDIR', () => fs.readdir('/file'));
    await refused('EISDIR', () => fs.writeFile('/full', ''));
    await refused('EISDIR', () => fs.readFile('/full'));
    await refused('EISDIR', () => fs.unlink('/full'));
    await refused('ENOTDIR', () => fs.rmdir('/file'));
    await refused('ENOTEMPTY', () => fs.rmdir('/full'));
    await refused('ENOENT', () => fs.stat(''));
    const error = await fs.stat('/missing').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ENOENT', syscall: 'stat', path: '/missing', errno: -2 });
  },

  'takes names of all kinds': async (fs) => {
    const names = [
      'with space',
      'ünïcödé',
      '漢字',
      '.hidden',
      '...',
      'new\nline',
      'bytes\udcff\udc80',
      'n'.repeat(255),
    ];
    for (const name of names) await fs.writeFile(`/${name}`, name.slice(0, 3));
    expect((await fs.readdir('/')).sort()).toEqual([...names].sort());
    for (const name of names) await fs.unlink(`/${name}`);
    expect(await fs.readdir('/')).toEqual([]);
  },

  'refuses names with a zero byte, which the server would cut off there': async (fs) => {
    await fs.writeFile('/file', 'x');
    await refused('EINVAL', () => fs.symlink('file\0more', '/link'));
    await refused('EINVAL', () => fs.setxattr('/file', 'user.a\0b', Uint8Array.of(1)));
    await refused('EINVAL', () => fs.getxattr('/file', 'user.a\0b'));
    await refused('EINVAL', () => fs.removexattr('/file', 'user.a\0b'));
    await refused('EINVAL', () => fs.stat('/file\0more'));
    expect(await fs.readdir('/')).toEqual(['file']);
  },

  'gives the statistics of the file system': async (fs) => {
    const { bsize, blocks, bfree, namelen } = await fs.statfs('/');
    expect(bsize).toBeGreaterThan(0);
    expect(blocks).toBeGreaterThanOrEqual(bfree);
    expect(namelen).toBe(255);
  },

  'removes a tree': async (fs) => {
    const work: Promise<unknown>[] = [];
    for (let i = 0; i < 5; i += 1) {
      await fs.mkdir(`/tree/${i}/below`, { recursive: true });
      for (let j = 0; j < 10; j += 1) work.push(fs.writeFile(`/tree/${i}/below/${j}`, `${j}`));
    }
    await Promise.all(work);
    await fs.symlink('/', '/tree/link');
    await fs.writeFile('/stays', '');
    await fs.rm('/tree', { recursive: true });
    expect(await fs.readdir('/')).toEqual(['stays']);
  },

  'is cancelled': async (fs) => {
    const controller = new AbortController();
    const writing = fs.writeFile('/file', pattern(4_000_000), { signal: controller.signal });
    controller.abort();
    await expect(writing).rejects.toMatchObject({ code: 'ABORTED' });
    await fs.writeFile('/file', 'after');
    expect(await fs.readFile('/file', 'utf8')).toBe('after');
  },

  'goes on after the device was reset, when it is mounted anew': async (fs) => {
    await fs.writeFile('/file', 'x');
    const handle = await fs.open('/file');
    const device = fs.client.device as unknown as { reset(): void };
    device.reset();
    await expect(fs.readFile('/file')).rejects.toMatchObject({ code: 'DEVICE_RESET' });
    await fs.remount();
    expect(await fs.readFile('/file', 'utf8')).toBe('x');
    await refused('ESTALE', () => handle.stat());
    await handle.close();
  },
};
