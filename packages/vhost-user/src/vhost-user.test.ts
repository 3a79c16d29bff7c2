import { VirtioBlk } from '@virtio/blk';
import { DeviceType, VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { Disk, FakeBackend, FEATURES, PACKED, PROTOCOL, temporarySocket } from '../test/fake-backend.ts';
import { openVhostUser, type VhostUserDevice, type VhostUserOptions } from './index.ts';

const BLOCK: VhostUserOptions = { deviceType: DeviceType.Block, timeoutMs: 1000, hugePages: false };

describe('openVhostUser', () => {
  it('drives a disk', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, {}, { disk });
    using device = await openVhostUser(`vhost-user:${socket.path}`, BLOCK);
    using blk = new VirtioBlk(device.transport, device.hal);
    expect(blk.capacity).toBe(2048);
    await blk.write(3, new Uint8Array(1024).fill(5));
    expect(disk.bytes.subarray(3 * 512, 5 * 512).every((byte) => byte === 5)).toBe(true);
    const back = new Uint8Array(1024);
    await blk.read(3, back);
    expect(back).toEqual(new Uint8Array(1024).fill(5));
    blk.readSync(4, back);
    await blk.flush();
    expect((await backend.state()).features & (1n << 30n)).not.toBe(0n);
  });
});
