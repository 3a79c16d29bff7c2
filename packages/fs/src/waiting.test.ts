/** Waiting for the server: time-outs, cancelled waits, requests that no task waits for any more, and too few tags. */
import { describe, expect, it, vi } from 'vitest';
import { fsDevice } from '../test/contract-subject.ts';
import { encode, FILE, Held, message, open, serve } from '../test/set-up.ts';
import { FuseFileSystem, Opcode, Out } from './index.ts';

const notReady = expect.objectContaining({ code: 'NOT_READY' }) as Error;
const busy = expect.objectContaining({ code: 'DEVICE_BUSY' }) as Error;
const attributes = encode(Out.attr, { ino: 7n, mode: FILE, size: 5n });

/** A device whose queue has room for one request, and a server that holds back all requests with an opcode of `opcodes`. */
async function narrow(...opcodes: number[]) {
  const { device, driver } = open(fsDevice(0n, 4));
  const held = new Held();
  const holds = new Set<number>();
  const { seen, forgotten } = serve(
    device,
    (asked) => holds.has(asked.opcode) && asked.nodeid !== 1n && held.hold(asked),
  );
  const fs = await FuseFileSystem.mount(driver);
  for (const opcode of opcodes) holds.add(opcode);
  seen.length = 0;
  const end = async (): Promise<void> => {
    holds.clear();
    while (held.count > 0) held.answer(attributes);
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { device, driver, fs, held, holds, seen, forgotten, end };
}

const settled = async (): Promise<void> => {
  for (let i = 0; i < 50; i += 1) await Promise.resolve();
};

describe('a tag that becomes free', () => {
  it('goes to the next task if the one that was woken for it is cancelled', async () => {
    const { fs, held, end } = await narrow(Opcode.GETATTR);
    const first = fs.stat('/file');
    await vi.waitFor(() => expect(held.count).toBe(1));
    const abort = new AbortController();
    const second = fs.access('/', { signal: abort.signal });
    const third = fs.access('/');
    await settled();
    held.answer(attributes);
    abort.abort();
    await expect(second).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(third).resolves.toBeUndefined();
    expect((await first).size).toBe(5);
    await end();
  });

  it('goes to the next task if the request of the one that was woken for it cannot be sent', async () => {
    const { fs, held, end } = await narrow(Opcode.GETATTR);
    const first = fs.stat('/file');
    await vi.waitFor(() => expect(held.count).toBe(1));
    const second = fs.access(`/${'x'.repeat(9000)}`);
    const third = fs.access('/');
    await settled();
    held.answer(attributes);
    await expect(second).rejects.toMatchObject({ code: 'ENAMETOOLONG' });
    await expect(third).resolves.toBeUndefined();
    await first;
    await end();
  });

  it('is not waited for by tasks of a session that has ended', async () => {
    const { driver, device, fs, held } = await narrow(Opcode.GETATTR);
    const first = fs.stat('/file');
    await vi.waitFor(() => expect(held.count).toBe(1));
    const waiting = [fs.access('/'), fs.access('/')];
    await settled();
    const abort = new AbortController();
    const leaving = fs.unmount({ signal: abort.signal });
    abort.abort();
    await leaving.catch(() => undefined);
    for (const access of waiting) await expect(access).rejects.toMatchObject({ code: 'NOT_READY' });
    held.answer(attributes);
    await first.catch(() => undefined);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a file whose task is cancelled', () => {
  it('is closed when there is a tag for that, and nobody waits until then', async () => {
    const { fs, held, seen, forgotten, end } = await narrow(Opcode.GETATTR);
    const handle = await fs.open('/file');
    const { client } = fs;
    const abort = new AbortController();
    let hanging: Promise<unknown> | undefined;
    const task = (function* () {
      const { fid } = yield* client.walk(client.root, ['file']);
      if (fid === undefined) throw new Error('there is no file');
      try {
        yield* client.open(fid, 0);
        // It takes the one tag.
        hanging = handle.stat();
        yield* client.getattr(client.root);
      } finally {
        yield* client.forget(fid);
      }
    })();
    const cancelled = client.run(task, { signal: abort.signal });
    await vi.waitFor(() => expect(held.count).toBe(1));
    abort.abort();
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED' });
    expect(seen).not.toContain(Opcode.RELEASE);
    held.answer(attributes);
    await hanging;
    await settled();
    expect(seen.filter((opcode) => opcode === Opcode.RELEASE)).toHaveLength(1);
    expect(forgotten).toEqual([]);
    await handle.close();
    // Two lookups of one node: it is forgotten once.
    expect(forgotten).toEqual([{ nodeid: 7n, nlookup: 2n }]);
    await end();
  });
});

describe('a session', () => {
  it('does not get requests of tasks of an earlier one: nodes and handles may be those of other files', async () => {
    const { driver, fs, held, holds, seen, end } = await narrow(Opcode.GETATTR);
    const handle = await fs.open('/file', 'r+');
    const first = handle.stat();
    await vi.waitFor(() => expect(held.count).toBe(1));
    const late = handle.write('x', { position: 0 });
    await settled();
    const lost = expect(first).rejects.toMatchObject({ code: 'DEVICE_RESET' });
    const refused = expect(late).rejects.toMatchObject({ code: 'ESTALE' });
    holds.clear();
    driver.reset();
    await fs.remount();
    await lost;
    await refused;
    expect(seen).not.toContain(Opcode.WRITE);
    await end();
  });
});

describe('the device of a session that was cut short', () => {
  it('can be mounted again when it has answered what it was asked', () => {
    const { device, driver } = open();
    const held = new Held();
    let holds = true;
    serve(device, (asked) => holds && asked.opcode === Opcode.RELEASE && held.hold(asked));
    const first = FuseFileSystem.mountSync(driver);
    first.readFileSync('/file');
    expect(() => first.unmountSync({ timeoutMs: 0 })).toThrow(notReady);
    expect(() => FuseFileSystem.mountSync(driver)).toThrow(busy);
    holds = false;
    held.answer();
    const second = FuseFileSystem.mountSync(driver);
    expect(second.readFileSync('/file', 'utf8')).toBe('hello');
    expect(first.client.inFlight).toBe(0);
    second.unmountSync();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('can be mounted again if the end of the session was aborted', async () => {
    const { device, driver } = open();
    const held = new Held();
    let holds = true;
    serve(device, (asked) => holds && asked.opcode === Opcode.DESTROY && held.hold(asked));
    const first = await FuseFileSystem.mount(driver);
    const abort = new AbortController();
    const leaving = first.unmount({ signal: abort.signal });
    await vi.waitFor(() => expect(held.count).toBe(1));
    abort.abort();
    await expect(leaving).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(FuseFileSystem.mount(driver)).rejects.toThrow(busy);
    holds = false;
    held.answer();
    const second = await FuseFileSystem.mount(driver);
    expect(await second.readFile('/file', 'utf8')).toBe('hello');
    await second.unmount();
    expect(driver.inFlight).toBe(0);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('can be mounted when a request of another user was answered late', () => {
    const { device, driver } = open();
    const held = new Held();
    serve(device, (asked) => asked.opcode === Opcode.STATFS && held.hold(asked));
    const request = message(Opcode.STATFS);
    expect(() =>
      driver.requestSync(request, new Uint8Array(96), undefined, undefined, { timeoutMs: 0 }),
    ).toThrow(notReady);
    expect(() => FuseFileSystem.mountSync(driver)).toThrow(busy);
    held.answer();
    FuseFileSystem.mountSync(driver).unmountSync();
    expect(driver.failure).toBeUndefined();
    driver[Symbol.dispose]();
    device.assertClean();
  });
});
