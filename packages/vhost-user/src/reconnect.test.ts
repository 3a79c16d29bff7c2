import { VirtioBlk } from '@virtio/blk';
import { describe, expect, it } from 'vitest';
import {
  blkConfig,
  Disk,
  FakeBackend,
  FEATURES,
  INFLIGHT,
  type Lie,
  PACKED,
  PROTOCOL,
  STATUS,
  temporarySocket,
} from '../test/fake-backend.ts';
import { openDisk, until } from '../test/open.ts';
import { FrontendRequest as Request } from './protocol.ts';

/** What is sent when a driver negotiates and sets DRIVER_OK, and how the back end is lost then. */
const SET_UP: readonly (readonly [keyof typeof Request, Lie])[] = [
  ['SET_FEATURES', 'close'],
  ['SET_FEATURES', 'no reply flag'],
  ['GET_STATUS', 'close'],
  ['GET_INFLIGHT_FD', 'close'],
  ['SET_INFLIGHT_FD', 'close'],
  ['ADD_MEM_REG', 'close'],
  ['SET_VRING_KICK', 'half a message'],
  ['SET_VRING_ENABLE', 'close'],
];

describe('with reconnect', () => {
  it.each(SET_UP)(
    'a back end that is lost at %s (%s) is replaced by the next one',
    async (name, lie) => {
      using socket = temporarySocket();
      const disk = new Disk();
      const lies = { [Request[name]]: lie };
      const protocol = PROTOCOL | INFLIGHT | STATUS;
      await using backend = await FakeBackend.start(socket.path, { protocol, lies }, { disk });
      using device = await openDisk(socket.path, { reconnect: true });
      using blk = new VirtioBlk(device.transport, device.hal);
      const writing = blk.write(1, new Uint8Array(512).fill(1));
      await backend.tell({ do: 'change', script: { lies: {} } });
      await writing;
      await backend.tell({ do: 'change', script: { lies } });
      blk.reset();
      const again = blk.write(2, new Uint8Array(512).fill(2));
      await backend.tell({ do: 'change', script: { lies: {} } });
      await again;
      expect([disk.bytes[512], disk.bytes[1024]]).toEqual([1, 2]);
      expect(blk.failure).toBeUndefined();
    },
    60_000,
  );

  it('a back end that has no memory for a record is used without one', async () => {
    using socket = temporarySocket();
    const none = new Uint8Array(32);
    new Uint32Array(none.buffer).set([Request.GET_INFLIGHT_FD, 5, 20]);
    await using backend = await FakeBackend.start(socket.path, {
      protocol: PROTOCOL | INFLIGHT,
      raw: none,
      lies: { [Request.GET_INFLIGHT_FD]: 'raw' },
    });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    await blk.read(0, new Uint8Array(512));
    expect((await backend.state()).log).not.toContain(Request.SET_INFLIGHT_FD);
    await backend.tell({ do: 'close' });
    await until(() => blk.failure !== undefined, 'the loss');
    expect(blk.failure).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
  });

  it('a packed ring whose record was never used begins where rings begin', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, {
      features: FEATURES | PACKED,
      protocol: PROTOCOL | INFLIGHT,
      lies: { [Request.SET_INFLIGHT_FD]: 'close' },
    });
    using device = await openDisk(socket.path, { reconnect: true });
    using _blk = new VirtioBlk(device.transport, device.hal);
    await backend.tell({ do: 'change', script: { lies: {} } });
    await device.transport.whenConnected();
    expect((await backend.state()).bases.at(-1)).toBe(0x80008000);
  });

  it('one that is being set up does not keep memory that was freed', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT });
    using device = await openDisk(socket.path, { reconnect: true });
    using _blk = new VirtioBlk(device.transport, device.hal);
    const large = device.hal.alloc(16 << 20);
    const silent = [Request.ADD_MEM_REG, 8, 9, 10, 12, 13, 14, 18].map((n) => [n, 'silent'] as const);
    await backend.tell({ do: 'change', script: { lies: Object.fromEntries(silent) } });
    await backend.tell({ do: 'close' });
    const count = async (): Promise<number> => {
      const { log } = await backend.state();
      return log.filter((request) => request === Request.ADD_MEM_REG).length;
    };
    // Two regions at the first time; those of the second are not acknowledged.
    await until(async () => (await count()) >= 3, 'the next connection');
    large[Symbol.dispose]();
    await backend.tell({ do: 'change', script: { lies: {} } });
    await device.transport.whenConnected();
  });

  it('a back end that is gone as soon as it has answered does not count as connected', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, {
      lies: { [Request.GET_CONFIG]: 'answer and close' },
    });
    for (const reconnect of [false, true]) {
      try {
        using device = await openDisk(socket.path, { reconnect });
        // The end came later than the answer.
        await until(() => !device.transport.connected, 'the loss');
      } catch (error) {
        expect(error).toMatchObject({ code: 'DEVICE_REMOVED' });
      }
    }
  });
});

describe('a back end that asks for a reset', () => {
  it('gets one; what it said before it is not held against it', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { protocol: PROTOCOL | STATUS });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    await backend.tell({ do: 'change', script: { showStatus: 64, config: blkConfig(4096) } });
    const told = backend.tell({ do: 'config change' });
    // Without an event loop: the answer about the status is there, and nobody has looked at it yet.
    for (const end = Date.now() + 10_000; blk.capacity !== 4096 && Date.now() < end;) blk.pollEvents();
    blk.reset();
    await told;
    await blk.read(0, new Uint8Array(512));
    expect(blk.failure).toBeUndefined();
    await backend.tell({ do: 'change', script: { showStatus: 64 } });
    await backend.tell({ do: 'config change' });
    await until(() => blk.failure !== undefined, 'the request for a reset');
    expect(blk.failure).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
  });
});
