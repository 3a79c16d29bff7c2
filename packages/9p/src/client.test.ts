import { VirtioError } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { type MemoryServer, Out, refusal, seal } from '../test/memory-server.ts';
import {
  bytes,
  failure,
  leavesNothing,
  mounted,
  pattern,
  same,
  setUp,
  settle,
  usual,
} from '../test/set-up.ts';
import { OpenFlag, P9Client, P9Error, P9FileSystem } from './index.ts';

const READ = 116;
const WALK = 110;
const OPEN = 12;
const FLUSH = 108;

const tagsOf = (server: MemoryServer): number[] =>
  server.held.map(({ message }) => new DataView(message.buffer).getUint16(5, true));

describe('connecting', () => {
  it('negotiates the message size, and attaches as the user', async () => {
    const { driver, server } = setUp();
    server.msize = 65_536;
    const client = new P9Client(driver);
    expect(() => client.root).toThrow(/not connected/);
    const root = await client.run(client.connect({ userName: 'me', uid: 5, tree: '/srv' }));
    expect([client.msize, client.dataSize, client.root]).toEqual([65_536, 65_512, root]);
    expect(server.log).toEqual([
      { type: 100, tag: 0xffff },
      { type: 104, tag: expect.any(Number) as number },
    ]);
  });

  it.each([1024, 4095, 2 ** 25, 8192.5, Number.NaN])('refuses a message size of %s', async (msize) => {
    const { driver, server } = setUp();
    expect(await failure(() => P9FileSystem.mount(driver, { msize }))).toMatchObject({
      code: 'INVALID_PARAM',
    });
    expect(server.log).toEqual([]);
  });

  it('refuses servers that speak another version, or whose messages are too small', async () => {
    for (const [version, size, code] of [
      ['9P2000.u', 8192, 'UNSUPPORTED'],
      ['unknown', 8192, 'UNSUPPORTED'],
      ['9P2000.L', 100, 'DEVICE_MISBEHAVED'],
    ] as const) {
      const { driver, server } = setUp();
      server.tamper = (reply, type) =>
        type === 100 ? seal(101, 0xffff, new Out().u32(size).string(version)) : reply;
      expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code });
    }
  });

  it('keeps to its own message size if the server names the largest that it has', async () => {
    const rig = setUp();
    const { driver, server } = rig;
    server.tamper = (reply, type) =>
      type === 100 ? seal(101, 0xffff, new Out().u32(0xffff_ffff).string('9P2000.L')) : reply;
    const fs = await P9FileSystem.mount(driver, { msize: 8192 });
    expect(fs.client.msize).toBe(8192);
    server.put('/f', pattern(100_000));
    expect(same(await fs.readFile('/f'), pattern(100_000))).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('needs interrupts for promises, and a queue with room for two requests', async () => {
    const { driver } = setUp({ interrupts: false });
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'UNSUPPORTED' });
    const small = setUp({ queues: [4], features: 0n });
    expect(() => new P9Client(small.driver)).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED' }) as Error,
    );
  });

  it('refuses a device on which somebody else has requests in flight', async () => {
    const { driver, device, fs, server } = await mounted();
    server.hold = () => true;
    const reading = failure(() => fs.stat('/'));
    await settle();
    const second = new P9Client(driver);
    expect(await failure(() => second.run(second.connect()))).toMatchObject({ code: 'ALREADY_USED' });
    driver[Symbol.dispose]();
    expect(await reading).toMatchObject({ code: 'DISPOSED' });
    device.assertClean();
  });
});

describe('many requests', () => {
  it.each([
    ['with indirect tables', usual, 63],
    ['without', 0n, 31],
  ])('are in flight at once, each with a tag of its own, %s', async (_what, features, most) => {
    const rig = await mounted({ features });
    const { fs, server } = rig;
    server.put('/f', pattern(1000));
    server.hold = (type) => type === WALK;
    const reads = Array.from({ length: 100 }, () => fs.readFile('/f'));
    await settle(200);
    expect(server.held).toHaveLength(most);
    expect(new Set(tagsOf(server)).size).toBe(most);
    // The answers come in any order.
    server.held.sort(() => 0.5 - Math.random());
    server.hold = undefined;
    server.release();
    for (const data of await Promise.all(reads)) expect(data).toEqual(pattern(1000));
    await leavesNothing(rig, fs);
  });

  it('are made by one large read and one large write', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server } = rig;
    const data = pattern(5_000_000);
    await fs.writeFile('/f', '');
    for (const type of [118, READ]) {
      server.mostHeld = 0;
      server.hold = (candidate) => candidate === type;
      const going = type === READ ? fs.readFile('/f') : fs.writeFile('/f', data);
      const pump = (async () => {
        for (let i = 0; i < 100; i += 1) {
          await settle(50);
          server.held.reverse();
          server.release();
        }
      })();
      const result = await going;
      await pump;
      expect(server.mostHeld).toBe(32);
      expect(same(result ?? server.find('/f')?.bytes, data)).toBe(true);
    }
    server.hold = undefined;
    await leavesNothing(rig, fs);
  });

  it('are fewer while DMA memory is scarce, and one fails if there is none at all', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, device } = rig;
    const data = pattern(3_000_000);
    server.put('/f', data);
    for (const operation of [
      async () => same(await fs.readFile('/f'), data),
      async () => same((await fs.writeFile('/g', data), server.find('/g')?.bytes), data),
      async () => same((await fs.copyFile('/f', '/h'), server.find('/h')?.bytes), data),
    ]) {
      // Enough for what comes before the data, and for a few pieces of it.
      device.hal.failShare({ after: 30, count: 4 });
      expect(await operation()).toBe(true);
      device.hal.failShare({ after: 30, count: Infinity });
      expect(await failure(operation)).toMatchObject({ code: 'DMA_ERROR' });
      device.hal.failShare({ count: 0 });
      // Not even clunks could be sent, which needs no memory in earnest: the server has to forget those fids.
      await fs.remount();
    }
    expect(fs.client.inFlight).toBe(0);
    await leavesNothing(rig, fs);
  });

  it("of all kinds at once do not get in each other's way", async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const path = `/d${i % 10}/f${i}`;
        await fs.mkdir(`/d${i % 10}`, { recursive: true });
        await fs.writeFile(path, pattern(i * 1000, i));
        expect(same(await fs.readFile(path), pattern(i * 1000, i))).toBe(true);
        expect((await fs.stat(path)).size).toBe(i * 1000);
        if (i % 2 === 0) await fs.unlink(path);
      }),
    );
    expect((await fs.readdir('/d1')).length + (await fs.readdir('/d2')).length).toBe(10);
    expect(fs.client.fidsInUse).toBeLessThan(200);
    expect(server.fids.size).toBeLessThan(200);
    await leavesNothing(rig, fs);
  });

  it('use the numbers of fids and tags again and again', async () => {
    const rig = await mounted();
    rig.server.put('/f', bytes('x'));
    for (let i = 0; i < 1000; i += 1) await rig.fs.readFile('/f');
    for (let i = 0; i < 1000; i += 1) rig.fs.statSync('/f');
    expect(rig.fs.client.fidsInUse).toBeLessThan(70);
    await leavesNothing(rig, rig.fs);
  });

  it('with promises leave no tag for a synchronous one, which says so instead of waiting for ever', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.hold = () => true;
    const waiting = Array.from({ length: 70 }, () => fs.stat('/'));
    await settle(100);
    expect(() => fs.statSync('/')).toThrow(expect.objectContaining({ code: 'QUEUE_FULL' }) as Error);
    server.hold = undefined;
    server.release();
    await Promise.all(waiting);
    expect(fs.statSync('/').isDirectory()).toBe(true);
    await leavesNothing(rig, fs);
  });
});

describe('cancelling', () => {
  it('before anything was sent sends nothing', async () => {
    const rig = await mounted();
    const before = rig.server.log.length;
    const reason = new Error('changed my mind');
    const error = await failure(() => rig.fs.readFile('/f', { signal: AbortSignal.abort(reason) }));
    expect(error).toMatchObject({ code: 'ABORTED', cause: reason });
    expect(rig.server.log).toHaveLength(before);
    await leavesNothing(rig, rig.fs);
  });

  it.each([
    ['gives the request back unanswered', true],
    ['answers it all the same', false],
  ])('flushes the request, on a server that %s', async (_what, cancels) => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.cancels = cancels;
    server.put('/f', pattern(30_000));
    for (const held of [WALK, OPEN, 24, READ]) {
      const abort = new AbortController();
      server.hold = (type) => type === held;
      const reading = fs.readFile('/f', { signal: abort.signal }).then(
        () => undefined,
        (error: unknown) => error,
      );
      await settle(100);
      const [tag] = tagsOf(server);
      server.log.length = 0;
      abort.abort();
      const error = await reading;
      // What was answered by then, and was the last thing to do, has succeeded.
      if (cancels || held === WALK || held === OPEN) expect(error).toMatchObject({ code: 'ABORTED' });
      else expect(error).toBeUndefined();
      expect(server.log[0]?.type).toBe(FLUSH);
      expect(server.log[0]?.tag).not.toBe(tag);
      server.hold = undefined;
    }
    expect(same(await fs.readFile('/f'), pattern(30_000))).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('flushes all requests of a large read, and gives the buffer back only then', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, device } = rig;
    server.put('/f', pattern(4_000_000));
    const handle = await fs.open('/f');
    const abort = new AbortController();
    server.hold = (type) => type === READ;
    const reading = failure(() =>
      handle.read(new Uint8Array(4_000_000), { position: 0, signal: abort.signal }),
    );
    await settle(100);
    expect(server.held.length).toBeGreaterThan(20);
    const shared = device.hal.shares.length;
    abort.abort();
    expect(await reading).toMatchObject({ code: 'ABORTED' });
    expect(server.held).toHaveLength(0);
    expect(device.hal.shares.length).toBeLessThan(shared - 20);
    server.hold = undefined;
    expect((await handle.read(new Uint8Array(10), { position: 0 })).bytesRead).toBe(10);
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('works when all tags are taken by requests that hang', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    const abort = new AbortController();
    server.hold = () => true;
    const stuck = Array.from({ length: 80 }, () =>
      failure(() => fs.readFile('/f', { signal: abort.signal })),
    );
    await settle(100);
    expect(server.held).toHaveLength(63);
    abort.abort();
    for (const error of await Promise.all(stuck)) expect(error).toMatchObject({ code: 'ABORTED' });
    server.hold = undefined;
    expect((await fs.stat('/')).isDirectory()).toBe(true);
    await leavesNothing(rig, fs);
  });

  it('flushes a Tversion by the tag that the server knows it by', async () => {
    const rig = setUp();
    rig.server.hold = (type) => type === 100;
    const abort = new AbortController();
    const mounting = failure(() => P9FileSystem.mount(rig.driver, { signal: abort.signal }));
    await settle();
    expect(rig.server.held).toHaveLength(1);
    abort.abort();
    expect(await mounting).toMatchObject({ code: 'ABORTED' });
    rig.server.hold = undefined;
    await leavesNothing(rig, await P9FileSystem.mount(rig.driver));
  });

  it('does not use a tag again before the server has answered the flush', async () => {
    const rig = await mounted();
    const { fs, server, device } = rig;
    const abort = new AbortController();
    // The device keeps all that comes; the test answers by hand.
    device.automatic = false;
    const first = failure(() => fs.open('/f', 'r', 0, { signal: abort.signal }));
    await settle();
    const request = device.queue(0).pop();
    abort.abort();
    await settle();
    const flush = device.queue(0).pop();
    const tag = request?.header().getUint16(5, true);
    expect([flush?.bytes()[4], flush?.header().getUint16(7, true)]).toEqual([FLUSH, tag]);
    request?.complete(0);
    await settle();
    // Its buffers are back, but the server may still send an answer under its tag.
    const others = Array.from({ length: 62 }, () => fs.stat('/'));
    await settle();
    const seen = new Set<number | undefined>();
    for (let chain = device.queue(0).pop(); chain; chain = device.queue(0).pop()) {
      seen.add(chain.header().getUint16(5, true));
      chain.write(server.reply(chain.bytes())).complete();
    }
    expect(seen.size).toBe(61);
    expect(seen.has(tag)).toBe(false);
    flush?.write(seal(109, flush.header().getUint16(5, true), new Out())).complete();
    device.automatic = true;
    device.run();
    expect(await first).toMatchObject({ code: 'ABORTED' });
    await Promise.all(others);
    await leavesNothing(rig, fs);
  });

  it('tidies up what the server had done by then', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    for (let i = 0; i < 200; i += 1) server.put(`/t/d${i}/f`, bytes('x'));
    // At each message in turn.
    for (let at = 1; at < 60; at += 3) {
      for (const operation of [
        (signal: AbortSignal) => fs.rm('/t', { recursive: true, signal }),
        (signal: AbortSignal) => fs.readdir('/t', { withFileTypes: true, signal }),
        (signal: AbortSignal) => fs.copyFile('/f', '/g', { signal }),
        async (signal: AbortSignal) => {
          for await (const _entry of fs.opendir('/t', { signal })) continue;
        },
      ]) {
        const abort = new AbortController();
        let count = 0;
        server.entryTypes = false;
        server.put('/f', pattern(300_000));
        // What tidies up is not cancelled.
        server.hold = (type) => {
          count += type === 120 ? 0 : 1;
          if (count !== at || type === 120) return false;
          void Promise.resolve().then(() => abort.abort());
          return true;
        };
        try {
          await operation(abort.signal);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ABORTED' });
        }
        server.hold = undefined;
        server.release();
      }
    }
    await leavesNothing(rig, fs);
  });

  it('rejects when the device fails while a flush is on its way', async () => {
    const { fs, server, device, driver } = await mounted();
    const abort = new AbortController();
    server.hold = () => true;
    device.onNotify = () => {
      if (abort.signal.aborted) device.automatic = false;
    };
    const reading = failure(() => fs.readFile('/f', { signal: abort.signal }));
    await settle();
    abort.abort();
    await settle();
    device.needsReset();
    expect(await reading).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a server that lies', () => {
  const lies: [string, number, (reply: Uint8Array) => Uint8Array, string][] = [
    ['another tag', WALK, (reply) => poke(reply, 5, 0x77), 'DEVICE_MISBEHAVED'],
    ['another type', WALK, (reply) => poke(reply, 4, 113), 'DEVICE_MISBEHAVED'],
    ['the type of a request', WALK, (reply) => poke(reply, 4, 110), 'DEVICE_MISBEHAVED'],
    ['no answer at all', WALK, () => new Uint8Array(0), 'DEVICE_MISBEHAVED'],
    ['only a header', WALK, (reply) => sized(reply.subarray(0, 7)), 'DEVICE_MISBEHAVED'],
    ['a part of a header', WALK, (reply) => reply.subarray(0, 6), 'DEVICE_MISBEHAVED'],
    ['a size that is not its own', WALK, (reply) => poke(reply, 0, 0xff), 'DEVICE_MISBEHAVED'],
    ['bytes behind its fields', WALK, (reply) => sized(Uint8Array.of(...reply, 1)), 'DEVICE_MISBEHAVED'],
    [
      'a part of its fields',
      WALK,
      (reply) => sized(reply.subarray(0, reply.length - 1)),
      'DEVICE_MISBEHAVED',
    ],
    ['more steps than were asked for', WALK, (reply) => steps(reply, 3), 'DEVICE_MISBEHAVED'],
    ['no step and no error, as v86 does', WALK, (reply) => steps(reply, 0), 'ENOENT'],
    ['65,535 steps', WALK, (reply) => poke(poke(reply, 7, 0xff), 8, 0xff), 'DEVICE_MISBEHAVED'],
    ['an error without a number', WALK, (reply) => refusal(reply, 0), 'DEVICE_MISBEHAVED'],
    [
      'an error that is cut off',
      WALK,
      (reply) => sized(refusal(reply, 2).subarray(0, 9)),
      'DEVICE_MISBEHAVED',
    ],
    [
      'an error with something behind it',
      WALK,
      (reply) => sized(Uint8Array.of(...refusal(reply, 2), 0)),
      'DEVICE_MISBEHAVED',
    ],
    ['more data than it counts', READ, (reply) => poke(reply, 7, 1), 'DEVICE_MISBEHAVED'],
    ['less data than it counts', READ, (reply) => poke(reply, 7, 200), 'DEVICE_MISBEHAVED'],
    ['more data than was asked for', READ, (reply) => data(reply, 5000), 'DEVICE_MISBEHAVED'],
    [
      'a count of 4 GiB',
      READ,
      (reply) => poke(poke(poke(poke(reply, 7, 255), 8, 255), 9, 255), 10, 255),
      'DEVICE_MISBEHAVED',
    ],
  ];

  it.each(lies)('sending %s gets a typed error, and goes on being asked', async (_what, type, lie, code) => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', pattern(100));
    const read = async () => {
      await using handle = await fs.open('/f');
      return (await handle.read(new Uint8Array(100))).bytesRead;
    };
    server.tamper = (reply, answered) => (answered === type ? lie(reply) : reply);
    expect(await failure(read)).toMatchObject({ code });
    const readSync = () => {
      using handle = fs.openSync('/f');
      return handle.readSync(new Uint8Array(100));
    };
    expect(readSync).toThrow(expect.objectContaining({ code }) as Error);
    server.tamper = undefined;
    expect(await read()).toBe(100);
    expect(rig.driver.failure).toBeUndefined();
    await fs.unmount();
    rig.driver[Symbol.dispose]();
    rig.device.assertClean();
  });

  it('with an error that Linux does not have is quoted', async () => {
    const rig = await mounted();
    rig.server.refuse = () => 4_000_000_000;
    const error = await failure(() => rig.fs.stat('/f'));
    expect(error).toMatchObject({ code: 'UNKNOWN', errno: -4_000_000_000 });
    rig.server.refuse = undefined;
    await leavesNothing(rig, rig.fs);
  });

  it('in a large read or write is found out as well', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', pattern(1_000_000));
    for (const lie of [
      (reply: Uint8Array) => poke(reply, 9, 0),
      (reply: Uint8Array) => poke(reply, 4, 119),
      (reply: Uint8Array) => poke(reply, 5, 99),
      (reply: Uint8Array) => reply.subarray(0, 9),
    ]) {
      let n = 0;
      server.tamper = (reply, type) => (type === READ && ++n === 3 ? lie(reply) : reply);
      expect(await failure(() => fs.readFile('/f'))).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    }
    server.tamper = (reply, type) => (type === 118 ? poke(reply, 9, 3) : reply);
    expect(await failure(() => fs.writeFile('/f', pattern(500_000)))).toMatchObject({
      code: 'DEVICE_MISBEHAVED',
    });
    server.tamper = (reply, type) => (type === 118 ? seal(119, reply[5] ?? 0, new Out().u32(0)) : reply);
    expect(await failure(() => fs.writeFile('/f', pattern(500_000)))).toMatchObject({ code: 'EIO' });
    server.tamper = undefined;
    await fs.unmount();
    rig.driver[Symbol.dispose]();
    rig.device.assertClean();
  });

  it('about a walk does not get the number of that fid again', async () => {
    const { fs, server } = await mounted();
    server.put('/f', bytes(''));
    server.tamper = (reply, type) => (type === WALK ? poke(reply, 4, 0) : reply);
    await failure(() => fs.stat('/f'));
    server.tamper = undefined;
    const ids = new Set(server.fids.keys());
    expect(ids.size).toBe(2);
    for (let i = 0; i < 10; i += 1) expect((await fs.stat('/f')).size).toBe(0);
  });

  const entries = (lie: (out: Out, n: number, cookie: bigint) => Out) => (server: MemoryServer) => {
    let n = 0;
    server.tamper = (reply, type) => {
      if (type !== 40) return reply;
      const body = lie(new Out(), n, BigInt(n)).take();
      n += 1;
      return seal(41, new DataView(reply.buffer).getUint16(5, true), new Out().u32(body.length).bytes(body));
    };
  };
  const entry = (out: Out, name: string, offset: bigint): Out =>
    out.u8(0).u32(0).u64(5n).u64(offset).u8(8).string(name);

  it.each<[string, (server: MemoryServer) => void, string]>([
    ['a name with a slash', entries((out) => entry(out, '../../etc/passwd', 1n)), 'DEVICE_MISBEHAVED'],
    ['a name with a zero byte', entries((out) => entry(out, 'a\0b', 1n)), 'DEVICE_MISBEHAVED'],
    ['an empty name', entries((out) => entry(out, '', 1n)), 'DEVICE_MISBEHAVED'],
    ['an entry that is cut off', entries((out) => entry(out, 'file', 1n).u8(0)), 'DEVICE_MISBEHAVED'],
    [
      'a name longer than the message',
      entries((out) => out.u8(0).u32(0).u64(5n).u64(1n).u8(8).u16(999)),
      'DEVICE_MISBEHAVED',
    ],
    ['the same place again and again', entries((out) => entry(out, 'file', 0n)), 'DEVICE_MISBEHAVED'],
    ['dots without end', entries((out, n) => entry(out, '..', BigInt(n + 1))), 'DEVICE_MISBEHAVED'],
  ])('in a directory, with %s, is found out', async (_what, prepare, code) => {
    const { fs, server } = await mounted();
    prepare(server);
    expect(await failure(() => fs.readdir('/'))).toMatchObject({ code });
    prepare(server);
    expect(() => fs.readdirSync('/', { withFileTypes: true })).toThrow(
      expect.objectContaining({ code }) as Error,
    );
    prepare(server);
    const iterate = async () => {
      for await (const _entry of fs.opendir('/')) continue;
    };
    expect(await failure(iterate)).toMatchObject({ code });
  });

  it('that a directory has no end is not followed without end', async () => {
    const { fs, server } = await mounted();
    const out = new Out();
    for (let i = 0; i < 1000; i += 1) entry(out, 'name', 0n);
    const body = out.take();
    let n = 0;
    server.tamper = (reply, type) => {
      if (type !== 40) return reply;
      // Only the last entry says where to go on.
      new DataView(body.buffer).setUint32(body.length - 4 - 2 - 1 - 8, ++n, true);
      return seal(41, new DataView(reply.buffer).getUint16(5, true), new Out().u32(body.length).bytes(body));
    };
    expect(await failure(() => fs.readdir('/'))).toMatchObject({ code: 'EOVERFLOW' });
    let seen = 0;
    for await (const _entry of fs.opendir('/')) if (++seen === 5000) break;
    expect(seen).toBe(5000);
    // A million entries take their time on a busy machine.
  }, 120_000);

  it.each([1, 2, 3, 7, 100])('that cookies lead in a circle of %i is found out at once', async (circle) => {
    const { fs, server } = await mounted();
    let n = 0;
    server.tamper = (reply, type) => {
      if (type !== 40) return reply;
      n += 1;
      // A few answers lead into the circle.
      const cookie = BigInt(n <= 5 ? n : 5 + ((n - 5) % circle));
      const body = entry(new Out(), `f${n}`, cookie).take();
      return seal(41, new DataView(reply.buffer).getUint16(5, true), new Out().u32(body.length).bytes(body));
    };
    for (const list of [
      () => fs.readdir('/'),
      () => fs.readdir('/', { recursive: true }),
      () => Promise.resolve().then(() => fs.readdirSync('/')),
      async () => {
        for await (const _entry of fs.opendir('/')) continue;
      },
    ]) {
      n = 0;
      expect(await failure(list)).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
      expect(n).toBeLessThanOrEqual(3 * (5 + circle));
    }
    server.tamper = undefined;
    expect(await fs.readdir('/')).toEqual([]);
  });

  it('that a tree has no bottom is not followed without end', async () => {
    const { fs, server } = await mounted();
    const loop = server.put('/loop', 'directory');
    loop.entries.set('loop', loop);
    expect(await failure(() => fs.rm('/loop', { recursive: true }))).toMatchObject({ code: 'ELOOP' });
  });

  it('about attributes and links is found out', async () => {
    const { fs, server } = await mounted();
    server.put('/f', bytes('')).xattrs.set('user.a', bytes('abc'));
    server.put('/l', 'a\0b');
    expect(await failure(() => fs.readlink('/l'))).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    const claim = (size: bigint): void => {
      server.tamper = (reply, type) =>
        type === 30 ? seal(31, new DataView(reply.buffer).getUint16(5, true), new Out().u64(size)) : reply;
    };
    claim(1n << 40n);
    expect(await failure(() => fs.getxattr('/f', 'user.a'))).toMatchObject({ code: 'E2BIG' });
    claim(4n);
    expect(await failure(() => fs.getxattr('/f', 'user.a'))).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
  });

  it('at random does no harm: each call ends, with a result or a typed error', async () => {
    const { fs, server, driver, device } = await mounted();
    for (let i = 0; i < 5; i += 1) server.put(`/d/f${i}`, pattern(20_000));
    server.put('/d/l', 'f0');
    const attempts: (() => Promise<unknown>)[] = [
      () => fs.readFile('/d/l'),
      () => fs.writeFile('/d/g', pattern(30_000)),
      () => fs.readdir('/d', { withFileTypes: true }),
      () => fs.stat('/d/l'),
      () => fs.listxattr('/d/f0'),
      () => fs.setxattr('/d/f0', 'user.a', bytes('x')),
      () => fs.rename('/d/f1', '/d/f2'),
      () => fs.mkdir('/x/y', { recursive: true }),
      () => fs.rm('/x', { recursive: true, force: true }),
      () => fs.copyFile('/d/f3', '/d/f4'),
      () => fs.statfs('/'),
      () => fs.realpath('/d/../d/l'),
      async () => {
        await using handle = await fs.open('/d/g', 'a+');
        await handle.lock();
        await handle.getLock();
        await handle.write('x');
        for await (const _piece of handle.createReadStream()) continue;
      },
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...attempts),
        fc.array(fc.record({ at: fc.nat(40), value: fc.nat(255), skip: fc.nat(12), cut: fc.nat(60) }), {
          minLength: 1,
          maxLength: 4,
        }),
        async (attempt, changes) => {
          let n = 0;
          server.tamper = (reply) => {
            const change = changes.find(({ skip }) => skip === n);
            n += 1;
            if (!change) return reply;
            const changed = poke(reply, change.at % reply.length, change.value);
            return change.cut < 20 ? sized(changed.subarray(0, Math.max(7, change.cut))) : changed;
          };
          try {
            await attempt();
          } catch (error) {
            // By name: small engines do not have the class, and what compiles `using` for them makes one of its own.
            const both = error as SuppressedError;
            const errors: unknown[] =
              both.name === 'SuppressedError' ? [both.error, both.suppressed] : [error];
            for (const one of errors) {
              expect(one instanceof P9Error || one instanceof VirtioError, String(one)).toBe(true);
            }
          }
          server.tamper = undefined;
          expect(driver.failure).toBeUndefined();
        },
      ),
      { numRuns: 400 },
    );
    await fs.remount();
    expect((await fs.readFile('/d/f3')).length).toBeGreaterThan(0);
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('when the device fails', () => {
  it('requests reject, and after a reset the tree can be mounted again; handles are stale', async () => {
    const rig = await mounted();
    const { fs, server, device, driver } = rig;
    server.put('/f', bytes('still here'));
    const handle = await fs.open('/f');
    server.hold = () => true;
    const reading = failure(() => fs.readFile('/f'));
    await settle();
    device.needsReset();
    expect(await reading).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    expect(await failure(() => fs.readFile('/f'))).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    server.hold = undefined;
    server.held.length = 0;
    driver.reset();
    expect(await failure(() => fs.readFile('/f'))).toMatchObject({ code: 'DEVICE_RESET' });
    await fs.remount();
    expect(await fs.readFile('/f', 'utf8')).toBe('still here');
    expect(await failure(() => handle.read(new Uint8Array(1)))).toMatchObject({ code: 'ESTALE', path: '/f' });
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('a reset in the middle of everything loses no memory and no tag', async () => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, device, driver } = rig;
    server.put('/f', pattern(3_000_000));
    for (let round = 0; round < 5; round += 1) {
      // Reads, too: a file must not be read before the reset.
      server.hold = (type) => type === READ || type === [READ, WALK, 120, 24, 12][round];
      const going = [
        failure(() => fs.readFile('/f')),
        failure(() => fs.readFile('/f')),
        failure(async () => {
          await fs.stat('/f');
          await fs.stat('/f');
          throw new VirtioError('DEVICE_RESET', 'it was quicker');
        }),
      ];
      await settle(50);
      device.automatic = false;
      driver.reset();
      server.held.length = 0;
      server.hold = undefined;
      device.automatic = true;
      for (const error of await Promise.all(going)) expect(error).toMatchObject({ code: 'DEVICE_RESET' });
      await fs.remount();
      expect(same(await fs.readFile('/f'), pattern(3_000_000))).toBe(true);
    }
    expect(fs.client.inFlight).toBeLessThan(3);
    await leavesNothing(rig, fs);
  });

  it('a removal ends everything, and taking leave is quiet', async () => {
    const { fs, server, device, driver } = await mounted();
    server.hold = () => true;
    const reading = failure(() => fs.readFile('/f'));
    await settle();
    device.remove();
    expect(await reading).toMatchObject({ code: 'DEVICE_REMOVED' });
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('a server that never answers a synchronous request is not waited for without end', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', pattern(100));
    server.hold = () => true;
    let time = 0;
    const now = vi.spyOn(Date, 'now').mockImplementation(() => (time += 5000));
    expect(() => fs.readFileSync('/f')).toThrow(expect.objectContaining({ code: 'NOT_READY' }) as Error);
    now.mockRestore();
    // The memory of its message is not used for another one before the device has given it back.
    const [stuck] = tagsOf(server);
    server.hold = undefined;
    server.log.length = 0;
    for (let i = 0; i < 5; i += 1) fs.statSync('/f');
    expect(server.log.some(({ tag }) => tag === stuck)).toBe(false);
    const free = fs.client.inFlight;
    server.release();
    fs.statSync('/f');
    expect(fs.client.inFlight).toBeLessThan(free);
    await rig.fs.unmount();
    rig.driver[Symbol.dispose]();
    rig.device.assertClean();
  });
});

describe('P9Client', () => {
  it('has a task for each message, to be run in either way', async () => {
    const { driver, server } = setUp();
    server.put('/d/f', bytes('hello'));
    const client = new P9Client(driver);
    client.runSync(client.connect());
    const walk = await client.run(client.walk(client.root, ['d', 'f']));
    expect(walk.qids).toHaveLength(2);
    const fid = walk.fid;
    if (!fid) throw new Error('the walk did not come to its end');
    client.runSync(client.open(fid, OpenFlag.RDWR));
    const buffer = new Uint8Array(5);
    expect(await client.run(client.read(fid, buffer, 0))).toBe(5);
    expect(buffer).toEqual(bytes('hello'));
    await client.run(client.clunk(fid));
    expect(await failure(() => client.run(client.getattr(fid)))).toMatchObject({
      code: 'EBADF',
      syscall: 'Tgetattr',
    });
    const partial = await client.run(client.walk(client.root, ['d', 'no', 'x']));
    expect([partial.fid, partial.qids.length]).toEqual([undefined, 1]);
    const each = await client.run(client.walkEach(client.root, ['d', 'no', 'd']));
    expect(each.map((found) => found !== undefined)).toEqual([true, false, true]);
    for (const found of each) client.runSync(client.forget(found));
    const dir = (await client.run(client.walk(client.root, ['d']))).fid;
    if (!dir) throw new Error('the walk did not come to its end');
    await client.run(client.create(dir, 'new', OpenFlag.WRONLY, 0o600, 0));
    await client.run(client.remove(dir));
    expect(server.find('/d/new')).toBeUndefined();
    await client.run(client.disconnect());
    expect([...server.fids.keys()]).toEqual([]);
  });
});

/** A reply with one byte changed. */
function poke(reply: Uint8Array, at: number, value: number): Uint8Array {
  const changed = reply.slice();
  changed[at] = value;
  return changed;
}

/** A reply whose size is that of its bytes. */
function sized(reply: Uint8Array): Uint8Array {
  const changed = reply.slice();
  new DataView(changed.buffer).setUint32(0, changed.length, true);
  return changed;
}

/** A reply to a walk with as many steps as this. */
function steps(reply: Uint8Array, count: number): Uint8Array {
  const out = new Out().u16(count);
  for (let i = 0; i < count; i += 1) out.u8(0).u32(0).u64(BigInt(i));
  return seal(111, new DataView(reply.buffer).getUint16(5, true), out);
}

/** A reply to a read with as many bytes as this. */
function data(reply: Uint8Array, count: number): Uint8Array {
  return seal(
    117,
    new DataView(reply.buffer).getUint16(5, true),
    new Out().u32(count).bytes(new Uint8Array(count)),
  );
}
