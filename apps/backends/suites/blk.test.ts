/** Block devices of qemu-storage-daemon (Debian: qemu-utils). What was written is looked at in the image, by other programs. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, VirtioError } from '@virtio/core';
import { openVhostUser, type VhostUserDevice, type VhostUserOptions } from '@virtio/vhost-user';
import { describe, expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import { rawFile, StorageDaemon } from '../src/storage-daemon.ts';

const MIB = 1 << 20;
const SIZE = 16 * MIB;
/** How often a back end is killed under load. */
const KILLS = Number(process.env.VIRTIO_KILLS ?? 20);

/** The time-out is for a back end that hangs; one on a busy machine only takes its time. */
const PATIENCE_MS = 60_000;

function open(path: string, options: Partial<VhostUserOptions> = {}): Promise<VhostUserDevice> {
  return openVhostUser(path, { deviceType: DeviceType.Block, timeoutMs: PATIENCE_MS, ...options });
}

function rawImage(folder: Folder, name = 'disk.img'): string {
  const path = folder.file(name);
  writeFileSync(path, '');
  truncateSync(path, SIZE);
  return path;
}

/** Bytes that tell where they belong and which writing they are of. */
function pattern(sector: number, bytes: number, seed: number): Uint8Array {
  const data = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i += 1) data[i] = (sector * 31 + (i >> 9) * 31 + i + seed * 7) & 0xff;
  return data;
}

/** Resolves after a number of calls of `count`. */
function counter(times: number): { readonly count: () => void; readonly reached: Promise<unknown> } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  let counted = 0;
  const count = (): void => {
    counted += 1;
    if (counted === times) resolve(undefined);
  };
  return { count, reached: promise };
}

const descriptors = () => readdirSync('/proc/self/fd').length;
function openFile(path: string): { readonly fd: number } & Disposable {
  const fd = openSync(path, 'r');
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Bytes that are in use after a collection: of the heap with array buffers, and of the process. */
async function memoryInUse(): Promise<{ readonly heap: number; readonly resident: number }> {
  for (let n = 0; n < 5; n += 1) {
    collectGarbage();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed + external, resident: rss };
}

const mappings = () =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('vhost-user')).length;

describe('a raw image', () => {
  it('is read and written in all ways, and holds what was written', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    const expected = new Uint8Array(SIZE);
    const put = (sector: number, data: Uint8Array) => {
      expected.set(data, sector * 512);
      return data;
    };
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
    {
      using device = await open(daemon.socket);
      using blk = new VirtioBlk(device.transport, device.hal);
      expect(blk.capacity).toBe(SIZE / 512);
      const writes = Array.from({ length: 500 }, (_, i) => {
        const sector = (i * 61) % 30_000;
        return blk.write(sector, put(sector, pattern(sector, 512, i)));
      });
      await Promise.all(writes);
      blk.writeSync(100, put(100, pattern(100, 64 * 1024, 1)));
      using buffer = device.hal.alloc(2 * MIB);
      buffer.bytes.set(pattern(7000, 2 * MIB, 2));
      await blk.write(7000, buffer.bytes.subarray(4096, MIB));
      put(7000, buffer.bytes.slice(4096, MIB));
      const token = blk.submitWrite(30_000, put(30_000, pattern(30_000, 4096, 3)));
      while (blk.poll() < 0);
      blk.complete(token);
      await blk.flush();
      const back = new Uint8Array(64 * 1024);
      for (const sector of [0, 61, 100, 6990, 29_999]) {
        await blk.read(sector, back);
        expect(back).toEqual(expected.slice(sector * 512, sector * 512 + back.length));
      }
      blk.reset();
      blk.readSync(30_000, back.subarray(0, 4096));
      expect(back.subarray(0, 4096)).toEqual(expected.slice(30_000 * 512, 30_000 * 512 + 4096));
    }
    expect(Buffer.compare(readFileSync(path), expected)).toBe(0);
  });

  it('is driven without an event loop, and by polling', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
    using device = await open(daemon.socket, { interrupts: 'polling' });
    using blk = new VirtioBlk(device.transport, device.hal);
    for (let n = 0; n < 200; n += 1) blk.writeSync(n, pattern(n, 512, n));
    const back = new Uint8Array(512);
    await Promise.all(Array.from({ length: 100 }, (_, n) => blk.read(n, new Uint8Array(512))));
    await blk.read(199, back);
    expect(back).toEqual(pattern(199, 512, 199));
  });

  it('takes memory that is added later', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
    using device = await open(daemon.socket, { memorySize: 4 * MIB, hugePages: false });
    using blk = new VirtioBlk(device.transport, device.hal);
    const buffers = Array.from({ length: 6 }, () => device.hal.alloc(24 * MIB));
    for (const [i, buffer] of buffers.entries()) {
      buffer.bytes.set(pattern(i, MIB, i), 20 * MIB);
      await blk.write(i * 2048, buffer.bytes.subarray(20 * MIB, 21 * MIB));
    }
    for (const buffer of buffers) buffer[Symbol.dispose]();
    await blk.flush();
    const image = readFileSync(path);
    for (let i = 0; i < 6; i += 1) {
      expect(Buffer.compare(image.subarray(i * MIB, (i + 1) * MIB), pattern(i, MIB, i))).toBe(0);
    }
  });

  it('has four queues under load', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path), queues: 4 });
    {
      using device = await open(daemon.socket);
      using blk = new VirtioBlk(device.transport, device.hal, { queues: 4 });
      expect(blk.queueCount).toBe(4);
      const lanes = Array.from({ length: 64 }, async (_, lane) => {
        for (let n = 0; n < 20; n += 1) {
          const sector = lane * 200 + n * 8;
          await blk.write(sector, pattern(sector, 4096, 9));
          const back = new Uint8Array(4096);
          await blk.read(sector, back);
          expect(back).toEqual(pattern(sector, 4096, 9));
        }
      });
      await Promise.all(lanes);
      await blk.flush();
    }
    expect(readFileSync(path).subarray(512 * 208, 512 * 208 + 4096)).toEqual(
      Buffer.from(pattern(208, 4096, 9)),
    );
  });

  it('grows, and the driver hears of it', async () => {
    using folder = new Folder();
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(rawImage(folder)) });
    using device = await open(daemon.socket);
    using blk = new VirtioBlk(device.transport, device.hal);
    const { promise, resolve } = Promise.withResolvers<number>();
    blk.on('capacity', (capacity) => resolve(capacity));
    await daemon.execute('block_resize', { 'node-name': 'disk', size: 2 * SIZE });
    expect(await promise).toBe((2 * SIZE) / 512);
    await blk.write(SIZE / 512 + 5, pattern(5, 512, 5));
  });
});

it('a qcow2 image holds what was written', async () => {
  using folder = new Folder();
  const path = folder.file('disk.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, String(SIZE)]);
  {
    await using daemon = await StorageDaemon.start(folder, {
      blockdevs: [`driver=file,node-name=file,filename=${path}`, 'driver=qcow2,node-name=disk,file=file'],
    });
    using device = await open(daemon.socket);
    using blk = new VirtioBlk(device.transport, device.hal);
    await Promise.all(Array.from({ length: 50 }, (_, i) => blk.write(i * 500, pattern(i * 500, 8192, i))));
    await blk.flush();
  }
  const raw = folder.file('raw.img');
  execFileSync('qemu-img', ['convert', '-O', 'raw', path, raw]);
  const image = readFileSync(raw);
  for (let i = 0; i < 50; i += 1) {
    expect(Buffer.compare(image.subarray(i * 256_000, i * 256_000 + 8192), pattern(i * 500, 8192, i))).toBe(
      0,
    );
  }
});

it('a read-only disk refuses writes', async () => {
  using folder = new Folder();
  const path = rawImage(folder);
  await using daemon = await StorageDaemon.start(folder, {
    blockdevs: [
      `driver=file,node-name=file,filename=${path},read-only=on`,
      'driver=raw,node-name=disk,file=file,read-only=on',
    ],
    writable: false,
  });
  using device = await open(daemon.socket);
  using blk = new VirtioBlk(device.transport, device.hal);
  expect(blk.readOnly).toBe(true);
  await blk.read(0, new Uint8Array(512));
  await expect(blk.write(0, new Uint8Array(512))).rejects.toBeInstanceOf(VirtioError);
  expect(readFileSync(path).every((byte) => byte === 0)).toBe(true);
});

it('an error of one sector is that of its request only', async () => {
  using folder = new Folder();
  const path = rawImage(folder);
  await using daemon = await StorageDaemon.start(folder, {
    blockdevs: [
      `driver=file,node-name=file,filename=${path}`,
      'driver=blkdebug,node-name=debug,image=file,inject-error.0.event=read_aio,inject-error.0.iotype=read,' +
        'inject-error.0.errno=5,inject-error.0.sector=100,inject-error.0.once=off',
      'driver=raw,node-name=disk,file=debug',
    ],
  });
  using device = await open(daemon.socket);
  using blk = new VirtioBlk(device.transport, device.hal);
  const results = await Promise.allSettled(
    Array.from({ length: 40 }, (_, i) => blk.read(80 + i, new Uint8Array(512))),
  );
  results.forEach((result, i) => {
    if (i === 20) expect(result).toMatchObject({ reason: { code: 'IO_ERROR' } });
    else expect(result.status).toBe('fulfilled');
  });
  await blk.write(100, pattern(100, 512, 1));
  expect(blk.failure).toBeUndefined();
});

describe('a back end that', () => {
  it('is killed under load, again and again, loses nothing that was acknowledged and leaks nothing', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    const acknowledged = new Map<number, number>();
    // The part of the image that is written; one buffer for all rounds, so that memory that is kept is the driver's.
    const image = new Uint8Array(16 * 64 * 512);
    const round = async (seed: number): Promise<void> => {
      await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
      {
        using device = await open(daemon.socket);
        using blk = new VirtioBlk(device.transport, device.hal);
        const { count, reached } = counter(1 + (seed % 20) * 37);
        const load = Array.from({ length: 16 }, async (_, lane) => {
          for (let n = 0; ; n += 1) {
            const sector = lane * 64 + (n % 64);
            acknowledged.delete(sector);
            await blk.write(sector, pattern(sector, 512, seed));
            acknowledged.set(sector, seed);
            count();
          }
        });
        const ends = Promise.allSettled(load);
        await reached;
        await daemon.kill();
        for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'DEVICE_REMOVED' } });
      }
      using file = openFile(path);
      readSync(file.fd, image, 0, image.length, 0);
      for (const [sector, written] of acknowledged) {
        const data = image.subarray(sector * 512, sector * 512 + 512);
        expect(Buffer.compare(data, pattern(sector, 512, written)), `sector ${sector}`).toBe(0);
      }
    };
    for (let n = 0; n < 3; n += 1) await round(n);
    const before = [descriptors(), mappings()];
    const memory = await memoryInUse();
    for (let n = 3; n < 3 + KILLS; n += 1) await round(n);
    expect([descriptors(), mappings()]).toEqual(before);
    const after = await memoryInUse();
    const grown = { heap: after.heap - memory.heap, resident: after.resident - memory.resident };
    console.log(
      `${KILLS} kills; ${descriptors()} descriptors and ${mappings()} mappings as before; the heap grew by ${grown.heap >> 10} KiB, ` +
        `the resident memory by ${grown.resident >> 10} KiB`,
    );
    // Compiled code comes and goes; a driver with its transport that is kept is larger than that each time.
    expect(grown.heap).toBeLessThan(4 * MIB + KILLS * 16_384);
    expect(grown.resident).toBeLessThan(64 * MIB + KILLS * 131_072);
  });

  it('is killed and started anew is found again, and the driver goes on after a reset', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    let daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
    using device = await open(daemon.socket, { reconnect: true });
    using blk = new VirtioBlk(device.transport, device.hal);
    for (let n = 1; n <= 5; n += 1) {
      const { count, reached } = counter(100);
      const load = Array.from({ length: 8 }, async (_, lane) => {
        for (;;) {
          await blk.write(lane, pattern(lane, 512, n));
          count();
        }
      });
      const ends = Promise.allSettled(load);
      await reached;
      await daemon.kill();
      for (const end of await ends) expect(end).toMatchObject({ reason: { code: 'DEVICE_NEEDS_RESET' } });
      blk.reset();
      const waiting = blk.write(50 + n, pattern(50 + n, 512, n));
      daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(path) });
      await waiting;
      await blk.flush();
      expect(readFileSync(path).subarray((50 + n) * 512, (51 + n) * 512)).toEqual(
        Buffer.from(pattern(50 + n, 512, n)),
      );
    }
    await daemon.kill();
  });

  it('hangs is given up at a reset', async () => {
    using folder = new Folder();
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(rawImage(folder)) });
    using device = await open(daemon.socket, { timeoutMs: 1000 });
    using blk = new VirtioBlk(device.transport, device.hal);
    await blk.read(0, new Uint8Array(512));
    await daemon.freeze();
    const reading = Promise.allSettled([blk.read(0, new Uint8Array(512))]);
    expect(() => blk.readSync(0, new Uint8Array(512), { timeoutMs: 100 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    expect(() => blk.reset()).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    expect((await reading)[0].status).toBe('rejected');
  });

  it('has a front end never answers a second one', async () => {
    using folder = new Folder();
    await using daemon = await StorageDaemon.start(folder, { blockdevs: rawFile(rawImage(folder)) });
    using device = await open(daemon.socket);
    using blk = new VirtioBlk(device.transport, device.hal);
    await expect(open(daemon.socket, { timeoutMs: 300 })).rejects.toMatchObject({ code: 'NOT_READY' });
    await blk.read(0, new Uint8Array(512));
  });

  it('still has slow requests at a reset is waited for: it writes to no memory afterwards', async () => {
    using folder = new Folder();
    const path = rawImage(folder);
    writeFileSync(path, new Uint8Array(SIZE).fill(0xaa));
    await using daemon = await StorageDaemon.start(folder, {
      objects: ['--object', 'throttle-group,id=slow,x-iops-total=20'],
      blockdevs: [
        `driver=file,node-name=file,filename=${path}`,
        'driver=raw,node-name=raw,file=file',
        'driver=throttle,node-name=disk,throttle-group=slow,file=raw',
      ],
    });
    using device = await open(daemon.socket);
    using blk = new VirtioBlk(device.transport, device.hal);
    using buffer = device.hal.alloc(16 * 512);
    const reads = Array.from({ length: 16 }, (_, i) =>
      blk.read(i, buffer.bytes.subarray(512 * i, 512 * i + 512)),
    );
    const settled = Promise.allSettled(reads);
    await reads[0];
    blk.reset();
    await settled;
    buffer.bytes.fill(0);
    // The disk is as slow with these, which would come after what it still had.
    for (let n = 0; n < 8; n += 1) await blk.read(100 + n, new Uint8Array(512));
    expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
  });
});
