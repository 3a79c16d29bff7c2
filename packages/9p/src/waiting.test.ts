/** Waiting for the server: time-outs, cancelled waits, and requests that nobody waits for any more. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { bytes, failure, leavesNothing, mounted, pattern, same, settle } from '../test/set-up.ts';
import type { P9FileSystem } from './index.ts';

const GETATTR = 24;
const READ = 116;
const CLUNK = 120;

/** A clock that goes on by so many milliseconds each time that it is looked at. Returns the time that went by. */
function clock(step: number): () => number {
  let time = 0;
  vi.spyOn(Date, 'now').mockImplementation(() => (time += step));
  return () => time;
}

describe('a synchronous call', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('takes the time of one answer, however many requests are in flight', async () => {
    const { fs, server, driver, device } = await mounted({}, { msize: 131_096 });
    server.put('/f', pattern(4_000_000));
    const handle = fs.openSync('/f');
    server.hold = (type) => type === READ;
    const elapsed = clock(10);
    const buffer = new Uint8Array(4_000_000);
    expect(() => handle.readSync(buffer, { position: 0, timeoutMs: 1000 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }) as Error,
    );
    expect(server.held.length).toBeGreaterThan(25);
    expect(elapsed()).toBeLessThan(3000);
    vi.restoreAllMocks();
    // The late answers reach nobody, and their tags are free again.
    server.hold = undefined;
    server.release();
    expect(buffer.every((byte) => byte === 0)).toBe(true);
    const again = new Uint8Array(4_000_000);
    expect(handle.readSync(again, { position: 0 })).toBe(again.length);
    expect(same(again, pattern(4_000_000))).toBe(true);
    expect(buffer.every((byte) => byte === 0)).toBe(true);
    handle.closeSync();
    fs.unmountSync();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('that times out as often as there are tags leaves them to others when the server has answered', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', pattern(100));
    server.hold = () => true;
    clock(10);
    for (let i = 0; i < fs.client.capacity; i += 1) {
      expect(() => fs.statSync('/f', { timeoutMs: 20 })).toThrow(
        expect.objectContaining({ code: 'NOT_READY' }) as Error,
      );
    }
    expect(() => fs.statSync('/f', { timeoutMs: 20 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }) as Error,
    );
    vi.restoreAllMocks();
    const waiting = fs.stat('/f');
    await settle();
    server.hold = undefined;
    server.release();
    expect((await waiting).size).toBe(100);
    expect(fs.statSync('/f').size).toBe(100);
    await fs.unmount();
    rig.driver[Symbol.dispose]();
    rig.device.assertClean();
  });

  it('tells others of the answers that it came across', async () => {
    const rig = await mounted();
    const { fs, server, device } = rig;
    server.put('/f', pattern(100));
    device.automatic = false;
    const waiting = fs.stat('/f');
    await settle();
    device.automatic = true;
    device.run();
    expect(fs.statSync('/f').size).toBe(100);
    expect((await waiting).size).toBe(100);
    await leavesNothing(rig, fs);
  });

  it('ends when a listener resets the device, and so do those who wait with promises', async () => {
    const { fs, server, device, driver } = await mounted();
    driver.on('failure', () => driver.reset());
    server.hold = () => true;
    const waiting = failure(() => fs.stat('/'));
    await settle();
    device.onNotify = () => device.needsReset();
    const error = await failure(() => fs.statSync('/'));
    expect(error).toMatchObject({ code: /DEVICE_(NEEDS_)?RESET/ });
    device.onNotify = undefined;
    expect(await waiting).toMatchObject({ code: 'DEVICE_RESET' });
    expect(driver.failure).toBeUndefined();
    server.hold = undefined;
    server.held.length = 0;
    await fs.remount();
    expect((await fs.stat('/')).isDirectory()).toBe(true);
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a wait that is cancelled', () => {
  it.each<[string, (fs: P9FileSystem, signal: AbortSignal) => Promise<unknown>]>([
    ['writeFile', (fs, signal) => fs.writeFile('/f', 'x', { signal })],
    ['setxattr', (fs, signal) => fs.setxattr('/f', 'user.a', bytes('x'), { signal })],
    ['unmount', (fs, signal) => fs.unmount({ signal })],
  ])('for a file to be closed does not wait for a server that hangs: %s', async (_name, attempt) => {
    const { fs, server, driver, device } = await mounted();
    server.put('/f', bytes(''));
    const abort = new AbortController();
    server.hold = (type) => type === CLUNK;
    const waiting = failure(() => attempt(fs, abort.signal));
    await settle(100);
    expect(server.held.length).toBeGreaterThan(0);
    abort.abort();
    expect(await waiting).toMatchObject({ code: 'ABORTED' });
    server.hold = undefined;
    server.release();
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('does not wait for a tag to close a file, and the file is closed when there is one', async () => {
    // Room for two requests, of which one is kept for cancellations.
    const rig = await mounted({ queues: [8], features: 0n });
    const { fs, server } = rig;
    server.put('/f', bytes('x'));
    const handle = await fs.open('/f');
    const { client } = fs;
    const abort = new AbortController();
    let hanging: Promise<unknown> | undefined;
    const task = (function* () {
      const { fid } = yield* client.walk(client.root, ['f']);
      if (fid === undefined) throw new Error('there is no file');
      try {
        yield* client.open(fid, 0);
        server.hold = (type) => type === GETATTR;
        hanging = handle.stat();
        yield* client.getattr(client.root);
      } finally {
        yield* client.forget(fid);
      }
    })();
    const cancelled = failure(() => client.run(task, { signal: abort.signal }));
    await settle(50);
    expect(server.held).toHaveLength(1);
    abort.abort();
    expect(await cancelled).toMatchObject({ code: 'ABORTED' });
    expect(server.fids.size).toBe(3);
    server.hold = undefined;
    server.release();
    await hanging;
    await settle(50);
    expect(server.fids.size).toBe(2);
    await handle.close();
    await leavesNothing(rig, fs);
  });

  it('leaves nothing that keeps the event loop alive, nor do clunks that are not waited for', async () => {
    const { fs, server, driver, transport, device } = await mounted();
    server.put('/f', bytes(''));
    server.hold = (type) => type === CLUNK;
    expect((await fs.stat('/f')).size).toBe(0);
    expect(server.held).toHaveLength(1);
    expect(transport.interrupts?.holds).toBe(0);
    const abort = new AbortController();
    const waiting = failure(() => fs.writeFile('/f', 'x', { signal: abort.signal }));
    await settle(100);
    expect(transport.interrupts?.holds).toBeGreaterThan(0);
    abort.abort();
    expect(await waiting).toMatchObject({ code: 'ABORTED' });
    expect(transport.interrupts?.holds).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a buffer that its caller transfers while the server has the request', () => {
  // Below and above what is copied next to its header; and in many messages.
  it.each([100, 40_000, 6_000_000])('ends the read or write of %i bytes, and no other', async (size) => {
    const rig = await mounted({}, { msize: 131_096 });
    const { fs, server, driver } = rig;
    server.put('/f', pattern(size));
    const handle = await fs.open('/f', 'r+');
    server.hold = () => true;
    const into = new Uint8Array(size);
    const from = pattern(size, 2);
    const read = handle.read(into, { position: 0 });
    const written = handle.write(from, { position: 0 });
    for (const ended of [read, written]) ended.catch(() => undefined);
    await settle();
    into.buffer.transfer();
    from.buffer.transfer();
    server.hold = undefined;
    server.release();
    const refused = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    await expect(read).rejects.toThrow(refused);
    // What fits the window was sent before.
    if (size > 1_000_000) await expect(written).rejects.toThrow(refused);
    else expect((await written).bytesWritten).toBe(size);
    expect(driver.failure).toBeUndefined();
    await handle.write(pattern(size, 3), { position: 0 });
    const again = new Uint8Array(size);
    await handle.read(again, { position: 0 });
    expect(same(again, pattern(size, 3))).toBe(true);
    await handle.close();
    await leavesNothing(rig, fs);
  });
});
