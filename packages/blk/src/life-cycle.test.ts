/** Full queues, time-outs, resets, removal and disposal. */
import { type VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import type { VirtioBlk } from './index.ts';

const failed = (code: string): Error => expect.objectContaining({ code }) as Error;
const sector = (): Uint8Array => new Uint8Array(512);

/** Lets promises go on until none has anything to do. */
async function settle(): Promise<void> {
  for (let n = 0; n < 50; n += 1) await Promise.resolve();
}

async function codes(promises: readonly Promise<unknown>[]): Promise<string[]> {
  const results = await Promise.allSettled(promises);
  return results.map((result) =>
    result.status === 'fulfilled' ? 'fulfilled' : (result.reason as VirtioError).code,
  );
}

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

describe('a full queue', () => {
  it('is reported to non-blocking and synchronous requests, and nothing is lost', () => {
    const open = openFakeDisk({ queues: [8] });
    const { blk, disk } = open;
    disk.holdBack = true;
    const tokens = [blk.submitRead(0, sector()), blk.submitRead(1, sector())];
    expect(() => blk.submitRead(2, sector())).toThrow(failed('QUEUE_FULL'));
    expect(() => blk.readSync(2, sector())).toThrow(failed('QUEUE_FULL'));
    expect(disk.requests).toHaveLength(2);
    disk.release();
    disk.holdBack = false;
    expect([blk.poll(), blk.poll()]).toEqual(tokens);
    tokens.forEach((token) => blk.complete(token));
    blk.readSync(2, sector());
    close(open);
  });

  it('takes what the device has used for room', () => {
    const open = openFakeDisk({ queues: [4] });
    const { blk } = open;
    const first = blk.submitRead(0, sector());
    const second = blk.submitRead(1, sector());
    expect([blk.poll(), blk.poll()]).toEqual([first, second]);
    blk.complete(first);
    blk.complete(second);
    close(open);
  });

  it('makes promises wait in line, each served in its turn', async () => {
    const open = openFakeDisk({ queues: [8] });
    const { blk, disk } = open;
    const order: number[] = [];
    const parts = [4, 1, 6, 2, 1, 1, 5, 3];
    await Promise.all(
      parts.map((count, n) =>
        blk
          .write(
            n * 8,
            Array.from({ length: count }, () => pattern(512, n)),
          )
          .then(() => order.push(n)),
      ),
    );
    expect(order).toEqual(parts.map((_, n) => n));
    expect(disk.requests.map((request) => request.sector / 8)).toEqual(order);
    close(open);
  });

  it('lets nobody overtake those who wait in line', async () => {
    const open = openFakeDisk({ queues: [8] });
    const { blk, disk } = open;
    disk.holdBack = true;
    let waiting = true as boolean;
    const greedy = [1, 2].map(async (n) => {
      while (waiting) await blk.read(n, sector());
    });
    // It needs the whole queue, of which one part or the other would always be taken again at once.
    const large = blk
      .write(
        8,
        Array.from({ length: 6 }, () => sector()),
      )
      .finally(() => (waiting = false));
    for (let turn = 0; turn < 100 && waiting; turn += 1) {
      await settle();
      disk.release(disk.held.slice(0, 1));
    }
    expect(waiting).toBe(false);
    disk.holdBack = false;
    await settle();
    disk.release();
    await Promise.all([large, ...greedy]);
    close(open);
  });

  it.each(['resized', 'transferred'])(
    'sends nothing of a request whose buffers are %s while it waits in line',
    async (how) => {
      const open = openFakeDisk({ queues: [4] });
      const { blk, disk } = open;
      disk.holdBack = true;
      const before = Array.from({ length: 4 }, () => blk.read(0, sector()));
      const buffer = new ArrayBuffer(512, { maxByteLength: 4096 });
      const data = new Uint8Array(buffer);
      const requests = [blk.write(1, data), blk.read(1, data)];
      await settle();
      if (how === 'resized') buffer.resize(1000);
      else buffer.transfer();
      disk.holdBack = false;
      disk.release();
      expect(await codes([...before, ...requests])).toEqual([
        ...before.map(() => 'fulfilled'),
        'INVALID_PARAM',
        'INVALID_PARAM',
      ]);
      await expect(requests[0]).rejects.toThrow(/write \(OUT\) at sector 1: .* was not sent/);
      expect(disk.requests).toHaveLength(4);
      close(open);
    },
  );

  it('rejects those who wait in line when the device is reset', async () => {
    const open = openFakeDisk({ queues: [4] });
    const { blk, disk } = open;
    disk.holdBack = true;
    const reads = [0, 1, 2, 3].map((n) => blk.read(n, sector()));
    await settle();
    expect(disk.held).toHaveLength(1);
    blk.reset();
    expect(await codes(reads)).toEqual(['DEVICE_RESET', 'DEVICE_RESET', 'DEVICE_RESET', 'DEVICE_RESET']);
    disk.holdBack = false;
    await blk.read(0, sector());
    close(open);
  });
});

describe('a device that does not answer', () => {
  it('makes a synchronous request give up after its time, and keeps the buffer until the answer', () => {
    const open = openFakeDisk({ queues: [4] });
    const { blk, disk, device } = open;
    disk.bytes.fill(3);
    disk.holdBack = true;
    const late = sector();
    expect(() => blk.readSync(0, late, { timeoutMs: 5 })).toThrow(failed('NOT_READY'));
    expect(device.hal.shares).toHaveLength(1);
    expect(() => blk.readSync(0, sector(), { timeoutMs: 5 })).toThrow(failed('QUEUE_FULL'));
    disk.release();
    disk.holdBack = false;
    expect(blk.poll()).toBe(-1);
    expect(device.hal.shares).toHaveLength(0);
    expect(late).toEqual(sector());
    blk.readSync(0, late);
    expect(late).toEqual(new Uint8Array(512).fill(3));
    close(open);
  });

  it('gives the slots of such requests back without anybody polling', () => {
    const open = openFakeDisk({ queues: [8] });
    const { blk, disk } = open;
    for (let n = 0; n < 20; n += 1) {
      disk.holdBack = true;
      expect(() => blk.readSync(n, sector(), { timeoutMs: 1 })).toThrow(failed('NOT_READY'));
      disk.release();
      disk.holdBack = false;
      blk.readSync(n, sector());
    }
    close(open);
  });

  it('gives them back at a reset, answered or not', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.holdBack = true;
    expect(() => blk.readSync(0, sector(), { timeoutMs: 1 })).toThrow(failed('NOT_READY'));
    expect(() => blk.readSync(1, sector(), { timeoutMs: 1 })).toThrow(failed('NOT_READY'));
    // Somebody who waits makes the driver look at what was used.
    const read = blk.read(2, sector());
    await settle();
    disk.release([0, 2].flatMap((n) => disk.held.slice(n, n + 1)));
    await read;
    blk.reset();
    expect(device.hal.shares).toHaveLength(0);
    expect(blk.poll()).toBe(-1);
    close(open);
  });

  it.each([
    ['the device', (blk: VirtioBlk) => blk.reset()],
    ['the queue', (blk: VirtioBlk) => blk.resetQueue(0)],
  ])('does not take a later request for one that a reset of %s ended', (_what, reset) => {
    const open = openFakeDisk({ ring: 1n << 40n });
    const { blk, disk } = open;
    disk.holdBack = true;
    expect(() => blk.readSync(0, sector(), { timeoutMs: 1 })).toThrow(failed('NOT_READY'));
    reset(blk);
    disk.holdBack = false;
    const tokens = [0, 1, 2].map((n) => blk.submitRead(n, sector()));
    for (const token of tokens) blk.complete(token);
    close(open);
  });

  it('tells a synchronous request, and everybody else, that it needs a reset [2.1.1]', async () => {
    const open = openFakeDisk();
    const { blk, disk, device, transport } = open;
    disk.holdBack = true;
    const other = blk.read(1, sector());
    await settle();
    if (transport.interrupts) transport.interrupts.masked = true;
    device.needsReset();
    expect(() => blk.readSync(0, sector())).toThrow(failed('DEVICE_NEEDS_RESET'));
    expect(await codes([other])).toEqual(['DEVICE_NEEDS_RESET']);
    expect(blk.failure?.code).toBe('DEVICE_NEEDS_RESET');
    disk.holdBack = false;
    blk.reset();
    blk.readSync(0, sector());
    close(open);
  });
});

describe('reset()', () => {
  it('rejects what is in flight, and brings the device back with the same features', async () => {
    const open = openFakeDisk({ features: ['FLUSH', 'BLK_SIZE'], ring: 1n << 34n });
    const { blk, disk, device } = open;
    const features = String(blk.features);
    disk.holdBack = true;
    const reads = [0, 1].map((n) => blk.read(n, sector()));
    const token = blk.submitRead(2, sector());
    await settle();
    blk.reset();
    expect(await codes(reads)).toEqual(['DEVICE_RESET', 'DEVICE_RESET']);
    expect(() => blk.complete(token)).toThrow(failed('WRONG_TOKEN'));
    expect(device.hal.shares).toHaveLength(0);
    expect(String(blk.features)).toBe(features);
    disk.holdBack = false;
    await blk.write(0, pattern(512));
    expect(disk.bytes.subarray(0, 512)).toEqual(pattern(512));
    close(open);
  });

  it('reports a capacity that changed with it', () => {
    const open = openFakeDisk({ sectors: 10 });
    const seen: number[] = [];
    open.blk.on('capacity', (capacity) => seen.push(capacity));
    open.blk.reset();
    expect(seen).toEqual([]);
    new DataView(open.device.config.buffer).setBigUint64(0, 20n, true);
    open.blk.reset();
    expect(seen).toEqual([20]);
    close(open);
  });

  it('voids the tokens of what was done before it', () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    disk.bytes.fill(5);
    const data = sector();
    const token = blk.submitRead(0, data);
    expect(blk.poll()).toBe(token);
    blk.reset();
    expect(() => blk.complete(token)).toThrow(failed('WRONG_TOKEN'));
    expect(data).toEqual(sector());
    close(open);
  });

  it('of one queue leaves the others alone [2.6.1]', async () => {
    const open = openFakeDisk({ features: ['MQ'], queues: [8, 8], ring: 1n << 40n });
    const { blk, disk } = open;
    disk.holdBack = true;
    const reads = [0, 1].map((queue) => blk.read(queue, sector(), { queue }));
    expect(() => blk.readSync(5, sector(), { queue: 0, timeoutMs: 1 })).toThrow(failed('NOT_READY'));
    await settle();
    blk.resetQueue(0);
    disk.release(disk.held.filter(({ queue }) => queue === 1));
    expect(await codes(reads)).toEqual(['DEVICE_RESET', 'fulfilled']);
    disk.holdBack = false;
    await blk.read(0, sector(), { queue: 0 });
    close(open);
  });
});

describe('a device that fails or goes', () => {
  it('rejects all requests in flight when the device needs a reset, until it is reset [2.1.1]', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.holdBack = true;
    const reads = [0, 1].map((n) => blk.read(n, sector()));
    const token = blk.submitRead(2, sector());
    await settle();
    device.needsReset();
    expect(await codes(reads)).toEqual(['DEVICE_NEEDS_RESET', 'DEVICE_NEEDS_RESET']);
    expect(() => blk.poll()).toThrow(failed('DEVICE_NEEDS_RESET'));
    expect(() => blk.complete(token)).toThrow(failed('DEVICE_NEEDS_RESET'));
    expect(() => blk.readSync(0, sector())).toThrow(failed('DEVICE_NEEDS_RESET'));
    expect(() => blk.writeCache()).toThrow(failed('DEVICE_NEEDS_RESET'));
    await expect(blk.flush()).rejects.toThrow(failed('DEVICE_NEEDS_RESET'));
    disk.holdBack = false;
    blk.reset();
    await blk.read(0, sector());
    close(open);
  });

  it('rejects all requests in flight when it is unplugged, and gives everything back', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.holdBack = true;
    const reads = [0, 1].map((n) => blk.read(n, sector()));
    blk.submitRead(2, sector());
    await settle();
    device.remove();
    expect(await codes(reads)).toEqual(['DEVICE_REMOVED', 'DEVICE_REMOVED']);
    await expect(blk.write(0, sector())).rejects.toThrow(failed('DEVICE_REMOVED'));
    expect(() => blk.reset()).toThrow(failed('DEVICE_REMOVED'));
    close(open);
  });

  it('notices while it spins that the device was unplugged', async () => {
    const open = openFakeDisk({ interrupts: false });
    const { blk, disk, device } = open;
    disk.holdBack = true;
    device.onNotify = () => device.remove();
    expect(() => blk.readSync(0, sector())).toThrow(failed('DEVICE_REMOVED'));
    expect(blk.failure?.code).toBe('DEVICE_REMOVED');
    close(open);
    await settle();
  });
});

describe('disposal', () => {
  it('rejects what is in flight, and gives back all buffers after the device was reset', async () => {
    const open = openFakeDisk();
    const { blk, disk } = open;
    disk.holdBack = true;
    const read = blk.read(0, sector());
    const token = blk.submitRead(1, sector());
    await settle();
    close(open);
    expect(await codes([read])).toEqual(['DISPOSED']);
    expect(() => blk.complete(token)).toThrow(failed('DISPOSED'));
    expect(() => blk.poll()).toThrow(failed('DISPOSED'));
    await expect(blk.read(0, sector())).rejects.toThrow(failed('DISPOSED'));
    expect(() => blk.writeSync(0, sector())).toThrow(failed('DISPOSED'));
    expect(() => blk.reset()).toThrow(failed('DISPOSED'));
    expect(() => blk.writeCache()).toThrow(failed('DISPOSED'));
    blk[Symbol.dispose]();
  });

  it('gives back the buffers of requests that are done, but were not ended', async () => {
    const open = openFakeDisk();
    const { blk, disk, device } = open;
    disk.holdBack = true;
    const polled = blk.submitRead(0, sector());
    const promised = blk.read(1, sector());
    await settle();
    disk.release();
    expect(blk.poll()).toBe(polled);
    close(open);
    expect(() => blk.complete(polled)).toThrow(failed('DISPOSED'));
    expect(await codes([promised])).toEqual(['fulfilled']);
    expect(device.hal.leaks()).toEqual([]);
  });
});

describe('memory that cannot be shared', () => {
  it('fails the request alone, and gives back what was shared for it', async () => {
    const open = openFakeDisk({ queues: [8] });
    const { blk, device } = open;
    for (let n = 0; n < 20; n += 1) {
      device.hal.failShare({ after: 2 });
      expect(() => blk.writeSync(0, [pattern(256), pattern(256), pattern(512)])).toThrow(failed('DMA_ERROR'));
      expect(device.hal.shares).toHaveLength(0);
    }
    device.hal.failShare({ after: 0 });
    await expect(blk.read(0, sector())).rejects.toThrow(failed('DMA_ERROR'));
    await blk.read(0, sector());
    close(open);
  });

  it('fails the opening, and gives everything back', () => {
    for (let after = 0; after < 4; after += 1) {
      let opened: OpenDisk | undefined;
      let device: OpenDisk['device'] | undefined;
      try {
        opened = openFakeDisk({
          prepare: (disk) => {
            ({ device } = disk);
            device.hal.failAlloc({ after });
          },
        });
      } catch (error) {
        expect(error).toEqual(failed('DMA_ERROR'));
      }
      if (opened) close(opened);
      device?.assertClean();
      if (after === 0) expect(opened).toBeUndefined();
    }
  });
});
