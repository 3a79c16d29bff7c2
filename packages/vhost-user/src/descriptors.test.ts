import { VirtioBlk } from '@virtio/blk';
import { VirtioError } from '@virtio/core';
import * as linux from '@virtio/linux';
import { expect, it, vi } from 'vitest';
import { descriptors, FakeBackend, INFLIGHT, PROTOCOL, temporarySocket } from '../test/fake-backend.ts';
import { openDisk } from '../test/open.ts';

vi.mock('@virtio/linux', { spy: true });
const actual = await vi.importActual<typeof linux>('@virtio/linux');

it('leaves nothing open when descriptors run out, at each step', async () => {
  using socket = temporarySocket();
  await using backend = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT });
  const before = descriptors();
  let lent = false;
  for (let room = 0; !lent && room < 40; room += 1) {
    let left = room;
    const take = (): void => {
      left -= 1;
      if (left < 0) throw new VirtioError('SYSTEM_ERROR', 'EMFILE');
    };
    vi.mocked(linux.eventfd).mockImplementation(() => {
      take();
      return actual.eventfd();
    });
    vi.mocked(linux.duplicate).mockImplementation((fd) => {
      take();
      return actual.duplicate(fd);
    });
    try {
      using device = await openDisk(socket.path);
      using blk = new VirtioBlk(device.transport, device.hal);
      await blk.read(0, new Uint8Array(512));
      try {
        device.transport.lendQueue(0).close?.();
        lent = true;
      } catch (error) {
        expect(error).toMatchObject({ code: 'SYSTEM_ERROR' });
        // What could not be lent is still driven here.
        await blk.read(0, new Uint8Array(512));
      }
    } catch (error) {
      expect(error).toMatchObject({ code: 'SYSTEM_ERROR' });
    }
    await backend.tell({ do: 'close' });
    expect(descriptors()).toBe(before);
  }
  expect(lent).toBe(true);
});
