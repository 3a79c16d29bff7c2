import { describe, expect, it } from 'vitest';
import { bytes, failure, leavesNothing, mounted, pattern, settle } from '../test/set-up.ts';
import { P9Error, type P9FileSystem } from './index.ts';

const CLUNK = 120;

const operations: Record<string, (fs: P9FileSystem) => Promise<unknown>> = {
  readFile: (fs) => fs.readFile('/d/link'),
  writeFile: (fs) => fs.writeFile('/d/new', pattern(1000)),
  appendFile: (fs) => fs.appendFile('/d/f', 'x'),
  copyFile: (fs) => fs.copyFile('/d/f', '/d/copy'),
  truncate: (fs) => fs.truncate('/d/f', 1),
  stat: (fs) => fs.stat('/d/../d/link'),
  realpath: (fs) => fs.realpath('/d/dir/../link'),
  readlink: (fs) => fs.readlink('/d/link'),
  statfs: (fs) => fs.statfs('/d'),
  chmod: (fs) => fs.chmod('/d/f', 0o600),
  'readdir with types': (fs) => fs.readdir('/d', { withFileTypes: true }),
  'readdir of a tree': (fs) => fs.readdir('/', { recursive: true }),
  opendir: async (fs) => {
    for await (const _entry of fs.opendir('/d')) continue;
  },
  mkdir: (fs) => fs.mkdir('/d/a/b/c', { recursive: true }),
  mkdtemp: (fs) => fs.mkdtemp('/d/tmp-'),
  symlink: (fs) => fs.symlink('f', '/d/another'),
  mknod: (fs) => fs.mknod('/d/pipe', 0o010_644),
  link: (fs) => fs.link('/d/f', '/d/second'),
  rename: (fs) => fs.rename('/d/f', '/d/dir/f'),
  rmdir: (fs) => fs.rmdir('/d/dir/empty'),
  'rm of a tree': (fs) => fs.rm('/d', { recursive: true }),
  setxattr: (fs) => fs.setxattr('/d/f', 'user.b', bytes('x')),
  getxattr: (fs) => fs.getxattr('/d/f', 'user.a'),
  listxattr: (fs) => fs.listxattr('/d/f'),
  removexattr: (fs) => fs.removexattr('/d/f', 'user.a'),
  'a handle': async (fs) => {
    await using handle = await fs.open('/d/f', 'r+');
    await handle.write('x');
    await handle.stat();
    for await (const _line of handle.readLines()) continue;
    await handle.sync();
  },
};

describe.each([
  ['', true],
  [', on a server whose qids tell no kinds', false],
] as const)('the server knows no fid but the root%s', (_what, kindsInQids) => {
  it.each(Object.keys(operations))('after %s, whichever message was refused', async (name) => {
    let messages = Infinity;
    let refused = 0;
    for (let at = 1; at <= messages; at += 1) {
      const rig = await mounted({}, {}, (server) => {
        server.kindsInQids = kindsInQids;
      });
      const { fs, server } = rig;
      // That types have to be asked for makes more messages.
      server.entryTypes = false;
      server.put('/d/f', pattern(500)).xattrs.set('user.a', bytes('value'));
      server.put('/d/link', 'f');
      server.put('/d/dir/empty', 'directory');
      let count = 0;
      server.refuse = () => (++count === at ? 5 : undefined);
      const error = await failure(async () => {
        await operations[name]?.(fs);
        throw new P9Error(1, 'nothing was refused');
      });
      server.refuse = undefined;
      await settle();
      if (count < at) messages = count;
      else if (P9Error.is(error, 'EIO')) refused += 1;
      // What was asked for last may still be known, as nobody waits for clunks; taking leave waits for them.
      await leavesNothing(rig, fs);
      expect(server.log.filter(({ type }) => type === CLUNK).length).toBeGreaterThan(0);
    }
    expect(refused).toBeGreaterThan(0);
  });
});
