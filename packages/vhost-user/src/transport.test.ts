import { VirtioBlk } from '@virtio/blk';
import { CommonFeatures, createQueue, DeviceType, VirtioError } from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import {
  blkConfig,
  Disk,
  FakeBackend,
  FEATURES,
  PACKED,
  PROTOCOL,
  RESET_DEVICE,
  STATUS,
  temporarySocket,
} from '../test/fake-backend.ts';
import { openDisk, until } from '../test/open.ts';
import { openVhostUser } from './index.ts';
import { FrontendRequest as Request } from './protocol.ts';

const REPLY_ACK = 1n << 3n;
const MEM_SLOTS = 1n << 15n;
const WCE = 1n << 11n;

/** Writes and reads through a driver in all three ways. */
async function exercise(blk: VirtioBlk, disk: Disk): Promise<void> {
  await blk.write(3, new Uint8Array(1024).fill(5));
  expect(disk.bytes.subarray(3 * 512, 5 * 512).every((byte) => byte === 5)).toBe(true);
  const back = new Uint8Array(1024);
  await blk.read(3, back);
  expect(back.every((byte) => byte === 5)).toBe(true);
  blk.writeSync(4, back.fill(6));
  const token = blk.submitRead(4, back.fill(0));
  while (blk.poll() < 0);
  blk.complete(token);
  expect(back.every((byte) => byte === 6)).toBe(true);
  await Promise.all(Array.from({ length: 300 }, (_, i) => blk.write(i, new Uint8Array(512).fill(i))));
  expect(disk.bytes[299 * 512]).toBe(299 & 0xff);
}

describe('a vhost-user device', () => {
  it.each([
    ['everything', FEATURES, PROTOCOL],
    ['no features of the protocol', FEATURES & ~(1n << 30n), 0n],
    ['no acknowledgements', FEATURES, PROTOCOL & ~REPLY_ACK],
    ['a table of memory', FEATURES, PROTOCOL & ~MEM_SLOTS],
    ['neither', FEATURES, PROTOCOL & ~MEM_SLOTS & ~REPLY_ACK],
    ['status and reset', FEATURES, PROTOCOL | STATUS | RESET_DEVICE],
    ['packed rings', FEATURES | PACKED, PROTOCOL],
    ['packed rings in order', FEATURES | PACKED | (1n << 35n), PROTOCOL],
  ])('is driven with %s', async (_name, features, protocol) => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, { features, protocol }, { disk });
    using device = await openDisk(socket.path, { config: blkConfig(2048) });
    using blk = new VirtioBlk(device.transport, device.hal);
    expect(blk.capacity).toBe(2048);
    await exercise(blk, disk);
    blk.reset();
    await exercise(blk, disk);
    const state = await backend.state();
    expect(state.features & (1n << 30n)).toBe(features & (1n << 30n));
    expect(state.features & PACKED).toBe(features & PACKED);
    expect(state.log.includes(Request.SET_VRING_ENABLE)).toBe((features & (1n << 30n)) !== 0n);
    expect(state.log.includes(Request.RESET_DEVICE)).toBe((protocol & RESET_DEVICE) !== 0n);
    if ((protocol & STATUS) !== 0n) expect(state.status).toBe(15);
  });

  it('says nothing before it was told: negotiation in the order of the protocol', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    using device = await openDisk(`vhost-user:${socket.path}`);
    expect(device.kind).toBe('vhost-user');
    const greeting = [
      Request.GET_FEATURES,
      Request.GET_PROTOCOL_FEATURES,
      Request.SET_PROTOCOL_FEATURES,
      Request.SET_OWNER,
      Request.GET_QUEUE_NUM,
      Request.GET_MAX_MEM_SLOTS,
      Request.SET_BACKEND_REQ_FD,
      Request.GET_CONFIG,
    ];
    expect((await backend.state()).log).toEqual(greeting);
    using _blk = new VirtioBlk(device.transport, device.hal);
    expect((await backend.state()).log.slice(greeting.length)).toEqual([
      Request.SET_FEATURES,
      Request.ADD_MEM_REG,
      Request.SET_VRING_NUM,
      Request.SET_VRING_BASE,
      Request.SET_VRING_ADDR,
      Request.SET_VRING_ERR,
      Request.SET_VRING_CALL,
      Request.SET_VRING_KICK,
      Request.SET_VRING_ENABLE,
    ]);
  });

  it('hides what means something else, or needs what the protocol does not have', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, { features: (1n << 64n) - 1n });
    using device = await openDisk(socket.path);
    const offered = device.transport.readDeviceFeatures();
    for (const bit of [26n, 30n, 33n, 38n, 39n, 40n]) expect((offered >> bit) & 1n).toBe(0n);
    for (const bit of [9n, 28n, 29n, 32n, 34n, 35n]) expect((offered >> bit) & 1n).toBe(1n);
    using net = temporarySocket();
    await using _second = await FakeBackend.start(net.path, {
      features: (1n << 64n) - 1n,
      protocol: REPLY_ACK,
    });
    using card = await openVhostUser(net.path, { deviceType: DeviceType.Network, timeoutMs: 20_000 });
    const seen = card.transport.readDeviceFeatures();
    for (const bit of [3n, 5n, 16n, 17n, 18n, 21n, 22n, 23n]) expect((seen >> bit) & 1n).toBe(0n);
    expect((seen >> 15n) & 1n).toBe(1n);
    expect(card.transport.configSize).toBe(0);
  });

  it('counts queues as the back end does, in pairs for network devices', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, { queues: 2 });
    {
      using device = await openDisk(socket.path, { maxQueueSize: 64 });
      expect([0, 1, 2].map((queue) => device.transport.maxQueueSize(queue))).toEqual([64, 64, 0]);
    }
    {
      using device = await openDisk(socket.path, { deviceType: DeviceType.Network });
      expect([3, 4].map((queue) => device.transport.maxQueueSize(queue))).toEqual([1024, 0]);
    }
    using device = await openDisk(socket.path, { queues: 1 });
    expect(device.transport.maxQueueSize(1)).toBe(0);
  });

  it('polls where the back end is told not to signal', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using _backend = await FakeBackend.start(socket.path, {}, { disk });
    using device = await openDisk(socket.path, { interrupts: 'polling' });
    using blk = new VirtioBlk(device.transport, device.hal);
    await exercise(blk, disk);
  });

  it.each([96, 60, 36, 24, 8])('finds a configuration of %d bytes', async (size) => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, { config: blkConfig(77, size) });
    using device = await openDisk(socket.path);
    expect(device.transport.configSize).toBe(size);
    expect(device.transport.readConfig(0, 4)).toBe(77);
    expect(() => device.transport.readConfig(size - 2, 4)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
  });

  it('writes the configuration and reads back what the back end made of it', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { features: FEATURES | WCE });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    expect(blk.writeCache()).toBe('writethrough');
    blk.setWriteCache('writeback');
    expect(blk.writeCache()).toBe('writeback');
    await backend.tell({ do: 'change', script: { refuse: Request.SET_CONFIG } });
    expect(() => device.transport.writeConfig(0, 4, 1)).toThrow(
      expect.objectContaining({ code: 'IO_ERROR' }),
    );
  });

  it('tells the driver of a configuration that has changed, with and without an event loop', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    let changes = 0;
    blk.on('capacity', () => (changes += 1));
    await backend.tell({ do: 'change', script: { config: blkConfig(4096) } });
    await backend.tell({ do: 'config change', times: 3 });
    await until(() => blk.capacity === 4096, 'the new capacity');
    expect(changes).toBeGreaterThan(0);
    await backend.tell({ do: 'change', script: { config: blkConfig(8192) } });
    const told = backend.tell({ do: 'config change' });
    for (const end = Date.now() + 2000; blk.capacity !== 8192 && Date.now() < end;) blk.pollEvents();
    expect(blk.capacity).toBe(8192);
    await told;
    await until(async () => (await backend.state()).replies.length === 4 * 20, 'four answers of success');
    const { replies } = await backend.state();
    expect(replies.slice(0, 20)).toEqual([2, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });

  it('refuses what the back end may not ask, and closes descriptors that it sends', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    await backend.tell({ do: 'config change', request: 3, descriptors: true });
    await backend.tell({ do: 'config change', request: 99 });
    await until(async () => (await backend.state()).replies.length === 40, 'two refusals');
    const { replies } = await backend.state();
    expect([replies[0], replies[12], replies[20], replies[32]]).toEqual([3, 1, 99, 1]);
    // What cannot be understood ends the channel, not the device.
    await backend.tell({ do: 'backend raw', bytes: new Uint8Array(64).fill(0xff) });
    await blk.read(0, new Uint8Array(512));
    await backend.tell({ do: 'backend close' });
    await blk.read(0, new Uint8Array(512));
    expect(blk.failure).toBeUndefined();
  });

  it('does not stop for a back end that asks without end', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    const told = backend.tell({ do: 'config change', times: 500 });
    for (let n = 0; n < 50; n += 1) await blk.read(n, new Uint8Array(512));
    await told;
    expect(blk.failure).toBeUndefined();
  });

  it.each([
    ['by slots', PROTOCOL],
    ['in a table', PROTOCOL & ~MEM_SLOTS],
  ])('adds and removes memory %s while it is driven', async (_name, protocol) => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, { protocol }, { disk });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    const before = device.hal.sharedBytes;
    {
      using large = device.hal.alloc(32 << 20);
      expect(device.hal.sharedBytes).toBe(before + (32 << 20));
      large.bytes.fill(3, 16 << 20, (16 << 20) + 4096);
      await blk.write(0, large.bytes.subarray(16 << 20, (16 << 20) + 4096));
      expect(disk.bytes[4095]).toBe(3);
    }
    expect(device.hal.sharedBytes).toBe(before);
    const { log } = await backend.state();
    const tables = log.filter((request) => request === Request.SET_MEM_TABLE).length;
    expect(log.includes(Request.REM_MEM_REG)).toBe((protocol & MEM_SLOTS) !== 0n);
    expect(tables).toBe((protocol & MEM_SLOTS) !== 0n ? 0 : 3);
    await exercise(blk, disk);
  });

  it.each([
    ['split', 0n],
    ['packed', PACKED],
    ['packed, in order', PACKED | (1n << 35n)],
  ])('waits at a reset for the requests that the back end has, %s', async (_name, ring) => {
    using socket = temporarySocket();
    const disk = new Disk();
    const features = FEATURES | ring;
    await using backend = await FakeBackend.start(socket.path, { features, hold: true }, { disk });
    disk.bytes.fill(7);
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    using buffer = device.hal.alloc(4 * 512);
    const part = (n: number) => buffer.bytes.subarray(512 * n, 512 * n + 512);
    const done = blk.read(0, part(0));
    await until(async () => (await backend.state()).taken === 1, 'the request at the back end');
    await backend.tell({ do: 'release', count: 1 });
    await done;
    const reads = [1, 2, 3].map((n) => blk.read(n, part(n)));
    const lost = Promise.allSettled(reads);
    await until(async () => (await backend.state()).taken === 4, 'the requests at the back end');
    await backend.tell({ do: 'release', afterMs: 100 });
    blk.reset();
    // Had the reset returned before the back end was done, these would be written later.
    expect([1, 2, 3].map((n) => part(n)[511])).toEqual([7, 7, 7]);
    for (const one of await lost) expect(one).toMatchObject({ reason: { code: 'DEVICE_RESET' } });
    await exercise(blk, disk);
  });

  it('notifies at a reset of what was published meanwhile, as a thread that hears of the reset no longer does', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    // Neither the notification of the request is heard, nor the first one of the reset.
    await using _backend = await FakeBackend.start(socket.path, { deaf: 2 }, { disk });
    disk.bytes.fill(7);
    using device = await openDisk(socket.path, { timeoutMs: 10_000 });
    using blk = new VirtioBlk(device.transport, device.hal);
    using buffer = device.hal.alloc(512);
    const [lost] = await Promise.all([
      blk.read(0, buffer.bytes).catch((error: unknown) => error),
      // It is published when the turn ends.
      new Promise<void>((resolve) => {
        setImmediate(() => {
          blk.reset();
          resolve();
        });
      }),
    ]);
    expect(lost).toMatchObject({ code: 'DEVICE_RESET' });
    expect(buffer.bytes[511]).toBe(7);
    await exercise(blk, disk);
  });

  it('waits after a reset for what the back end says that it had taken', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, { hold: true, drainMs: 100 }, { disk });
    disk.bytes.fill(7);
    using device = await openDisk(socket.path, { deviceType: DeviceType.Console });
    const { transport, hal } = device;
    const features = transport.beginInit({ table: CommonFeatures, supported: [] });
    using queue = createQueue(transport, hal, features, { index: 0, size: 8 });
    transport.finishInit();
    using buffer = hal.alloc(4096);
    queue.begin(2);
    queue.pushReadable(buffer.address, 16);
    queue.pushWritable(buffer.address + 512, 513);
    queue.submit();
    queue.publish();
    queue.kick();
    await until(async () => (await backend.state()).taken === 1, 'the request at the back end');
    transport.reset();
    expect(buffer.bytes[512]).toBe(7);
  });

  it('fails if the back end does not finish after a reset, and lets go of it', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { hold: true, drainMs: 100_000 });
    using device = await openDisk(socket.path);
    const blk = new VirtioBlk(device.transport, device.hal);
    const reading = blk.read(0, new Uint8Array(512));
    await until(async () => (await backend.state()).taken === 1, 'the request at the back end');
    // Time goes by with each look at the clock.
    let now = performance.now();
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => (now += 50));
    expect(() => blk.reset()).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    clock.mockRestore();
    await expect(reading).rejects.toBeInstanceOf(VirtioError);
    blk[Symbol.dispose]();
  });

  it('does not care about the clock of the system, which may be set at any time', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using _backend = await FakeBackend.start(socket.path, {}, { disk });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    let now = Date.now();
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => (now += 3_600_000));
    try {
      blk.reset();
    } finally {
      clock.mockRestore();
    }
    await exercise(blk, disk);
  });

  it('keeps a configuration space that was given, whatever becomes of the array', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { protocol: REPLY_ACK });
    const config = blkConfig(77);
    using device = await openDisk(socket.path, { config, reconnect: true });
    config.fill(0);
    await backend.tell({ do: 'close' });
    await until(async () => (await backend.state()).connections === 2, 'the next connection');
    await device.transport.whenConnected();
    expect(device.transport.readConfig(0, 4)).toBe(77);
  });

  it('takes a refusal of features for what it is', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { refuse: Request.SET_FEATURES });
    using device = await openDisk(socket.path);
    expect(() => new VirtioBlk(device.transport, device.hal)).toThrow(
      expect.objectContaining({ code: 'FEATURES_REFUSED' }),
    );
    await backend.tell({ do: 'change', script: { refuse: Request.SET_VRING_ADDR } });
    expect(() => new VirtioBlk(device.transport, device.hal)).toThrow(
      /refused SET_VRING_ADDR of queue 0|SET_VRING_ADDR of queue 0.*refused/,
    );
    await backend.tell({ do: 'change', script: { refuse: undefined } });
    using blk = new VirtioBlk(device.transport, device.hal);
    await blk.read(0, new Uint8Array(512));
  });

  it('believes a device status that lacks FEATURES_OK', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, {
      protocol: PROTOCOL | STATUS,
      clearStatus: 8,
    });
    using device = await openDisk(socket.path);
    expect(() => new VirtioBlk(device.transport, device.hal)).toThrow(
      expect.objectContaining({ code: 'FEATURES_REFUSED' }),
    );
  });

  it('needs a reset when the back end signals an error of a queue', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, { hold: true }, { disk });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    const ended = expect(blk.read(0, new Uint8Array(512))).rejects.toMatchObject({
      code: 'DEVICE_NEEDS_RESET',
    });
    await backend.tell({ do: 'error' });
    await ended;
    await backend.tell({ do: 'change', script: { hold: false } });
    blk.reset();
    await exercise(blk, disk);
  });

  it('checks what it is asked at the door', async () => {
    await expect(openVhostUser('/nowhere/a.sock', { deviceType: DeviceType.Block })).rejects.toMatchObject({
      code: 'NO_DEVICE',
    });
    await expect(openVhostUser('x'.repeat(200), { deviceType: DeviceType.Block })).rejects.toMatchObject({
      code: 'INVALID_PARAM',
    });
    for (const path of [undefined, 5, 'a\0b']) {
      for (const server of [false, true]) {
        await expect(
          openVhostUser(path as never, { deviceType: DeviceType.Block, server }),
        ).rejects.toMatchObject({ code: 'INVALID_PARAM' });
      }
    }
    await expect(openVhostUser('/a', { deviceType: 99 as never })).rejects.toMatchObject({
      code: 'INVALID_DEVICE_TYPE',
    });
    for (const wrong of [
      { timeoutMs: 0 },
      { maxQueueSize: 1.5 },
      { memorySize: -1 },
      { queues: 257 },
      { queues: 0 },
      { queues: NaN },
      { configSize: 257 },
      { configSize: 0 },
      { interrupts: 'msi' as never },
      { config: [1] as never },
      { signal: {} as never },
    ]) {
      await expect(openVhostUser('/a', { deviceType: DeviceType.Block, ...wrong })).rejects.toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
  });
});
