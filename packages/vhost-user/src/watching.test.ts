import { existsSync } from 'node:fs';
import { VirtioBlk } from '@virtio/blk';
import { VirtioError } from '@virtio/core';
import { EventPoller } from '@virtio/linux';
import { expect, it, vi } from 'vitest';
import { descriptors, FakeBackend, temporarySocket } from '../test/fake-backend.ts';
import { openDisk } from '../test/open.ts';

const { watch } = EventPoller.prototype;

/** After `room` descriptors no more can be watched. */
function limit(room: number): void {
  let left = room;
  vi.spyOn(EventPoller.prototype, 'watch').mockImplementation(function (this: EventPoller, ...how) {
    left -= 1;
    if (left < 0) throw new VirtioError('SYSTEM_ERROR', 'ENOSPC');
    watch.call(this, ...how);
  });
}

it('leaves nothing open when a descriptor cannot be watched, at each step', async () => {
  using socket = temporarySocket();
  await using backend = await FakeBackend.start(socket.path);
  const before = descriptors();
  let opened = false;
  for (let room = 0; !opened && room < 20; room += 1) {
    limit(room);
    try {
      using device = await openDisk(socket.path);
      using blk = new VirtioBlk(device.transport, device.hal);
      await blk.read(0, new Uint8Array(512));
      opened = true;
    } catch (error) {
      expect(error).toMatchObject({ code: 'SYSTEM_ERROR' });
    }
    await backend.tell({ do: 'close' });
    expect([room, descriptors()]).toEqual([room, before]);
  }
  expect(opened).toBe(true);
}, 240_000);

it('leaves nothing behind when a socket to listen on cannot be watched', async () => {
  using socket = temporarySocket();
  const before = descriptors();
  limit(0);
  await expect(openDisk(socket.path, { server: true })).rejects.toMatchObject({ code: 'SYSTEM_ERROR' });
  expect([descriptors(), existsSync(socket.path)]).toEqual([before, false]);
});
