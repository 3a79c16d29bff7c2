import { existsSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, VirtioError } from '@virtio/core';
import { UnixListener, UnixSocket } from '@virtio/linux';
import { describe, expect, it } from 'vitest';
import {
  blkConfig,
  descriptors,
  Disk,
  FakeBackend,
  FEATURES,
  INFLIGHT,
  PROTOCOL,
  temporarySocket,
} from '../test/fake-backend.ts';
import { openDisk, until } from '../test/open.ts';
import { openVhostUser } from './index.ts';

const mappings = () =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('vhost-user')).length;
const sector = (byte: number) => new Uint8Array(512).fill(byte);

describe('when the back end is lost', () => {
  it('all that is in flight rejects with DEVICE_REMOVED at once, and all that comes later', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { hold: true });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    const reads = Array.from({ length: 20 }, (_, i) => blk.read(i, sector(0)));
    const settled = Promise.allSettled(reads);
    await until(async () => (await backend.state()).taken === 20, 'the requests at the back end');
    await backend.tell({ do: 'die' });
    for (const result of await settled) expect(result).toMatchObject({ reason: { code: 'DEVICE_REMOVED' } });
    await expect(blk.read(0, sector(0))).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
    expect(() => blk.readSync(0, sector(0))).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    expect(() => blk.reset()).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    await expect(device.transport.whenConnected()).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
  });

  it('those who spin hear of it, without an event loop', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { hold: true });
    using device = await openDisk(socket.path);
    using blk = new VirtioBlk(device.transport, device.hal);
    const dead = backend.tell({ do: 'die' });
    expect(() => blk.readSync(0, sector(0), { timeoutMs: 60_000 })).toThrow(
      expect.objectContaining({ code: 'DEVICE_REMOVED' }),
    );
    await dead;
  });

  it('a hung one is given up after the time-out, wherever it hangs', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { hang: true });
    await expect(openDisk(socket.path, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'NOT_READY' });
    await backend.tell({ do: 'change', script: { hang: false } });
    await backend.tell({ do: 'close' });
    using device = await openDisk(socket.path, { timeoutMs: 1500 });
    const blk = new VirtioBlk(device.transport, device.hal);
    await backend.tell({ do: 'change', script: { hang: true } });
    expect(() => blk.reset()).toThrow(/did not answer GET_VRING_BASE within 1500 ms/);
    blk[Symbol.dispose]();
  });

  it('one that accepts nobody is given up as well', async () => {
    using socket = temporarySocket();
    using _listener = new UnixListener(socket.path);
    const waiting = Array.from({ length: 4 }, () => openDisk(socket.path, { timeoutMs: 50 }));
    for (const result of await Promise.allSettled(waiting)) {
      expect(result).toMatchObject({ reason: { code: 'NOT_READY' } });
    }
  });

  it('opening can be cancelled', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path, { hang: true });
    using server = temporarySocket();
    const abort = new AbortController();
    const opening = openDisk(server.path, { server: true, signal: abort.signal });
    abort.abort();
    await expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('opening can be cancelled while the back end does not answer', async () => {
    using socket = temporarySocket();
    using listener = new UnixListener(socket.path);
    const before = descriptors();
    const abort = new AbortController();
    const opening = openDisk(socket.path, { timeoutMs: 600_000, signal: abort.signal });
    const failed = expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
    let backend: UnixSocket | undefined;
    await until(() => (backend ??= listener.accept()) !== undefined, 'the connection');
    await until(() => (backend as UnixSocket).receive() !== undefined, 'the first request');
    abort.abort();
    await failed;
    backend?.[Symbol.dispose]();
    expect(descriptors()).toBe(before);
  });
});

describe('when the device is disposed before its driver', () => {
  it.each(['eventfd', 'polling'] as const)('the driver ends with a typed error (%s)', async (interrupts) => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path);
    const device = await openDisk(socket.path, { interrupts });
    using blk = new VirtioBlk(device.transport, device.hal);
    const reading = blk.read(0, sector(0));
    device[Symbol.dispose]();
    await expect(reading).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
    expect(() => blk.readSync(0, sector(0))).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    expect(blk.failure).toMatchObject({ code: 'DEVICE_REMOVED' });
  });

  it('a listener of the failure may dispose both', async () => {
    using socket = temporarySocket();
    await using _backend = await FakeBackend.start(socket.path);
    const before = descriptors();
    const device = await openDisk(socket.path);
    const blk = new VirtioBlk(device.transport, device.hal);
    let failures = 0;
    blk.on('failure', () => {
      failures += 1;
      blk[Symbol.dispose]();
      device[Symbol.dispose]();
    });
    device[Symbol.dispose]();
    expect([failures, descriptors()]).toEqual([1, before]);
  });
});

describe('with reconnect', () => {
  it('without a record of what is in flight the driver needs a reset, and goes on after it', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    const first = await FakeBackend.start(socket.path, { hold: true }, { disk });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    const lost = expect(blk.write(1, sector(1))).rejects.toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    await until(async () => (await first.state()).taken === 1, 'the request at the back end');
    await first.tell({ do: 'die' });
    await first.stop();
    await lost;
    expect(device.transport.connected).toBe(false);
    // A reset needs no back end: what follows waits for it.
    blk.reset();
    const next = blk.write(2, sector(2));
    await using _second = await FakeBackend.start(socket.path, {}, { disk });
    await device.transport.whenConnected();
    await next;
    expect([disk.bytes[512], disk.bytes[1024]]).toEqual([0, 2]);
  });

  it('with a record nothing is lost and nothing is done twice', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    const protocol = PROTOCOL | INFLIGHT;
    let backend = await FakeBackend.start(socket.path, { protocol, hold: true }, { disk });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal, { queueSize: 64 });
    for (let round = 1; round <= 5; round += 1) {
      const writes = Array.from({ length: 40 }, (_, i) => blk.write(40 * round + i, sector(round)));
      const all = Promise.all(writes);
      await until(async () => (await backend.state()).taken >= 40, 'the requests at the back end');
      // Some are done, the last of them in the very moment in which the back end dies.
      await backend.tell({ do: 'release', count: 7 + round, dieBefore: true });
      await backend.stop();
      backend = await FakeBackend.start(socket.path, { protocol }, { disk });
      await all;
      expect(blk.failure).toBeUndefined();
      await backend.tell({ do: 'change', script: { hold: true } });
      const taken = (await backend.state()).taken;
      expect(taken).toBe(40 - 7 - round);
      await backend.tell({ do: 'die' });
      await backend.stop();
      backend = await FakeBackend.start(socket.path, { protocol, hold: true }, { disk });
      await device.transport.whenConnected();
    }
    await backend.stop();
    const counts = [...disk.writeCounts.subarray(40, 240)];
    expect(counts.every((count) => count === 1)).toBe(true);
  });

  it('without features that were agreed on the next one is not used, and a reset takes what there is', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    const first = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT }, { disk });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    await first.stop();
    const lost = expect(blk.read(0, sector(0))).rejects.toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    await using second = await FakeBackend.start(
      socket.path,
      { features: FEATURES & ~(1n << 28n), config: blkConfig(1000) },
      { disk },
    );
    await lost;
    await device.transport.whenConnected();
    expect(() => blk.reset()).toThrow(expect.objectContaining({ code: 'FEATURES_REFUSED' }));
    await second.tell({ do: 'change', script: { features: FEATURES } });
    const { connections } = await second.state();
    await second.tell({ do: 'close' });
    await until(async () => (await second.state()).connections > connections, 'the next connection');
    await device.transport.whenConnected();
    blk.reset();
    await blk.read(0, sector(0));
    expect(blk.capacity).toBe(1000);
  });

  it('memory that was added while nobody was there is told to the next', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    const first = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT }, { disk });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    await first.stop();
    await until(() => !device.transport.connected, 'the loss');
    using large = device.hal.alloc(16 << 20);
    const writing = blk.write(5, large.bytes.fill(9).subarray(-4096));
    await using _second = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT }, { disk });
    await writing;
    expect(disk.bytes[5 * 512]).toBe(9);
  });

  it('says why no back end is connected: none listens, or the last one could not be used', async () => {
    using socket = temporarySocket();
    const first = await FakeBackend.start(socket.path);
    using device = await openDisk(socket.path, { reconnect: true });
    const { transport } = device;
    expect(transport.disconnectReason).toBeUndefined();
    await transport.whenConnected({ signal: AbortSignal.abort() });
    await first.stop();
    await until(() => transport.disconnectReason?.code === 'NO_DEVICE', 'the first attempt');
    const cancelled = transport.whenConnected({ signal: AbortSignal.abort('too long') });
    await expect(cancelled).rejects.toMatchObject({ code: 'ABORTED', cause: 'too long' });
    await expect(cancelled).rejects.toThrow(/a\.sock could not be connected to/);
    await using second = await FakeBackend.start(socket.path, { lies: { 1: 'no reply flag' } });
    const abort = new AbortController();
    const waiting = transport.whenConnected({ signal: abort.signal });
    await until(() => transport.disconnectReason?.code === 'DEVICE_MISBEHAVED', 'the second attempt');
    abort.abort();
    await expect(waiting).rejects.toThrow(/cancelled.* without the reply flag/);
    await expect(transport.whenConnected({ signal: {} as AbortSignal })).rejects.toMatchObject({
      code: 'INVALID_PARAM',
    });
    await second.tell({ do: 'change', script: { lies: {} } });
    await transport.whenConnected();
    expect(transport.disconnectReason).toBeUndefined();
  });

  it('a back end that dies each time it is greeted does not stop the process, nor the end', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    const device = await openDisk(socket.path, { reconnect: true });
    await backend.tell({ do: 'change', script: { lies: { 1: 'close' } } });
    await backend.tell({ do: 'close' });
    await until(async () => (await backend.state()).connections > 4, 'attempts');
    const waiting = device.transport.whenConnected();
    waiting.catch(() => undefined);
    device[Symbol.dispose]();
    await expect(waiting).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});

describe('as a server', () => {
  it('waits for the back end, and for the next one', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    const opening = openDisk(socket.path, { server: true, reconnect: true });
    await new Promise((resolve) => setTimeout(resolve, 20));
    const first = await FakeBackend.start(
      socket.path,
      { protocol: PROTOCOL | INFLIGHT },
      { disk, connect: true },
    );
    using device = await opening;
    using blk = new VirtioBlk(device.transport, device.hal);
    await blk.write(1, sector(1));
    await first.stop();
    const writing = blk.write(2, sector(2));
    await using _second = await FakeBackend.start(
      socket.path,
      { protocol: PROTOCOL | INFLIGHT },
      { disk, connect: true },
    );
    await writing;
    expect([disk.bytes[512], disk.bytes[1024]]).toEqual([1, 2]);
  });

  it('takes the place of a socket that a dead program left, not of one in use', async () => {
    using socket = temporarySocket();
    const left = new UnixListener(socket.path);
    await expect(openDisk(socket.path, { server: true })).rejects.toMatchObject({ code: 'ALREADY_USED' });
    left[Symbol.dispose]();
    await expect(openDisk(`${socket.path}/x`, { server: true })).rejects.toBeInstanceOf(VirtioError);
    symlinkSync('loop', join(dirname(socket.path), 'loop'));
    await expect(openDisk(join(dirname(socket.path), 'loop'), { server: true })).rejects.toBeInstanceOf(
      VirtioError,
    );
    const opening = openDisk(socket.path, { server: true });
    await using _backend = await FakeBackend.start(socket.path, {}, { connect: true });
    using device = await opening;
    expect(device.transport.connected).toBe(true);
  });
});

describe('as a server beside other programs', () => {
  it('waits on when another wants the same socket, or a program connects and leaves', async () => {
    using socket = temporarySocket();
    const opening = openDisk(socket.path, { server: true });
    for (let n = 0; n < 3; n += 1) {
      await expect(openDisk(socket.path, { server: true })).rejects.toMatchObject({
        code: 'ALREADY_USED',
        message: expect.stringContaining('another program listens') as string,
      });
      await until(() => {
        const visitor = UnixSocket.connect(socket.path);
        visitor?.[Symbol.dispose]();
        return visitor !== undefined;
      }, 'room for a visitor');
    }
    await using _backend = await FakeBackend.start(socket.path, {}, { connect: true });
    using device = await opening;
    expect(device.transport.connected).toBe(true);
  });

  it('removes its own socket at the end, and not that of a program that took its place', async () => {
    using socket = temporarySocket();
    const abort = new AbortController();
    const opening = openDisk(socket.path, { server: true, signal: abort.signal });
    const failed = expect(opening).rejects.toMatchObject({ code: 'ABORTED' });
    rmSync(socket.path);
    using _other = new UnixListener(socket.path);
    abort.abort();
    await failed;
    expect(existsSync(socket.path)).toBe(true);
  });
});

describe('nothing leaks', () => {
  it('of 100 back ends that were killed under load', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, {}, { disk });
    let acknowledged = 0;
    const round = async (): Promise<void> => {
      const device = await openVhostUser(socket.path, {
        deviceType: DeviceType.Block,
        memorySize: 4 << 20,
        hugePages: false,
      });
      const blk = new VirtioBlk(device.transport, device.hal);
      const load = Array.from({ length: 16 }, async (_, i) => {
        for (let n = 0; ; n += 1) {
          await blk.write(i, sector(n));
          expect(disk.bytes[512 * i]).toBe(n & 0xff);
          acknowledged += 1;
        }
      });
      const ends = Promise.allSettled(load);
      await blk.read(0, sector(0));
      await backend.tell({ do: 'close' });
      for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'DEVICE_REMOVED' } });
      blk[Symbol.dispose]();
      expect(device.hal.bounced).toBe(0);
      device[Symbol.dispose]();
    };
    await round();
    const before = [descriptors(), mappings()];
    for (let n = 0; n < 100; n += 1) await round();
    expect([descriptors(), mappings()]).toEqual(before);
    expect(acknowledged).toBeGreaterThan(100);
  });

  it('of connections that were lost and came back', async () => {
    using socket = temporarySocket();
    const disk = new Disk();
    await using backend = await FakeBackend.start(socket.path, { protocol: PROTOCOL | INFLIGHT }, { disk });
    using device = await openDisk(socket.path, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    const round = async (): Promise<void> => {
      await blk.write(1, sector(1));
      await backend.tell({ do: 'close' });
      await blk.write(2, sector(2));
    };
    await round();
    const before = [descriptors(), mappings()];
    for (let n = 0; n < 30; n += 1) await round();
    expect([descriptors(), mappings()]).toEqual(before);
  });
});
