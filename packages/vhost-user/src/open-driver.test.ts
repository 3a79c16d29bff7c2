import { VirtioBlk } from '@virtio/blk';
import type { LinuxHal } from '@virtio/linux';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { FakeBackend, temporarySocket } from '../test/fake-backend.ts';
import { openDriver, type VhostUserHal } from './index.ts';

/** An address of which the types say nothing. */
const unknown = (address: string): string => address;

describe('openDriver', () => {
  it('opens a device by the path of its socket, and closes it with the driver', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    {
      using disk = await openDriver(VirtioBlk, `vhost-user:${socket.path}`, {
        memorySize: 4 << 20,
        hugePages: false,
        without: ['EVENT_IDX'],
      });
      expectTypeOf(disk.hal).toExtend<VhostUserHal>();
      expect(disk.features.has('EVENT_IDX')).toBe(false);
      using buffer = disk.hal.alloc(512);
      await disk.read(0, buffer.bytes);
    }
    expect((await backend.state()).connections).toBe(1);
    // It serves one front end at a time.
    using next = await openDriver(VirtioBlk, unknown(`vhost-user:${socket.path}`));
    expectTypeOf(next.hal).toExtend<LinuxHal>();
    await next.read(0, new Uint8Array(512));
  });

  it('leaves other addresses to @virtio/linux', async () => {
    await expect(openDriver(VirtioBlk, 'pci:fffe:ff:1f.7')).rejects.toMatchObject({ code: 'NO_DEVICE' });
    await expect(openDriver(VirtioBlk, 'mmio:0xfeb00000')).rejects.toMatchObject({ code: 'IOMMU_MISSING' });
    await expect(openDriver(VirtioBlk, 'eth0')).rejects.toMatchObject({ code: 'INVALID_PARAM' });
  });

  it('says of a path how the address of its socket is written', async () => {
    await expect(openDriver(VirtioBlk, unknown('/tmp/disk.sock'))).rejects.toMatchObject({
      code: 'INVALID_PARAM',
      message: expect.stringContaining('vhost-user:/tmp/disk.sock') as string,
    });
  });

  it('refuses what cannot be, and leaves nothing open', async () => {
    await expect(openDriver(VirtioBlk, 'vhost-user:/nonexistent/socket')).rejects.toMatchObject({
      code: 'NO_DEVICE',
    });
    await expect(
      openDriver(VirtioBlk, unknown('vhost-user:/nonexistent/socket'), { interrupts: 'msix' }),
    ).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    class Broken extends VirtioBlk {
      constructor(...args: ConstructorParameters<typeof VirtioBlk>) {
        super(...args);
        throw new Error('no driver');
      }
    }
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    await expect(openDriver(Broken, `vhost-user:${socket.path}`)).rejects.toThrow('no driver');
    using disk = await openDriver(VirtioBlk, `vhost-user:${socket.path}`, { timeoutMs: 20_000 });
    expect((await backend.state()).connections).toBe(2);
    await disk.read(0, new Uint8Array(512));
  });
});
