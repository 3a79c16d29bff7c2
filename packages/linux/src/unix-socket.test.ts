import {
  closeSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { VirtioError } from '@virtio/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Mapping } from './mapping.ts';
import { SharedFile } from './shared-file.ts';
import { pollDescriptors, PollEvents } from './syscalls.ts';
import { UnixListener, UnixSocket } from './unix-socket.ts';

/** The limit of open files: `<sys/resource.h>`. */
const RLIMIT_NOFILE = 7;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'virtio-socket-'));
});
afterAll(() => {
  rmSync(directory, { recursive: true });
});

const openDescriptors = () => readdirSync('/proc/self/fd').length;
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);

describe('UnixSocket', () => {
  it('connects, carries bytes and descriptors both ways, and tells the end', () => {
    const path = join(directory, 'a.sock');
    using listener = new UnixListener(path);
    expect(listener.accept()).toBeUndefined();
    using client = UnixSocket.connect(path)!;
    using server = listener.accept()!;
    expect(server.receive()).toBeUndefined();
    using file = SharedFile.create('socket-test', 2 << 20, false);
    expect(client.send(bytes('hello'), [file.fd, client.fd])).toBe(5);
    const got = server.receive()!;
    expect(text(got.bytes)).toBe('hello');
    expect(got.descriptors).toHaveLength(2);
    expect(fstatSync(got.descriptors[0]!).size).toBe(2 << 20);
    writeSync(got.descriptors[1]!, 'from a copy of the client');
    expect(text(server.receive()!.bytes)).toBe('from a copy of the client');
    for (const fd of got.descriptors) closeSync(fd);
    server.send(bytes('back'));
    expect(text(client.receive()!.bytes)).toBe('back');
    server[Symbol.dispose]();
    expect(client.receive()!.bytes).toHaveLength(0);
    expect(client.send(bytes('late'))).toBe(-1);
  });

  it('takes a part when the buffer is full, then nothing, and goes on after it was read', () => {
    const [left, right] = UnixSocket.pair();
    const chunk = new Uint8Array(1 << 16).fill(7);
    let sent = 0;
    for (let n = left.send(chunk); n > 0; n = left.send(chunk)) sent += n;
    expect(left.send(chunk)).toBe(0);
    let received = 0;
    for (let got = right.receive(); got !== undefined; got = right.receive()) received += got.bytes.length;
    expect(received).toBe(sent);
    expect(left.send(chunk)).toBeGreaterThan(0);
    left[Symbol.dispose]();
    right[Symbol.dispose]();
  });

  it('says who does not listen, and which path is none', () => {
    expect(() => UnixSocket.connect(join(directory, 'none'))).toThrow(
      expect.objectContaining({ code: 'NO_DEVICE' }),
    );
    expect(() => UnixSocket.connect('x'.repeat(108))).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    const path = join(directory, 'b.sock');
    for (const open of [(at: string) => UnixSocket.connect(at), (at: string) => new UnixListener(at)]) {
      const message = (at: string): string => {
        try {
          open(at)?.[Symbol.dispose]();
        } catch (error) {
          if (VirtioError.is(error)) return `${error.code} ${error.message}`;
          throw error;
        }
        return '';
      };
      expect(message(join(directory, 'no', 'a.sock'))).toContain(`the folder ${directory}/no does not exist`);
      writeFileSync(join(directory, 'file'), '');
      expect(message(join(directory, 'file', 'a.sock'))).toMatch(
        /^INVALID_PARAM .*\(ENOTDIR\); a part of the path is a file/,
      );
      rmSync(join(directory, 'round'), { force: true });
      symlinkSync('round', join(directory, 'round'));
      expect(message(join(directory, 'round', 'a.sock'))).toMatch(
        /^INVALID_PARAM .*\(ELOOP\); its symbolic links/,
      );
    }
    const dead = new UnixListener(path);
    expect(() => new UnixListener(path)).toThrow(expect.objectContaining({ code: 'ALREADY_USED' }));
    dead[Symbol.dispose]();
    expect(existsSync(path)).toBe(true);
    expect(() => UnixSocket.connect(path)).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
  });

  it('says with undefined that the other side accepts nobody now', () => {
    const path = join(directory, 'c.sock');
    using _listener = new UnixListener(path);
    const sockets: UnixSocket[] = [];
    let last: UnixSocket | undefined;
    do {
      last = UnixSocket.connect(path);
      if (last) sockets.push(last);
    } while (last !== undefined && sockets.length < 10);
    expect(last).toBeUndefined();
    for (const socket of sockets) socket[Symbol.dispose]();
  });

  it('can be waited for in place, for a while', () => {
    const [left, right] = UnixSocket.pair();
    expect(pollDescriptors([[left.fd, PollEvents.IN]], 5)).toBe(false);
    right.send(bytes('x'));
    expect(pollDescriptors([[left.fd, PollEvents.IN]], 1000)).toBe(true);
    left[Symbol.dispose]();
    right[Symbol.dispose]();
  });

  it('leaks no descriptor', () => {
    const before = openDescriptors();
    for (let n = 0; n < 50; n += 1) {
      const [left, right] = UnixSocket.pair();
      left.send(bytes('x'), [left.fd]);
      for (const fd of right.receive()!.descriptors) closeSync(fd);
      left[Symbol.dispose]();
      right[Symbol.dispose]();
    }
    expect(openDescriptors()).toBe(before);
  });
});

describe('UnixListener', () => {
  it('tells of a connection that no descriptor is left for, and accepts it later', () => {
    const path = join(directory, 'full.sock');
    using listener = new UnixListener(path);
    using _client = UnixSocket.connect(path)!;
    const libc = koffi.load(null);
    const limit = (name: string, limits: BigUint64Array): number =>
      libc.func(name, 'int', ['int', 'void *'])(RLIMIT_NOFILE, limits) as number;
    const [limits, none] = [new BigUint64Array(2), new BigUint64Array(2)];
    expect(limit('getrlimit', limits)).toBe(0);
    const free = openSync('/dev/null', 'r');
    closeSync(free);
    none.set([BigInt(free), limits[1]!]);
    let error: unknown;
    limit('setrlimit', none);
    try {
      listener.accept();
    } catch (thrown) {
      error = thrown;
    } finally {
      limit('setrlimit', limits);
    }
    expect(error).toMatchObject({ code: 'SYSTEM_ERROR', cause: { code: 'EMFILE' } });
    using accepted = listener.accept();
    expect(accepted).toBeDefined();
  });
});

describe('SharedFile', () => {
  it('is shared, zero, sealed, and zero again after it was cleared', () => {
    using file = SharedFile.create('file-test', 4 << 20, false);
    using first = file.map(2 << 20, 2 << 20);
    using second: Mapping = file.map(2 << 20, 2 << 20);
    const one = new Uint8Array(first.view());
    const other = new Uint8Array(second.view());
    expect(one.every((byte) => byte === 0)).toBe(true);
    one.fill(9);
    expect(other[12345]).toBe(9);
    const byte = new Uint8Array(1);
    readSync(file.fd, byte, 0, 1, 2 << 20);
    expect(byte[0]).toBe(9);
    expect(() => writeSync(file.fd, byte, 0, 1, 4 << 20)).toThrow();
    file.clear(2 << 20, 2 << 20);
    expect(other[12345]).toBe(0);
  });
});
