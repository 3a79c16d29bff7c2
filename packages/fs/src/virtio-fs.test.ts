import { type FieldTable, type Layout, VirtioError } from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import { fsDevice } from '../test/contract-subject.ts';
import { type Asked, encode, FILE, message, open, reply, serve } from '../test/set-up.ts';
import {
  DirectoryEntry,
  FileError,
  FsConfig,
  FuseFileSystem,
  In,
  InHeader,
  Opcode,
  Out,
  ROOT_ID,
} from './index.ts';

describe('a file system device', () => {
  it('has a tag, of up to 36 bytes without a zero behind', () => {
    for (const tag of ['share', 'x'.repeat(36)]) {
      const { driver } = open(fsDevice(0n, 64, tag));
      expect(driver.tag).toBe(tag);
      expect(driver.requestQueueCount).toBe(1);
      driver[Symbol.dispose]();
    }
  });

  it('is refused without a request queue', () => {
    const device = fsDevice(0n, 64);
    device.config.fill(0, FsConfig.offset.numRequestQueues);
    expect(() => open(device)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
  });

  it('sets up all request queues that there are, and uses one [5.11.4.1]', async () => {
    const { device, driver } = open(fsDevice(0n, 64, 'share', 3));
    const isEnabled = (): boolean[] => device.queues.map(({ ring }) => ring !== undefined);
    expect(driver.requestQueueCount).toBe(3);
    expect(isEnabled()).toEqual([true, true, true, true]);
    serve(device);
    await using fs = await FuseFileSystem.mount(driver);
    await fs.readFile('/file');
    await fs.unmount();
    driver.reset();
    expect(isEnabled()).toEqual([true, true, true, true]);
  });

  it('is never written to in its configuration [5.11.4.1]', async () => {
    const { device, driver } = open();
    const written = vi.fn<() => void>();
    device.onConfigWrite = written;
    serve(device);
    await using fs = await FuseFileSystem.mount(driver);
    await fs.readFile('/file');
    expect(written).not.toHaveBeenCalled();
  });

  it('gets FORGET and INTERRUPT by the hiprio queue, and nothing else [5.11.6.2.2]', () => {
    const { driver } = open();
    const answer = new Uint8Array(64);
    for (const opcode of [Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT]) {
      expect(() => driver.submitRequest(message(opcode), answer)).toThrow(/sendPriority/);
    }
    expect(() => driver.sendPriority(message(Opcode.GETATTR))).toThrow(VirtioError);
    expect(() => driver.submitRequest(message(Opcode.GETATTR, 41), answer)).toThrow(/has another len/);
    expect(driver.sendPriority(message(Opcode.INTERRUPT))).toBe(true);
  });
});

describe('a file system over it', () => {
  it('copies between files that have the same inode number, on two file systems of the host', async () => {
    const { device, driver } = open();
    const copied: bigint[] = [];
    serve(device, (asked) => {
      const { opcode, nodeid, chain } = asked;
      if (nodeid === ROOT_ID && opcode !== Opcode.LOOKUP) return false;
      const name = opcode === Opcode.LOOKUP ? chain.readAt(InHeader.size, 1)[0] : undefined;
      const node = opcode === Opcode.LOOKUP ? (name === 0x61 ? 7n : 8n) : nodeid;
      const attr = { ino: 12n, mode: FILE, size: node === 7n ? 5n : 0n, ctime: node };
      if (opcode === Opcode.LOOKUP) reply(asked, encode(Out.entry, { nodeid: node, ...attr }));
      else if (opcode === Opcode.GETATTR || opcode === Opcode.SETATTR) reply(asked, encode(Out.attr, attr));
      else if (opcode === Opcode.COPY_FILE_RANGE) {
        copied.push(nodeid);
        reply(asked, encode(Out.write, { size: copied.length === 1 ? 5 : 0 }));
      } else return false;
      return true;
    });
    await using fs = await FuseFileSystem.mount(driver);
    await fs.copyFile('/a', '/b');
    expect(copied).toEqual([7n, 7n]);
    await fs.copyFile('/a', '/a');
    expect(copied).toHaveLength(2);
  });

  it('copies by reads and writes what the server says that it copies, and does not', async () => {
    const { device, driver } = open();
    const { seen } = serve(device, (asked) => {
      const { opcode, nodeid, chain } = asked;
      const target =
        nodeid === 8n || (opcode === Opcode.LOOKUP && chain.readAt(InHeader.size, 1)[0] === 0x62);
      const attr = { ino: target ? 8n : 7n, mode: FILE, size: target ? 0n : 4096n };
      if (opcode === Opcode.COPY_FILE_RANGE) reply(asked, encode(Out.write, { size: 0 }));
      else if (opcode === Opcode.WRITE) reply(asked, encode(Out.write, { size: 5 }));
      else if (nodeid !== ROOT_ID && opcode === Opcode.GETATTR) reply(asked, encode(Out.attr, attr));
      else if (opcode === Opcode.SETATTR) reply(asked, encode(Out.attr, attr));
      else if (opcode === Opcode.LOOKUP) reply(asked, encode(Out.entry, { nodeid: attr.ino, ...attr }));
      else if (opcode === Opcode.READ && seen.includes(Opcode.WRITE)) reply(asked);
      else return false;
      return true;
    });
    await using fs = await FuseFileSystem.mount(driver);
    await fs.copyFile('/a', '/b');
    expect(seen.filter((opcode) => opcode === Opcode.WRITE)).toHaveLength(1);
  });

  it('closes a file for each process that has locked it, so that the server lets go of its locks', async () => {
    const { device, driver } = open();
    const owners: bigint[] = [];
    serve(device, ({ opcode, chain }) => {
      const arguments_ = (layout: Layout<FieldTable>) =>
        new DataView(chain.readAt(InHeader.size, layout.size).buffer);
      if (opcode === Opcode.SETLK) owners.push(In.lock.read(arguments_(In.lock)).owner);
      if (opcode === Opcode.FLUSH) owners.push(-In.flush.read(arguments_(In.flush)).lockOwner);
      return false;
    });
    await using fs = await FuseFileSystem.mount(driver);
    const handle = await fs.open('/file');
    await handle.lock({ process: 5 });
    await handle.lock({ process: 5, start: 7, length: 1 });
    await handle.unlock({ process: 9 });
    await handle.lock({ process: 6 });
    await handle.close();
    expect(owners).toEqual([5n, 5n, 9n, 6n, -5n, -6n]);
  });

  it('sends device numbers as Linux packs them, and refuses those that do not fit', async () => {
    const { device, driver } = open();
    const numbers: number[] = [];
    serve(device, (asked) => {
      if (asked.opcode !== Opcode.MKNOD) return false;
      const bytes = asked.chain.readAt(InHeader.size, In.mknod.size);
      numbers.push(In.mknod.read(new DataView(bytes.buffer)).rdev);
      reply(asked, encode(Out.entry, { nodeid: 9n, ino: 9n, mode: FILE }));
      return true;
    });
    await using fs = await FuseFileSystem.mount(driver);
    await fs.mknod('/device', 0o020600, 0xabc, 0x12345);
    for (const [major, minor] of [
      [0x1000, 1],
      [1, 0x100000],
    ] as const) {
      await expect(fs.mknod('/device', 0o020600, major, minor)).rejects.toMatchObject({ code: 'EINVAL' });
    }
    expect(numbers).toEqual([0x123abc45]);
  });

  it('refuses names with a zero byte, which the server would cut off there', async () => {
    const { device, driver } = open();
    const { seen } = serve(device);
    await using fs = await FuseFileSystem.mount(driver);
    for (const attempt of [
      () => fs.symlink('target\0more', '/link'),
      () => fs.setxattr('/file', 'user.a\0b', Uint8Array.of(1)),
      () => fs.getxattr('/file', 'user.a\0b'),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ name: 'FileError', code: 'EINVAL' });
    }
    expect(seen).not.toContain(Opcode.SYMLINK);
    expect(seen).not.toContain(Opcode.SETXATTR);
  });

  it('sends nothing of a session that has ended: its handles do not reach files of the next one', async () => {
    const { device, driver } = open();
    const { seen } = serve(device);
    const first = await FuseFileSystem.mount(driver);
    const old = await first.open('/file', 'r+');
    await first.unmount();
    seen.length = 0;
    await expect(old.read(new Uint8Array(5), { position: 0 })).rejects.toMatchObject({ code: 'ESTALE' });
    const second = await FuseFileSystem.mount(driver);
    const handle = await second.open('/file', 'r+');
    await expect(old.write('mine', { position: 0 })).rejects.toMatchObject({ code: 'ESTALE' });
    expect(() => old.truncateSync(0)).toThrow(expect.objectContaining({ code: 'ESTALE' }));
    await old.close();
    expect(seen).toEqual([Opcode.INIT, Opcode.GETATTR, Opcode.LOOKUP, Opcode.OPEN]);
    await handle.close();
    await second.unmount();
  });

  it('forgets a node when all requests that name it were answered [5.11.6.2.2]', async () => {
    const { device, driver } = open();
    let held: Asked | undefined;
    const { forgotten } = serve(device, (asked) => {
      if (asked.opcode !== Opcode.RELEASE) return false;
      asked.chain.defer();
      held = asked;
      return true;
    });
    const fs = await FuseFileSystem.mount(driver);
    expect(await fs.readFile('/file', 'utf8')).toBe('hello');
    expect(held).toBeDefined();
    expect(forgotten, 'RELEASE is not answered yet').toEqual([]);
    reply(held as unknown as Asked);
    (held as unknown as Asked).chain.complete();
    await fs.stat('/file');
    await fs.unmount();
    expect(forgotten).toEqual([
      { nodeid: 7n, nlookup: 1n },
      { nodeid: 7n, nlookup: 1n },
    ]);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it.each([
    ['an error that is none', 5000, 'DEVICE_MISBEHAVED'],
    ['no entry', encode(Out.entry, {}), 'ENOENT'],
    ['the root as an entry', encode(Out.entry, { nodeid: 1n }), 'DEVICE_MISBEHAVED'],
    ['too little', new Uint8Array(50), 'DEVICE_MISBEHAVED'],
  ])('takes a server at its word, and no further: %s', async (_name, body, code) => {
    const { device, driver } = open();
    let lies = true;
    serve(device, (asked) => {
      if (!lies || asked.opcode !== Opcode.LOOKUP) return false;
      reply(asked, body);
      return true;
    });
    const fs = await FuseFileSystem.mount(driver);
    await expect(fs.stat('/file')).rejects.toMatchObject({ code });
    lies = false;
    expect((await fs.stat('/file')).size).toBe(5);
    await fs.unmount();
  });

  it('gives back what a late answer told of, or opened', () => {
    const { device, driver } = open();
    const held: Asked[] = [];
    let late: number = Opcode.LOOKUP;
    const entry = { nodeid: 9n, ino: 9n, mode: FILE };
    const { forgotten, seen } = serve(device, (asked) => {
      const isNew = late === Opcode.CREATE && asked.opcode === Opcode.LOOKUP;
      if (isNew) reply(asked, 2);
      if (asked.opcode !== late) return isNew;
      asked.chain.defer();
      held.push(asked);
      return true;
    });
    const fs = FuseFileSystem.mountSync(driver);
    const answerLate = (body: Uint8Array): void => {
      const asked = held.shift();
      if (asked === undefined) throw new Error('nothing was asked');
      reply(asked, body);
      asked.chain.complete();
      late = 0;
      fs.accessSync('/');
    };
    const timeOut = { timeoutMs: 0 };
    const notReady = expect.objectContaining({ code: 'NOT_READY' }) as Error;
    expect(() => fs.statSync('/file', timeOut)).toThrow(notReady);
    answerLate(encode(Out.entry, entry));
    expect(forgotten).toEqual([{ nodeid: 9n, nlookup: 1n }]);
    forgotten.length = 0;
    late = Opcode.CREATE;
    expect(() => fs.writeFileSync('/new', 'x', timeOut)).toThrow(notReady);
    answerLate(encode(Out.create, { ...entry, fh: 4n }));
    fs.accessSync('/');
    expect(seen.filter((opcode) => opcode === Opcode.RELEASE)).toHaveLength(1);
    expect(forgotten).toContainEqual({ nodeid: 9n, nlookup: 1n });
    fs.unmountSync();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('writes nothing to the buffer of a read whose time is over', () => {
    const { device, driver } = open();
    const held: Asked[] = [];
    serve(device, (asked) => {
      if (asked.opcode !== Opcode.READ || held.length > 0) return false;
      asked.chain.defer();
      held.push(asked);
      return true;
    });
    const fs = FuseFileSystem.mountSync(driver);
    const handle = fs.openSync('/file');
    const buffer = new Uint8Array(5);
    const notReady = expect.objectContaining({ code: 'NOT_READY' }) as Error;
    expect(() => handle.readSync(buffer, { timeoutMs: 0 })).toThrow(notReady);
    for (const asked of held) {
      reply(asked, new TextEncoder().encode('later'));
      asked.chain.complete();
    }
    expect(handle.readSync(new Uint8Array(5), { position: 0 })).toBe(5);
    expect(buffer).toEqual(new Uint8Array(5));
    handle.closeSync();
    fs.unmountSync();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it.each<[string, number, (fs: FuseFileSystem, signal: AbortSignal) => Promise<unknown>]>([
    ['writeFile', Opcode.FLUSH, (fs, signal) => fs.writeFile('/file', 'x', { signal })],
    ['writeFile', Opcode.RELEASE, (fs, signal) => fs.writeFile('/file', 'x', { signal })],
    ['unmount', Opcode.DESTROY, (fs, signal) => fs.unmount({ signal })],
  ])(
    '%s does not wait for a server that hangs at the end (%i) if it is cancelled',
    async (_name, hangs, attempt) => {
      const { device, driver } = open();
      const held: Asked[] = [];
      const { seen, forgotten } = serve(device, (asked) => {
        if (asked.opcode === Opcode.WRITE) reply(asked, encode(Out.write, { size: 1 }));
        if (asked.opcode === Opcode.SETATTR) reply(asked, encode(Out.attr, { ino: 7n, mode: FILE }));
        if (asked.opcode !== hangs) return [Opcode.WRITE, Opcode.SETATTR].includes(asked.opcode as never);
        asked.chain.defer();
        held.push(asked);
        return true;
      });
      const fs = await FuseFileSystem.mount(driver);
      const abort = new AbortController();
      const waiting = attempt(fs, abort.signal);
      const ended = expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
      await vi.waitFor(() => expect(held).toHaveLength(1));
      abort.abort();
      await ended;
      // The file is closed all the same, and its node is kept until the server has answered that.
      expect(seen.filter((opcode) => opcode === Opcode.RELEASE)).toHaveLength(
        hangs === Opcode.DESTROY ? 0 : 1,
      );
      if (hangs === Opcode.RELEASE) expect(forgotten).toEqual([]);
      for (const asked of held) {
        reply(asked);
        asked.chain.complete();
      }
      if (hangs !== Opcode.DESTROY) {
        await fs.access('/');
        expect(forgotten).toEqual([{ nodeid: 7n, nlookup: 1n }]);
        await fs.unmount();
        expect(driver.inFlight).toBe(0);
      }
      driver[Symbol.dispose]();
      device.assertClean();
    },
  );

  it('loses no tag to a server that hangs when the session ends', () => {
    const { device, driver } = open();
    const held: Asked[] = [];
    serve(device, (asked) => {
      if (asked.opcode !== Opcode.RELEASE) return false;
      asked.chain.defer();
      held.push(asked);
      return true;
    });
    const fs = FuseFileSystem.mountSync(driver);
    fs.readFileSync('/file');
    const notReady = expect.objectContaining({ code: 'NOT_READY' }) as Error;
    expect(() => fs.unmountSync({ timeoutMs: 0 })).toThrow(notReady);
    for (const asked of held) {
      reply(asked);
      asked.chain.complete();
    }
    const { client } = fs;
    client.runSync(client.connect());
    expect(client.inFlight).toBe(0);
    client.runSync(client.disconnect());
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('gives back what it looked up for somebody who cancelled meanwhile', async () => {
    const { device, driver } = open();
    const controller = new AbortController();
    let cancels = false;
    const entry = { nodeid: 9n, ino: 9n, mode: FILE };
    const { forgotten } = serve(device, (asked) => {
      if (asked.opcode !== Opcode.READDIR && asked.opcode !== Opcode.LOOKUP) return false;
      if (asked.opcode === Opcode.LOOKUP) {
        if (cancels) controller.abort();
        reply(asked, encode(Out.entry, entry));
        return true;
      }
      // Names whose kinds are not told, so that each is looked up.
      const names = ['a', 'b', 'c', 'd'];
      const size = DirectoryEntry.size + 8;
      const bytes = new Uint8Array(names.length * size);
      names.forEach((name, i) => {
        const fields = { offset: BigInt(i + 1), namelen: 1 };
        DirectoryEntry.write(new DataView(bytes.buffer), i * size, fields);
        bytes[i * size + DirectoryEntry.size] = name.charCodeAt(0);
      });
      const { offset } = In.io.read(new DataView(asked.chain.readAt(InHeader.size, In.io.size).buffer));
      reply(asked, offset === 0n ? bytes : new Uint8Array(0));
      return true;
    });
    const fs = await FuseFileSystem.mount(driver);
    expect(await fs.readdir('/', { withFileTypes: true })).toHaveLength(4);
    const told = (): number => forgotten.reduce((sum, { nlookup }) => sum + Number(nlookup), 0);
    expect(told()).toBe(4);
    cancels = true;
    const listing = fs.readdir('/', { withFileTypes: true, signal: controller.signal });
    await expect(listing).rejects.toMatchObject({ code: 'ABORTED' });
    expect(told()).toBe(8);
    expect(fs.client.nodesInUse).toBe(0);
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('refuses what is no signal', async () => {
    const { device, driver } = open();
    serve(device);
    const fs = await FuseFileSystem.mount(driver);
    for (const signal of [null, {}] as unknown[] as AbortSignal[]) {
      await expect(fs.readFile('/file', { signal })).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    }
    expect(await fs.readFile('/file', 'utf8')).toBe('hello');
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('tells how much was written, also if the caller has transferred the bytes meanwhile', async () => {
    const { device, driver } = open();
    const from = new Uint8Array(100);
    serve(device, (asked) => {
      if (asked.opcode !== Opcode.WRITE) return false;
      from.buffer.transfer();
      reply(asked, encode(Out.write, { size: 100 }));
      return true;
    });
    const fs = await FuseFileSystem.mount(driver);
    await using handle = await fs.open('/file', 'r+');
    expect((await handle.write(from, { position: 0 })).bytesWritten).toBe(100);
    // Those that are gone before their turn are not written, and nobody is told that they were.
    await expect(
      (async () => {
        const late = new Uint8Array(10);
        const writing = handle.write(late);
        late.buffer.transfer();
        return writing;
      })(),
    ).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    expect(driver.failure).toBeUndefined();
    await handle.close();
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('refuses a server that speaks another FUSE', async () => {
    for (const version of [
      { major: 6, minor: 31 },
      { major: 7, minor: 12 },
    ]) {
      const { device, driver } = open();
      serve(device, (asked) => {
        if (asked.opcode !== Opcode.INIT) return false;
        reply(asked, encode(Out.init, { ...version, maxWrite: 65536 }));
        return true;
      });
      await expect(FuseFileSystem.mount(driver)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
      driver[Symbol.dispose]();
    }
  });

  it('does without what a server lacks: FLUSH, DESTROY, several requests at once', async () => {
    const { device, driver } = open(fsDevice(0n, 4));
    const { seen } = serve(device, (asked) => {
      const lacks = asked.opcode === Opcode.FLUSH || asked.opcode === Opcode.DESTROY;
      if (lacks) reply(asked, 38);
      return lacks;
    });
    const fs = FuseFileSystem.mountSync(driver);
    using handle = fs.openSync('/file');
    expect(handle.readFileSync('utf8')).toBe('hello');
    handle.closeSync();
    fs.openSync('/file').closeSync();
    expect(seen.filter((opcode) => opcode === Opcode.FLUSH)).toHaveLength(1);
    await Promise.all([fs.stat('/file'), fs.stat('/file'), fs.access('/file')]);
    expect(() => FuseFileSystem.mountSync(driver)).toThrow(expect.objectContaining({ code: 'ALREADY_USED' }));
    fs.unmountSync();
    expect(fs.client.nodesInUse).toBe(0);
    expect(() => fs.statSync('/file')).toThrow(VirtioError);
    expect(new FileError(2, 'open').code).toBe('ENOENT');
  });
});
