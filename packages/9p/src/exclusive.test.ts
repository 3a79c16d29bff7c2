import { describe, expect, it } from 'vitest';
import { failure, leavesNothing, mounted, setUp, settle } from '../test/set-up.ts';
import { P9Client, P9FileSystem } from './index.ts';

describe('a device has one client', () => {
  it('refuses to be mounted twice, and the first goes on', async () => {
    const rig = await mounted();
    const { fs, driver, server } = rig;
    const handle = await fs.open('/mine', 'w+');
    await handle.write('untouched');
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'ALREADY_USED' });
    expect(() => P9FileSystem.mountSync(driver)).toThrow(
      expect.objectContaining({ code: 'ALREADY_USED' }) as Error,
    );
    const client = new P9Client(driver);
    expect(await failure(() => client.run(client.connect()))).toMatchObject({ code: 'ALREADY_USED' });
    expect(await handle.readFile('utf8')).toBe('');
    expect((await handle.read(new Uint8Array(9), { position: 0 })).bytesRead).toBe(9);
    await handle.close();
    expect(new TextDecoder().decode(server.find('/mine')?.bytes)).toBe('untouched');
    await leavesNothing(rig, fs);
  });

  it('refuses while another mounts it or takes leave, and takes the next afterwards', async () => {
    const rig = setUp();
    const mounting = P9FileSystem.mount(rig.driver);
    expect(await failure(() => P9FileSystem.mount(rig.driver))).toMatchObject({ code: 'ALREADY_USED' });
    const first = await mounting;
    rig.server.hold = (type) => type === 120;
    const leaving = first.unmount();
    await settle();
    expect(await failure(() => P9FileSystem.mount(rig.driver))).toMatchObject({ code: 'ALREADY_USED' });
    rig.server.hold = undefined;
    rig.server.release();
    await leaving;
    await leavesNothing(rig, await P9FileSystem.mount(rig.driver));
  });

  it('is free again after a mount that failed', async () => {
    const rig = setUp();
    rig.server.version = '9P2000.u';
    expect(await failure(() => P9FileSystem.mount(rig.driver))).toMatchObject({ code: 'UNSUPPORTED' });
    rig.server.version = '9P2000.L';
    await leavesNothing(rig, await P9FileSystem.mount(rig.driver));
  });

  it('is free again after a reset, and the client of before is not let in while there is another', async () => {
    const rig = await mounted();
    const { fs: first, driver } = rig;
    driver.reset();
    const second = await P9FileSystem.mount(driver);
    expect(await failure(() => first.remount())).toMatchObject({ code: 'ALREADY_USED' });
    expect(await failure(() => first.stat('/'))).toMatchObject({ code: 'DEVICE_RESET' });
    expect((await second.stat('/')).isDirectory()).toBe(true);
    // To take leave twice, or late, takes nothing from the other.
    await first.unmount();
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'ALREADY_USED' });
    await second.unmount();
    await leavesNothing(rig, await P9FileSystem.mount(driver));
  });

  it('is not taken while requests of someone else are in flight', async () => {
    const { driver, server } = setUp();
    server.hold = () => true;
    const message = Uint8Array.of(11, 0, 0, 0, 120, 1, 0, 9, 0, 0, 0);
    const raw = failure(() => driver.request(message, new Uint8Array(64)));
    await settle();
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'DEVICE_BUSY' });
    driver[Symbol.dispose]();
    expect(await raw).toMatchObject({ code: 'DISPOSED' });
  });

  it('sends nothing of a client that took leave: its handles do not reach files of the next one', async () => {
    const rig = await mounted();
    const { fs: first, driver, server } = rig;
    const old = await first.open('/mine', 'w+');
    await first.unmount();
    expect(await failure(() => old.read(new Uint8Array(1), { position: 0 }))).toMatchObject({
      code: 'ESTALE',
    });
    const second = await P9FileSystem.mount(driver);
    const handle = await second.open('/other', 'w+');
    await handle.write('untouched');
    expect(await failure(() => old.write('mine', { position: 0 }))).toMatchObject({ code: 'ESTALE' });
    expect(() => old.truncateSync(0)).toThrow(expect.objectContaining({ code: 'ESTALE' }) as Error);
    await old.close();
    expect((await handle.read(new Uint8Array(9), { position: 0 })).bytesRead).toBe(9);
    expect(new TextDecoder().decode(server.find('/other')?.bytes)).toBe('untouched');
    expect(await failure(() => first.client.run(first.client.attach('root', 0, '')))).toMatchObject({
      code: 'NOT_READY',
    });
    await handle.close();
    await leavesNothing(rig, second);
  });

  it('can be left with a signal while the server still forgets files', async () => {
    for (const late of [false, true]) {
      const rig = await mounted();
      const { fs, server, driver, device } = rig;
      server.put('/f', new Uint8Array(1));
      server.hold = (type) => type === 120;
      await fs.stat('/f');
      const abort = new AbortController();
      const leaving = fs.unmount({ signal: abort.signal });
      await settle();
      expect(server.held).toHaveLength(1);
      server.hold = undefined;
      server.release();
      // The answer is there: it is too late.
      if (late) abort.abort();
      await leaving;
      expect(server.fids.size).toBe(0);
      driver[Symbol.dispose]();
      device.assertClean();
    }
  });

  it('does not use the number of a fid again whose clunk is answered after the next session has begun', async () => {
    const rig = await mounted();
    const { fs, server } = rig;
    server.put('/f', new Uint8Array(1));
    const old = await fs.open('/f');
    server.hold = (type) => type === 120;
    const closing = old.close();
    await settle();
    await fs.remount();
    server.hold = undefined;
    server.release();
    expect(await failure(() => closing)).toMatchObject({ code: 'EBADF' });
    const handles = await Promise.all(Array.from({ length: 8 }, () => fs.open('/f')));
    expect(new Set(handles.map(({ fd }) => fd)).size).toBe(8);
    for (const handle of handles) await handle.close();
    expect(fs.client.fidsInUse).toBe(1);
    await leavesNothing(rig, fs);
  });
});

describe('the device of a client whose leave was cut short', () => {
  it('takes the next client when it has answered', async () => {
    const rig = await mounted();
    const { fs: first, driver, server } = rig;
    server.put('/f', new Uint8Array(1));
    server.hold = (type) => type === 120;
    expect(first.statSync('/f').size).toBe(1);
    expect(() => first.unmountSync({ timeoutMs: 0 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }) as Error,
    );
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'DEVICE_BUSY' });
    server.hold = undefined;
    server.release();
    const second = await P9FileSystem.mount(driver);
    expect(second.statSync('/f').size).toBe(1);
    expect(first.client.inFlight).toBe(0);
    await leavesNothing(rig, second);
  });

  it('takes the next client after an abort, too', async () => {
    const rig = await mounted();
    const { fs: first, driver, server } = rig;
    server.hold = (type) => type === 120;
    const abort = new AbortController();
    const leaving = failure(() => first.unmount({ signal: abort.signal }));
    await settle();
    abort.abort();
    expect(await leaving).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'DEVICE_BUSY' });
    server.hold = undefined;
    server.release();
    await leavesNothing(rig, await P9FileSystem.mount(driver));
  });

  it('takes the first one when a request of another user was answered late', async () => {
    const rig = setUp();
    const { driver, server } = rig;
    server.hold = () => true;
    const message = Uint8Array.of(11, 0, 0, 0, 120, 1, 0, 9, 0, 0, 0);
    expect(() =>
      driver.requestSync(message, new Uint8Array(64), undefined, undefined, { timeoutMs: 0 }),
    ).toThrow(expect.objectContaining({ code: 'NOT_READY' }) as Error);
    expect(await failure(() => P9FileSystem.mount(driver))).toMatchObject({ code: 'DEVICE_BUSY' });
    server.hold = undefined;
    server.release();
    await leavesNothing(rig, await P9FileSystem.mount(driver));
  });
});
