import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytes, failure, leavesNothing, mounted, pattern, same, settle } from '../test/set-up.ts';
import { FileType } from './index.ts';

describe('FileHandle', () => {
  it('reads and writes at positions, and at its own', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const handle = await fs.open('/f', 'w+');
    expect(await handle.write('hello ')).toEqual({ bytesWritten: 6, buffer: 'hello ' });
    expect((await handle.write(bytes('xxworldxx'), 2, 5)).bytesWritten).toBe(5);
    expect((await handle.write('H', { position: 0 })).bytesWritten).toBe(1);
    expect(server.find('/f')?.bytes).toEqual(bytes('Hello world'));
    const buffer = new Uint8Array(10);
    expect(await handle.read(buffer, 1, 4, 6)).toEqual({ bytesRead: 4, buffer });
    expect(buffer.subarray(0, 6)).toEqual(bytes('\0worl\0'));
    expect((await handle.read(buffer, { position: 11 })).bytesRead).toBe(0);
    expect((await handle.read(buffer)).bytesRead).toBe(0);
    expect(handle.writeSync('!')).toBe(1);
    expect(handle.readSync(buffer, { position: 0, length: 3 })).toBe(3);
    expect(handle.readSync(new Uint8Array(0))).toBe(0);
    expect((await handle.stat()).size).toBe(12);
    expect([handle.path, typeof handle.fd]).toEqual(['/f', 'number']);
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('lets operations at its own position follow one another', async () => {
    const rig = await mounted();
    const handle = await rig.fs.open('/f', 'w+');
    await Promise.all(['one ', 'two ', 'three ', 'four'].map((text) => handle.write(text)));
    expect(await rig.fs.readFile('/f', 'utf8')).toBe('one two three four');
    const again = await rig.fs.open('/f');
    const buffers = [3, 1, 3, 100].map((length) => new Uint8Array(length));
    const counts = await Promise.all(buffers.map(async (buffer) => (await again.read(buffer)).bytesRead));
    expect(counts).toEqual([3, 1, 3, 11]);
    expect(buffers[2]).toEqual(bytes('two'));
    await Promise.all([handle.close(), again.close()]);
    await leavesNothing(rig, rig.fs);
  });

  it('appends in order, on servers that go by the flag and on those that go by the position', async () => {
    for (const honours of [true, false]) {
      const rig = await mounted();
      const { fs, server } = rig;
      server.put('/f', bytes('0'));
      const handle = await fs.open('/f', 'a');
      if (!honours) for (const fid of server.fids.values()) fid.append = false;
      await Promise.all([handle.write('1'), handle.write('2', { position: 0 }), handle.write('3')]);
      handle.writeSync('4');
      expect(server.find('/f')?.bytes).toEqual(bytes('01234'));
      await handle.close();
      await leavesNothing(rig, fs);
    }
  });

  it('reads the rest of the file, and writes on', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', bytes('line one\nline two'));
    await using handle = await fs.open('/f', 'r+');
    await handle.read(new Uint8Array(5));
    expect(await handle.readFile('utf8')).toBe('one\nline two');
    expect(await handle.readFile()).toHaveLength(0);
    await handle.appendFile(['!', bytes('?')]);
    handle.writeFileSync('.');
    expect(handle.readFileSync('utf8')).toBe('');
    expect(await fs.readFile('/f', 'utf8')).toBe('line one\nline two!?.');
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('changes attributes of the file that is open, whatever its name is by now', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const handle = await fs.open('/f', 'w');
    const inode = server.find('/f');
    await fs.rename('/f', '/g');
    await handle.chmod(0o600);
    await handle.chown(1, 2);
    await handle.utimes(3, 4);
    await handle.truncate(5);
    await handle.sync();
    await handle.datasync();
    expect(inode).toMatchObject({
      mode: FileType.FILE | 0o600,
      uid: 1,
      gid: 2,
      atime: [3, 0],
      mtime: [4, 0],
    });
    expect(inode?.bytes).toHaveLength(5);
    handle.chmodSync(0o400);
    handle.chownSync(7, 8);
    handle.utimesSync(9, 10);
    handle.truncateSync();
    handle.fsyncSync();
    handle.fdatasyncSync();
    expect(handle.statSync()).toMatchObject({
      mode: FileType.FILE | 0o400,
      uid: 7,
      gid: 8,
      size: 0,
      atimeMs: 9000,
    });
    handle.closeSync();
    await leavesNothing(rig, fs);
  });

  it('streams, some pieces ahead', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const data = pattern(1_000_000);
    server.put('/f', data);
    const handle = await fs.open('/f');
    for (const options of [
      {},
      { highWaterMark: 1000 },
      { start: 12_345 },
      { start: 5, end: 5 },
      { start: 100, end: 700_000, highWaterMark: 99_999 },
      { start: 2_000_000 },
      { start: 10, end: 9 },
    ]) {
      const { start = 0, end = data.length } = options;
      const pieces: Uint8Array[] = [];
      for await (const piece of handle.createReadStream(options)) pieces.push(piece);
      expect(same(Buffer.concat(pieces), data.subarray(start, end + 1)), JSON.stringify(options)).toBe(true);
    }
    for await (const piece of handle.createReadStream({ highWaterMark: 10 })) {
      expect(piece).toHaveLength(10);
      break;
    }
    expect(() => handle.createReadStream({ highWaterMark: 0 })).toThrow(/highWaterMark is 0/);
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('reads lines, wherever the pieces of the stream end', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const lines = ['first', '', 'Grüße, 世界', 'x'.repeat(1000), 'with\rreturn', 'last'];
    for (const [ending, end] of [
      ['\n', ''],
      ['\n', '\n'],
      ['\r\n', '\r\n'],
    ] as const) {
      server.put('/lines', bytes(lines.join(ending) + end));
      await using handle = await fs.open('/lines');
      for (const highWaterMark of [1, 2, 7, 100_000]) {
        const read: string[] = [];
        for await (const line of handle.readLines({ highWaterMark })) read.push(line);
        expect(read).toEqual(lines);
      }
      const first: string[] = [];
      for await (const line of handle.readLines()) {
        first.push(line);
        if (first.length === 2) break;
      }
      expect(first).toEqual(lines.slice(0, 2));
    }
    server.put('/empty', bytes(''));
    await using empty = await fs.open('/empty');
    for await (const line of empty.readLines()) expect.unreachable(line);
    server.put('/endless', new Uint8Array(17_000_000));
    await using endless = await fs.open('/endless');
    const read = async () => {
      for await (const line of endless.readLines()) expect.unreachable(line.slice(0, 10));
    };
    expect(await failure(read)).toMatchObject({ code: 'EOVERFLOW', path: '/endless' });
    await empty.close();
    await endless.close();
    await leavesNothing(rig, fs);
  });

  it('is written as a stream, from its position or from another place', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    await using handle = await fs.open('/f', 'w');
    const data = pattern(500_000);
    const sink = handle.createWriteStream();
    await new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < data.length; at += 70_000) controller.enqueue(data.subarray(at, at + 70_000));
        controller.close();
      },
    }).pipeTo(new WritableStream(sink));
    expect(sink.bytesWritten).toBe(500_000);
    expect(same(server.find('/f')?.bytes, data)).toBe(true);
    await handle.write('end');
    expect(server.find('/f')?.bytes).toHaveLength(500_003);

    const other = handle.createWriteStream({ start: 10 });
    await Promise.all([other.write('hello '), other.write(bytes('world'))]);
    expect(Buffer.from(server.find('/f')?.bytes.subarray(10, 21) ?? []).toString()).toBe('hello world');
    expect(() => handle.createWriteStream({ start: -1 })).toThrow(/start is -1/);

    server.capacity = 10;
    const writer = new WritableStream(handle.createWriteStream()).getWriter();
    expect(await failure(() => writer.write(bytes('x')))).toMatchObject({ code: 'ENOSPC', syscall: 'write' });
    server.capacity = Infinity;

    server.hold = (type) => type === 118;
    const aborted = new WritableStream(handle.createWriteStream()).getWriter();
    const writing = failure(() => aborted.write(bytes('x')));
    await settle();
    await aborted.abort(new Error('changed my mind'));
    await writing;
    expect(server.held).toHaveLength(0);
    server.hold = undefined;
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('cancels an operation that waits for its turn at once, and the next ones keep theirs', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', bytes('firstsecond'));
    const handle = await fs.open('/f');
    server.hold = (type) => type === 116;
    const first = handle.read(new Uint8Array(5));
    await settle();
    const abort = new AbortController();
    const waiting = failure(() => handle.read(new Uint8Array(5), { signal: abort.signal }));
    const early = failure(() => handle.read(new Uint8Array(5), { signal: AbortSignal.abort() }));
    const buffer = new Uint8Array(6);
    const last = handle.read(buffer);
    await settle();
    abort.abort();
    expect(await waiting).toMatchObject({ code: 'ABORTED' });
    expect(await early).toMatchObject({ code: 'ABORTED' });
    await settle();
    expect(server.held).toHaveLength(1);
    server.hold = undefined;
    server.release();
    expect([(await first).bytesRead, (await last).bytesRead]).toEqual([5, 6]);
    expect(Buffer.from(buffer).toString()).toBe('second');
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('rejects for a signal that is aborted already, even if there is nothing to ask the server', async () => {
    const rig = await mounted();
    const { fs } = rig;
    await using handle = await fs.open('/f', 'w+');
    const signal = AbortSignal.abort();
    for (const attempt of [
      () => handle.read(new Uint8Array(0), { signal }),
      () => handle.write('', { position: 0, signal }),
      () => handle.readv([], 0, { signal }),
      () => fs.unmount({ signal }),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'ABORTED' });
    }
    expect((await fs.stat('/f')).size).toBe(0);
  });

  it('refuses buffers that were transferred before', async () => {
    const rig = await mounted();
    const { fs } = rig;
    await using handle = await fs.open('/f', 'w+');
    const gone = new Uint8Array(4);
    structuredClone(gone.buffer, { transfer: [gone.buffer] });
    for (const attempt of [
      () => handle.write(gone),
      () => handle.read(gone),
      () => handle.writev([bytes('x'), gone]),
      () => handle.readSync(gone),
      () => fs.writeFile('/f', gone),
      () => fs.setxattr('/f', 'user.x', gone),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'INVALID_PARAM' });
    }
  });

  it('reads into and writes from several buffers', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    await using handle = await fs.open('/f', 'w+');
    const parts = [bytes('one '), bytes(''), bytes('two '), bytes('three')];
    expect(await handle.writev(parts)).toEqual({ bytesWritten: 13, buffers: parts });
    expect(handle.writevSync([bytes('TWO')], 4)).toBe(3);
    expect(Buffer.from(server.find('/f')?.bytes ?? []).toString()).toBe('one TWO three');
    const into = [new Uint8Array(4), new Uint8Array(0), new Uint8Array(4), new Uint8Array(100)];
    expect((await handle.readv(into, 0)).bytesRead).toBe(13);
    expect(into.map((each) => Buffer.from(each).toString().replaceAll('\0', ''))).toEqual([
      'one ',
      '',
      'TWO ',
      'three',
    ]);
    // At the file's own position, which writing has moved to its end.
    expect((await handle.readv(into)).bytesRead).toBe(0);
    await handle.writev([bytes('!'), bytes('?')]);
    expect(handle.readvSync([new Uint8Array(1), new Uint8Array(5)], 13)).toBe(2);
    expect(server.find('/f')?.bytes).toHaveLength(15);
    expect(await failure(() => handle.readv(into, -1))).toMatchObject({ code: 'INVALID_PARAM' });
    // Beyond 2^53 positions are not exact.
    for (const attempt of [
      () => handle.readv(into, Number.MAX_SAFE_INTEGER - 1),
      () => handle.writev(into, Number.MAX_SAFE_INTEGER - 1),
      () => handle.readvSync(into, Number.MAX_SAFE_INTEGER),
      () => handle.writevSync(into, Number.MAX_SAFE_INTEGER),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'INVALID_PARAM' });
    }
    await using appending = await fs.open('/f', 'a');
    await Promise.all([
      appending.writev([bytes('a'), bytes('b')], 0),
      appending.writev([bytes('c'), bytes('d')], 0),
    ]);
    expect(Buffer.from(server.find('/f')?.bytes ?? []).toString()).toBe('one TWO three!?abcd');
    await handle.close();
    await appending.close();
    await leavesNothing(rig, fs);
  });

  it('copies one stream to another file', async () => {
    const rig = await mounted();
    const data = pattern(700_000);
    rig.server.put('/f', data);
    const handle = await rig.fs.open('/f');
    await rig.fs.writeFile('/g', handle.createReadStream());
    expect(same(rig.server.find('/g')?.bytes, data)).toBe(true);
    await handle.close();
    await leavesNothing(rig, rig.fs);
  });

  it('locks against others, and tells who holds a lock', async () => {
    const rig = await mounted();
    const { fs } = rig;
    const handle = await fs.open('/f', 'w+');
    const other = { process: 2, client: 'other' };
    expect(await handle.getLock()).toBeUndefined();
    await handle.lock({ type: 'read', start: 10, length: 10 });
    await handle.lock({ type: 'read', start: 15, ...other });
    expect(await failure(() => handle.lock({ start: 19, length: 1, ...other }))).toMatchObject({
      code: 'EAGAIN',
      syscall: 'lock',
    });
    expect(await handle.getLock({ start: 0, ...other })).toEqual({
      type: 'read',
      start: 10,
      length: 10,
      process: 1,
      client: 'virtio',
    });
    await handle.unlock({ start: 10, length: 10 });
    handle.lockSync({ ...other, length: 5 });
    handle.unlockSync({ ...other });
    handle.unlockSync({ ...other });
    expect(handle.getLockSync()).toBeUndefined();
    rig.server.tamper = (reply, type) => {
      if (type === 52) reply[7] = 2;
      return reply;
    };
    expect(await failure(() => handle.lock())).toMatchObject({ code: 'ENOLCK' });
    rig.server.tamper = undefined;
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('refuses buffers and positions that make no sense', async () => {
    const rig = await mounted();
    const handle = await rig.fs.open('/f', 'w+');
    const buffer = new Uint8Array(10);
    for (const [offset, length, position] of [
      [11, 0, 0],
      [0, 11, 0],
      [-1, 1, 0],
      [0, 1.5, 0],
      [0, 1, -1],
      [0, 1, Number.MAX_SAFE_INTEGER + 1],
      [0, 5, Number.MAX_SAFE_INTEGER],
    ] as const) {
      expect(await failure(() => handle.read(buffer, offset, length, position))).toMatchObject({
        code: 'INVALID_PARAM',
      });
      expect(() => handle.writeSync(buffer, offset, length, position)).toThrow(
        / is .*; give an integer from/,
      );
    }
    for (const wrong of [undefined, 5, new Uint32Array(2)] as unknown as Uint8Array[]) {
      expect(await failure(() => handle.read(wrong))).toMatchObject({ code: 'INVALID_PARAM' });
      expect(await failure(() => handle.write(wrong))).toMatchObject({ code: 'INVALID_PARAM' });
    }
    await handle.close();
    await leavesNothing(rig, rig.fs);
  });

  it('waits with closing until what is going on has ended, and is of no use then', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const handle = await fs.open('/f', 'w+');
    server.hold = (type) => type === 118;
    const writing = handle.write('late');
    await settle();
    expect(() => handle.closeSync()).toThrow(/EBUSY/);
    const closing = handle.close();
    expect(await failure(() => handle.read(new Uint8Array(1)))).toMatchObject({
      code: 'EBADF',
      syscall: 'read',
      path: '/f',
    });
    await settle();
    expect(server.fids.has(handle.fd)).toBe(true);
    server.hold = undefined;
    server.release();
    await writing;
    await closing;
    await handle.close();
    handle.closeSync();
    expect(server.fids.has(handle.fd)).toBe(false);
    expect(server.find('/f')?.bytes).toEqual(bytes('late'));
    await leavesNothing(rig, fs);
  });

  it('holds what a model of a file holds, after any mix of operations', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    let n = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            what: fc.constantFrom('write', 'read', 'truncate', 'writeSync', 'readSync'),
            at: fc.nat(400_000),
            length: fc.nat(300_000),
          }),
          { maxLength: 8 },
        ),
        async (steps) => {
          const path = `/f${(n += 1)}`;
          await using handle = await fs.open(path, 'w+');
          let model = new Uint8Array(0);
          const resize = (length: number): void => {
            const next = new Uint8Array(length);
            next.set(model.subarray(0, length));
            model = next;
          };
          for (const { what, at, length } of steps) {
            const data = pattern(length, at);
            const buffer = new Uint8Array(length);
            if (what === 'truncate') {
              await handle.truncate(at);
              resize(at);
            } else if (what === 'write' || what === 'writeSync') {
              if (what === 'write') await handle.write(data, { position: at });
              else handle.writeSync(data, { position: at });
              if (length > 0 && at + length > model.length) resize(at + length);
              model.set(data, length > 0 ? at : 0);
            } else {
              const read =
                what === 'read'
                  ? (await handle.read(buffer, { position: at })).bytesRead
                  : handle.readSync(buffer, { position: at });
              expect(same(buffer.subarray(0, read), model.subarray(at, at + length))).toBe(true);
            }
          }
          expect(same(server.find(path)?.bytes, model)).toBe(true);
        },
      ),
      { numRuns: 25 },
    );
    await leavesNothing(rig, fs);
  });
});
