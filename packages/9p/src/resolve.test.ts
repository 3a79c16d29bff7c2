import { describe, expect, it } from 'vitest';
import { bytes, failure, leavesNothing, mounted } from '../test/set-up.ts';

describe.each([
  ['tells how far a walk came', true, true],
  ['walks all or nothing', false, true],
  ['does not tell kinds of files in qids', true, false],
])('paths, on a server that %s', (_what, partialWalks, kindsInQids) => {
  const walk = async (body: (rig: Awaited<ReturnType<typeof mounted>>) => Promise<void>): Promise<void> => {
    const rig = await mounted({}, {}, (server) => {
      server.partialWalks = partialWalks;
      server.kindsInQids = kindsInQids;
    });
    await body(rig);
    await leavesNothing(rig, rig.fs);
  };

  it('lead to files at any depth, in few requests', () =>
    walk(async ({ fs, server }) => {
      const deep = Array.from({ length: 40 }, (_, i) => `d${i}`).join('/');
      server.put(`/${deep}/f`, bytes('deep'));
      server.log.length = 0;
      expect(await fs.readFile(`/${deep}/f`, 'utf8')).toBe('deep');
      expect(server.log.filter(({ type }) => type === 110)).toHaveLength(kindsInQids ? 3 : 41);
    }));

  it('may have dots, double dots and any number of slashes', () =>
    walk(async ({ fs, server }) => {
      server.put('/a/b/f', bytes('x'));
      for (const path of ['a/b/f', '//a//b/./f', '/a/../a/b/f', 'a/b/../../../../a/b/f', './a/./b/f']) {
        expect(await fs.readFile(path, 'utf8'), path).toBe('x');
        expect(await fs.realpath(path)).toBe('/a/b/f');
      }
      expect(await fs.readdir('/..')).toEqual(['a']);
      expect(await fs.realpath('/a/b/..')).toBe('/a');
      expect(await failure(() => fs.stat('/a/no/..'))).toMatchObject({ code: 'ENOENT' });
      expect(await failure(() => fs.stat('/a/b/f/..'))).toMatchObject({ code: 'ENOTDIR' });
      expect(await failure(() => fs.stat('/a/b/f/.'))).toMatchObject({ code: 'ENOTDIR' });
    }));

  it('never send a double dot to the server', () =>
    walk(async ({ fs, server }) => {
      server.put('/a/f', bytes('x'));
      // The server has no such entry: had it been asked for one, it would have refused.
      expect(await fs.readFile('/../../a/../a/f', 'utf8')).toBe('x');
    }));

  it('lead through links, relative and absolute, in the middle and at the end', () =>
    walk(async ({ fs, server }) => {
      server.put('/target/dir/f', bytes('found'));
      server.put('/x/relative', '../target/dir');
      server.put('/x/absolute', '/target');
      server.put('/x/chain', 'absolute/dir');
      server.put('/x/file', 'relative/f');
      server.put('/x/up', 'relative/../dir/./f');
      for (const path of [
        '/x/relative/f',
        '/x/absolute/dir/f',
        '/x/chain/f',
        '/x/file',
        '/x/up',
        'x/chain/../dir/f',
      ]) {
        expect(await fs.readFile(path, 'utf8'), path).toBe('found');
        expect(await fs.realpath(path), path).toBe('/target/dir/f');
      }
      expect((await fs.lstat('/x/chain')).isSymbolicLink()).toBe(true);
      expect((await fs.lstat('/x/chain/')).isDirectory()).toBe(true);
      expect(await failure(() => fs.stat('/x/file/'))).toMatchObject({ code: 'ENOTDIR' });
      await fs.writeFile('/x/chain/new', 'y');
      expect(server.find('/target/dir/new')).toBeDefined();
    }));

  it('cannot leave the tree through links', () =>
    walk(async ({ fs, server }) => {
      server.put('/etc/f', bytes('inside'));
      server.put('/a/out', '../../../../etc/f');
      expect(await fs.readFile('/a/out', 'utf8')).toBe('inside');
    }));

  it('create the files that links point to', () =>
    walk(async ({ fs, server }) => {
      server.put('/d', 'directory');
      server.put('/l', 'd/new');
      await fs.writeFile('/l', 'created');
      expect(server.find('/d/new')).toBeDefined();
      expect(await failure(() => fs.open('/l', 'wx'))).toMatchObject({ code: 'EEXIST' });
      server.put('/m', 'no/such');
      expect(await failure(() => fs.writeFile('/m', ''))).toMatchObject({ code: 'ENOENT', path: '/m' });
    }));

  it('with links that go round in circles, or nowhere, are refused', () =>
    walk(async ({ fs, server }) => {
      server.put('/a', 'b');
      server.put('/b', 'a');
      server.put('/self', 'self/x');
      server.put('/empty', 'x').target = '';
      for (const path of ['/a', '/b/c', '/self']) {
        expect(await failure(() => fs.stat(path)), path).toMatchObject({
          code: 'ELOOP',
          syscall: 'stat',
          path,
        });
      }
      expect(await failure(() => fs.stat('/empty'))).toMatchObject({ code: 'ENOENT' });
      server.put('/long', `${'x/'.repeat(3000)}y`);
      expect(await failure(() => fs.stat('/long'))).toMatchObject({ code: 'ENAMETOOLONG' });
    }));

  it('through links do not grow without end', () =>
    walk(async ({ fs, server }) => {
      server.put('/grow', `grow/${'x/'.repeat(100)}`);
      expect(await failure(() => fs.stat('/grow'))).toMatchObject({
        code: expect.stringMatching(/ELOOP|ENAMETOOLONG/) as string,
      });
    }));

  it('that do not exist say so, wherever they end', () =>
    walk(async ({ fs, server }) => {
      server.put('/a/b/f', bytes(''));
      for (const path of ['/x', '/x/y', '/a/x', '/a/x/y', '/a/b/x', '/a/b/x/y']) {
        expect(await failure(() => fs.stat(path)), path).toMatchObject({ code: 'ENOENT', path });
      }
      expect(await failure(() => fs.stat('/a/b/f/x/y'))).toMatchObject({ code: 'ENOTDIR' });
    }));
});
