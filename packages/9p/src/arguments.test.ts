/** Every number that enters is checked before anything is sent, and the error names the argument. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bytes, failure, leavesNothing, mounted, setUp } from '../test/set-up.ts';
import { type FileHandle, OpenFlag, P9Client, P9FileSystem } from './index.ts';

/** No number of a range that begins at 0, whatever the range. */
const never: readonly unknown[] = [
  Number.NaN,
  Infinity,
  -Infinity,
  1.5,
  -2,
  2 ** 53,
  '7',
  'bob',
  '022',
  null,
  true,
  7n,
  {},
];

/** Nor a number of 32 bits. */
const neverU32: readonly unknown[] = [...never, 2 ** 32 + 5];

const any = (value: unknown): never => value as never;

describe('arguments of the file system', () => {
  let rig: Awaited<ReturnType<typeof mounted>>;
  let fs: P9FileSystem;
  let handle: FileHandle;

  beforeEach(async () => {
    rig = await mounted();
    ({ fs } = rig);
    handle = await fs.open('/f', 'w+');
    await handle.write(bytes('0123456789'), { position: 0 });
    rig.server.log.length = 0;
  });

  afterEach(async () => {
    await handle.close();
    await leavesNothing(rig, fs);
  });

  const refuses = async (
    values: readonly unknown[],
    name: string,
    attempts: readonly ((value: never) => unknown)[],
  ): Promise<void> => {
    for (const value of values) {
      for (const attempt of attempts) {
        const error = await failure(() => attempt(any(value)));
        expect(error, `${String(attempt)} of ${String(value)}`).toMatchObject({ code: 'INVALID_PARAM' });
        expect((error as Error).message).toContain(`${name} is `);
      }
    }
    // Nothing was sent, and nothing changed.
    expect(rig.server.log).toEqual([]);
    expect(rig.server.find('/f')).toMatchObject({ uid: 0, gid: 0, bytes: bytes('0123456789') });
  };

  it('owners', async () => {
    await refuses([...neverU32, 2 ** 32 - 1], 'uid', [
      (uid) => fs.chown('/f', uid, 0),
      (uid) => fs.chownSync('/f', uid, 0),
      (uid) => fs.lchown('/f', uid, 0),
      (uid) => handle.chown(uid, 0),
      (uid) => handle.chownSync(uid, 0),
    ]);
    await refuses([...neverU32, 2 ** 32 - 1], 'gid', [
      (gid) => fs.chown('/f', 0, gid),
      (gid) => fs.lchownSync('/f', 0, gid),
      (gid) => handle.chown(0, gid),
    ]);
  });

  it('modes', async () => {
    await refuses([...neverU32, 0x1_0000], 'mode', [
      (mode) => fs.chmod('/f', mode),
      (mode) => fs.chmodSync('/f', mode),
      (mode) => handle.chmod(mode),
      (mode) => fs.open('/g', 'w', mode),
      (mode) => fs.open('/f', 'r', mode),
      (mode) => fs.writeFile('/g', 'x', { mode }),
      (mode) => fs.writeFileSync('/g', 'x', { mode }),
      (mode) => fs.mkdir('/g', { mode }),
      (mode) => fs.mkdir('/g/h/i', { mode, recursive: true }),
      (mode) => fs.mknod('/g', mode),
    ]);
    await refuses(neverU32, 'major', [(major) => fs.mknod('/g', 0o20644, major)]);
    await refuses(neverU32, 'minor', [(minor) => fs.mknodSync('/g', 0o20644, 1, minor)]);
    await refuses(
      neverU32.filter((value) => typeof value === 'number'),
      'flags',
      [(flags) => fs.open('/f', flags), (flags) => fs.readFile('/f', { flag: flags })],
    );
  });

  it('sizes and positions', async () => {
    const buffer = new Uint8Array(10);
    await refuses(never, 'size', [
      (size) => fs.truncate('/f', size),
      (size) => fs.truncateSync('/f', size),
      (size) => handle.truncate(size),
    ]);
    await refuses(
      never.filter((value) => value !== null),
      'position',
      [
        (position) => handle.read(buffer, 0, 4, position),
        (position) => handle.read(buffer, { position }),
        (position) => handle.readSync(buffer, { position }),
        (position) => handle.write(buffer, { position }),
        (position) => handle.readv([buffer], position),
        (position) => handle.writevSync([buffer], position),
      ],
    );
    await refuses([...never.filter((value) => value !== null), 11], 'offset', [
      (offset) => handle.read(buffer, { offset }),
      (offset) => handle.writeSync(buffer, { offset }),
    ]);
    await refuses([...never.filter((value) => value !== null), 11], 'length', [
      (length) => handle.read(buffer, { length }),
      (length) => handle.read(buffer, 0, length),
    ]);
    await refuses(never, 'start', [
      (start) => handle.createReadStream({ start }).next(),
      (start) => handle.createWriteStream({ start }),
      (start) => handle.lock({ start }),
    ]);
    await refuses(
      never.filter((value) => value !== Infinity),
      'end',
      [(end) => handle.createReadStream({ end }).next(), (end) => handle.readLines({ end }).next()],
    );
    await refuses(never, 'highWaterMark', [
      (highWaterMark) => handle.createReadStream({ highWaterMark }).next(),
    ]);
  });

  it('locks', async () => {
    await refuses(never, 'length', [
      (length) => handle.lock({ length }),
      (length) => handle.unlock({ length }),
    ]);
    await refuses(neverU32, 'process', [
      (process) => handle.lockSync({ process }),
      (process) => handle.getLock({ process }),
    ]);
    await refuses(['exclusive', 1, null], 'the type of a lock', [(type) => handle.lock({ type })]);
    await refuses([7, null, {}], 'client', [(client) => handle.lock({ client })]);
  });

  it('times', async () => {
    const never = [
      Number.NaN,
      Infinity,
      'bob',
      null,
      undefined,
      new Date('never'),
      1e300,
      2n ** 70n * 10n ** 9n,
    ];
    await refuses(never, 'atime', [
      (time) => fs.utimes('/f', time, 0),
      (time) => fs.lutimesSync('/f', time, 0),
      (time) => handle.utimes(time, 0),
    ]);
    await refuses(never, 'mtime', [(time) => fs.utimes('/f', 0, time)]);
  });

  it('names of flags that objects have by nature', async () => {
    for (const flags of ['constructor', 'toString', '__proto__', 'rw', '']) {
      expect(await failure(() => fs.open('/f', any(flags)))).toMatchObject({ code: 'INVALID_PARAM' });
    }
    expect(rig.server.log).toEqual([]);
  });

  it('time-outs', async () => {
    rig.server.hold = () => true;
    for (const timeoutMs of [Number.NaN, -1, '5', null, 5n]) {
      expect(await failure(() => fs.statSync('/f', { timeoutMs: any(timeoutMs) }))).toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
    rig.server.hold = undefined;
  });

  it('-1 leaves an owner as it is, as in node:fs', async () => {
    await fs.chown('/f', 5, 6);
    await fs.chown('/f', -1, 7);
    await fs.chown('/f', 8, -1);
    await fs.chown('/f', -1, -1);
    expect(rig.server.find('/f')).toMatchObject({ uid: 8, gid: 7 });
  });

  it('arrays of buffers that change while they are in use do not matter', async () => {
    const buffers = [new Uint8Array(4), new Uint8Array(4)];
    const kept = [...buffers];
    const reading = handle.readv(buffers, 0);
    buffers.length = 0;
    expect((await reading).bytesRead).toBe(8);
    expect(kept.map((buffer) => new TextDecoder().decode(buffer))).toEqual(['0123', '4567']);
    for (const wrong of [5, 'text', { length: 1 }, [new Uint32Array(1)], [undefined]]) {
      expect(await failure(() => handle.writev(any(wrong), 0))).toMatchObject({ code: 'INVALID_PARAM' });
    }
  });
});

describe('arguments of mount', () => {
  it.each([
    ['umask', [...neverU32, 0o1000]],
    ['gid', neverU32],
    ['uid', neverU32],
    ['msize', neverU32],
  ] as const)('%s', async (name, values) => {
    const { driver, server } = setUp();
    for (const value of values) {
      const error = await failure(() => P9FileSystem.mount(driver, { [name]: value }));
      expect(error, String(value)).toMatchObject({ code: 'INVALID_PARAM' });
      expect((error as Error).message).toContain(`${name} is `);
    }
    expect(server.log).toEqual([]);
    // None of them has taken the device.
    await (await P9FileSystem.mount(driver)).unmount();
  });
});

describe('arguments of the client', () => {
  it('are checked by the table of the message', async () => {
    const { driver, server } = setUp();
    const client = new P9Client(driver);
    const root = await client.run(client.connect());
    server.put('/f', bytes('x'));
    const before = server.log.length;
    for (const value of neverU32) {
      for (const [name, task] of [
        ['Tlopen: flags', client.open(root, any(value))],
        ['Tlcreate: mode', client.create(root, 'x', OpenFlag.WRONLY, any(value), 0)],
        ['Tmkdir: gid', client.mkdir(root, 'x', 0o755, any(value))],
        ['Tlopen: flags', client.open(root, any(value))],
        ['Tunlinkat: flags', client.unlinkat(root, 'f', any(value))],
      ] as const) {
        const error = await failure(() => client.run<unknown>(task));
        expect(error, `${name} ${String(value)}`).toMatchObject({ code: 'INVALID_PARAM' });
        expect((error as Error).message).toContain(`${name} is `);
      }
    }
    for (const value of [...never, 2n ** 64n].filter((each) => each !== 7n)) {
      const readdir = client.readdir(root, any(value), new Uint8Array(100));
      expect(await failure(() => client.run(readdir))).toMatchObject({ code: 'INVALID_PARAM' });
    }
    expect(await failure(() => client.run(client.walk(root, [any(5)])))).toMatchObject({
      code: 'INVALID_PARAM',
    });
    const seventeen = Array.from({ length: 17 }, () => 'x');
    expect(await failure(() => client.run(client.walk(root, seventeen)))).toMatchObject({
      code: 'INVALID_PARAM',
    });
    expect(server.log).toHaveLength(before);
    await client.run(client.disconnect());
    expect(server.fids.size).toBe(0);
  });
});
