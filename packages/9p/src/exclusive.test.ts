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
});
