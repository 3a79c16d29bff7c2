import { describe, expect, it } from 'vitest';
import type { MemoryServer } from '../test/memory-server.ts';
import { bytes, failure, leavesNothing, mounted, pattern, same, settle } from '../test/set-up.ts';

const READ = 116;
const WRITE = 118;

/** The buffers of the two clunks for which nobody waits. */
const CLUNKS = 4;

/** Answers what is held back, some of it at a time and in any order, until a promise settles. */
async function pump<T>(server: MemoryServer, going: Promise<T>): Promise<T> {
  let settled = false;
  void going.then(
    () => (settled = true),
    () => (settled = true),
  );
  while (!settled) {
    await settle(50);
    server.held.reverse();
    const later = server.held.splice(Math.ceil(server.held.length / 2));
    server.release();
    server.held.push(...later);
  }
  return going;
}

describe('copying a file', () => {
  it('reads and writes at the same time, many pieces at once', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(5_345_678);
    server.put('/f', data);
    let both = 0;
    server.hold = (type) => {
      const types = new Set(server.held.map(({ message }) => message[4]));
      if (types.has(READ) && types.has(WRITE)) both += 1;
      return type === READ || type === WRITE;
    };
    await pump(server, fs.copyFile('/f', '/g'));
    server.hold = undefined;
    expect(same(server.find('/g')?.bytes, data)).toBe(true);
    expect(server.mostHeld).toBe(32);
    expect(both).toBeGreaterThan(5);
    await leavesNothing(rig, fs);
  });

  it.each([0, 1, 8167, 8168, 8169, 131_072, 131_073, 600_000])('copies %i bytes', async (length) => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(length);
    server.put('/f', data, 0o100640);
    await fs.copyFile('/f', '/a');
    fs.copyFileSync('/f', '/b');
    for (const copy of ['/a', '/b']) {
      expect(same(server.find(copy)?.bytes, data)).toBe(true);
      expect(server.find(copy)?.mode).toBe(0o100640);
    }
    await leavesNothing(rig, fs);
  });

  it('goes on after short reads and short writes', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(1_000_000);
    server.put('/f', data);
    server.mostBytes = 33_333;
    await fs.copyFile('/f', '/g');
    expect(same(server.find('/g')?.bytes, data)).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('copies files that say they are empty and are not, and what was added meanwhile', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(900_000);
    server.put('/f', data);
    for (const size of [0, 300_000]) {
      server.tamper = (reply, type) => {
        if (type === 24) new DataView(reply.buffer).setUint32(56, size, true);
        return reply;
      };
      await fs.copyFile('/f', '/g');
      expect(same(server.find('/g')?.bytes, data)).toBe(true);
    }
    server.tamper = undefined;
    await leavesNothing(rig, fs);
  });

  it('leaves no gap when the file becomes shorter: the copy ends where reading first found an end', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(3_000_000);
    const file = server.put('/f', data);
    let reads = 0;
    server.mostBytes = 100_000;
    server.hold = (type) => {
      if (type === READ && ++reads === 12) file.bytes = file.bytes.subarray(0, 150_000);
      return false;
    };
    await fs.copyFile('/f', '/g');
    const copy = server.find('/g')?.bytes ?? new Uint8Array(0);
    expect(copy.length).toBeGreaterThanOrEqual(150_000);
    expect(copy.length).toBeLessThan(1_000_000);
    expect(same(copy, data.subarray(0, copy.length))).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('ends with the error of the server, when nothing is in flight any more', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, device } = rig;
    server.put('/f', pattern(5_000_000));
    server.capacity = 2_000_000;
    expect(await failure(() => fs.copyFile('/f', '/g'))).toMatchObject({
      code: 'ENOSPC',
      syscall: 'copyfile',
      path: '/f',
      dest: '/g',
    });
    expect(device.hal.shares.length).toBeLessThanOrEqual(CLUNKS);
    server.capacity = Infinity;
    expect(await failure(() => fs.copyFile('/', '/g'))).toMatchObject({ code: 'EISDIR' });
    await leavesNothing(rig, fs);
  });

  it('ends when it is cancelled, when nothing is in flight any more', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, device } = rig;
    server.put('/f', pattern(5_000_000));
    for (const held of [READ, WRITE]) {
      const abort = new AbortController();
      server.hold = (type) => type === held;
      const copying = failure(() => fs.copyFile('/f', '/g', { signal: abort.signal }));
      await settle(200);
      expect(server.held.length).toBeGreaterThan(3);
      abort.abort();
      expect(await copying).toMatchObject({ code: 'ABORTED' });
      expect(server.held).toHaveLength(0);
      expect(device.hal.shares.length).toBeLessThanOrEqual(CLUNKS);
    }
    server.hold = undefined;
    await leavesNothing(rig, fs);
  });

  it('gets its turn among many that copy at once, however few tags there are', async () => {
    const rig = await mounted({ features: 0n }, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(3_000_000);
    server.put('/f', data);
    server.hold = (type) => type === READ || type === WRITE;
    const copies = Array.from({ length: 10 }, (_, i) => fs.copyFile('/f', `/g${i}`));
    await pump(server, Promise.all(copies));
    server.hold = undefined;
    for (let i = 0; i < 10; i += 1) expect(same(server.find(`/g${i}`)?.bytes, data)).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('finds out a server that says it wrote more than it was given, or nothing', async () => {
    const { fs, server } = await mounted({}, { msize: 131_096 });
    server.put('/f', bytes('hello'));
    for (const [count, code] of [
      [6, 'DEVICE_MISBEHAVED'],
      [0, 'EIO'],
    ] as const) {
      server.tamper = (reply, type) => {
        if (type === WRITE) new DataView(reply.buffer).setUint32(7, count, true);
        return reply;
      };
      expect(await failure(() => fs.copyFile('/f', '/g'))).toMatchObject({ code });
    }
  });
});
