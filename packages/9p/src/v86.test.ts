/** The file system beside v86's 9P server, whose qids tell no kinds of files. */
import { DeviceType } from '@virtio/core';
import { V86Machine } from '@virtio/v86';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, failure, pattern, same } from '../test/set-up.ts';
import { P9FileSystem, Virtio9p } from './index.ts';

const text = (content: Uint8Array): string => new TextDecoder().decode(content);

describe("on v86's 9P server", () => {
  let machine: V86Machine;
  let driver: Virtio9p;
  let fs: P9FileSystem;

  beforeEach(async () => {
    machine = await V86Machine.create();
    driver = new Virtio9p(machine.open(DeviceType.P9), machine.hal);
    fs = await P9FileSystem.mount(driver);
  });

  afterEach(async () => {
    await fs.unmount();
    driver[Symbol.dispose]();
    expect(machine.hal.pagesInUse).toBe(0);
    await machine[Symbol.asyncDispose]();
  });

  it('reads the mount tag', () => {
    expect(driver.mountTag).toBe('host9p');
  });

  it('reads what the host wrote, and the host what it wrote', async () => {
    await machine.emulator.create_file('from-host', bytes('hello from the host'));
    expect(await fs.readFile('/from-host', 'utf8')).toBe('hello from the host');
    await fs.writeFile('/from-guest', 'hello from the guest');
    expect(text(await machine.emulator.read_file('from-guest'))).toBe('hello from the guest');
  });

  it('carries large files both ways', async () => {
    const data = pattern(3_000_001);
    await fs.writeFile('/large', data);
    expect(same(await machine.emulator.read_file('large'), data)).toBe(true);
    expect(same(await fs.readFile('/large'), data)).toBe(true);
  });

  it('truncates a file that is opened to be written', async () => {
    await machine.emulator.create_file('file', bytes('something long'));
    await fs.writeFile('/file', 'short');
    expect(text(await machine.emulator.read_file('file'))).toBe('short');
  });

  it('appends', async () => {
    await fs.appendFile('/log', 'one\n');
    await fs.appendFile('/log', 'two\n');
    expect(text(await machine.emulator.read_file('log'))).toBe('one\ntwo\n');
  });

  it('tells files, directories and links apart', async () => {
    await fs.mkdir('/a/b/c', { recursive: true });
    await fs.writeFile('/a/b/file', 'x');
    await fs.symlink('b/file', '/a/link');
    expect((await fs.stat('/a/b')).isDirectory()).toBe(true);
    expect((await fs.stat('/a/b/file')).isFile()).toBe(true);
    expect((await fs.lstat('/a/link')).isSymbolicLink()).toBe(true);
    expect(await fs.readlink('/a/link')).toBe('b/file');
    expect(await fs.readFile('/a/link', 'utf8')).toBe('x');
    const kinds = await fs.readdir('/a', { withFileTypes: true });
    expect(kinds.map((entry) => [entry.name, entry.isDirectory(), entry.isSymbolicLink()]).sort()).toEqual([
      ['b', true, false],
      ['link', false, true],
    ]);
  });

  it('follows links on the way, and goes up behind them', async () => {
    await fs.mkdir('/real/deep', { recursive: true });
    await fs.writeFile('/real/file', 'found');
    await fs.symlink('/real/deep', '/short');
    expect(await fs.readFile('/short/../file', 'utf8')).toBe('found');
    expect(await fs.realpath('/short/../file')).toBe('/real/file');
  });

  it('lists directories', async () => {
    const names = Array.from({ length: 2000 }, (_, i) => `entry-with-a-longer-name-${i}`);
    await fs.mkdir('/many');
    for (const name of names) await machine.emulator.create_file(`many/${name}`, bytes(name));
    expect((await fs.readdir('/many')).sort()).toEqual([...names].sort());
    const seen: string[] = [];
    for await (const { name } of fs.opendir('/many')) seen.push(name);
    expect(seen.sort()).toEqual([...names].sort());
  });

  it('renames, links and removes', async () => {
    await fs.mkdir('/tree/below', { recursive: true });
    await fs.writeFile('/tree/file', 'x');
    await fs.rename('/tree/file', '/tree/below/moved');
    await fs.link('/tree/below/moved', '/tree/second');
    expect((await fs.stat('/tree/second')).nlink).toBe(2);
    await fs.unlink('/tree/second');
    expect(await fs.readFile('/tree/below/moved', 'utf8')).toBe('x');
    await fs.rm('/tree', { recursive: true });
    expect(await fs.readdir('/')).toEqual([]);
  });

  it('copies files and changes attributes', async () => {
    await fs.writeFile('/one', pattern(1_000_000));
    await fs.copyFile('/one', '/two');
    expect(same(await machine.emulator.read_file('two'), pattern(1_000_000))).toBe(true);
    await fs.chmod('/two', 0o640);
    await fs.chown('/two', 7, 8);
    await fs.utimes('/two', 1000, 2000);
    await fs.truncate('/two', 10);
    const { mode, uid, gid, size, mtimeMs } = await fs.stat('/two');
    expect({ mode: mode & 0o777, uid, gid, size, mtimeMs }).toEqual({
      mode: 0o640,
      uid: 7,
      gid: 8,
      size: 10,
      mtimeMs: 2_000_000,
    });
  });

  it.each([
    ['ENOENT', () => fs.readFile('/nothing')],
    ['ENOENT', () => fs.readFile('/nothing/below')],
    ['ENOTDIR', () => fs.readFile('/file/below')],
    ['ENOTDIR', () => fs.stat('/file/')],
    ['ENOTDIR', () => fs.readdir('/file')],
    ['EISDIR', () => fs.readFile('/directory')],
    ['EISDIR', () => fs.writeFile('/directory', 'x')],
    ['ENOTEMPTY', () => fs.rmdir('/full')],
    ['ELOOP', () => fs.readFile('/loop')],
    ['EINVAL', () => fs.readlink('/file')],
  ])('says %s', async (code, attempt) => {
    await fs.mkdir('/directory');
    await fs.mkdir('/full/below', { recursive: true });
    await fs.writeFile('/file', 'x');
    await fs.symlink('loop', '/loop');
    expect(await failure(attempt)).toMatchObject({ code });
  });

  it('spins where the server answers there and then', async () => {
    await fs.writeFile('/file', 'x');
    expect(fs.statSync('/file').size).toBe(1);
    expect(fs.statfsSync('/').namelen).toBe(256);
  });
});
