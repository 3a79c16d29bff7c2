/** What the driver makes of the device's answers, true and false. */
import { describe, expect, it } from 'vitest';
import { FakeDisk, type OpenDisk, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import { RequestStatus } from './index.ts';

const failed = (code: string, message = /./): Error =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as Error;

function close({ blk, device }: OpenDisk): void {
  blk[Symbol.dispose]();
  device.assertClean();
}

const rings = [
  ['split', 0n],
  ['packed', 1n << 34n],
] as const;

describe.each(rings)('the answers to requests on a %s ring', (_name, ring) => {
  it('rejects with IO_ERROR only the request that the device failed', async () => {
    const open = openFakeDisk({ ring });
    const { blk, disk } = open;
    disk.answer = ({ sector }) => (sector === 2 ? RequestStatus.IOERR : undefined);
    const results = await Promise.allSettled(
      [0, 1, 2, 3].map((sector) => blk.write(sector, pattern(512, sector))),
    );
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    expect(results[2]).toMatchObject({ reason: { code: 'IO_ERROR' } });
    expect(() => blk.writeSync(2, new Uint8Array(512))).toThrow(
      failed('IO_ERROR', /write \(OUT\) at sector 2 .*IOERR/),
    );
    const token = blk.submitRead(2, new Uint8Array(512));
    expect(blk.poll()).toBe(token);
    expect(() => blk.complete(token)).toThrow(failed('IO_ERROR'));
    blk.writeSync(3, new Uint8Array(512));
    expect(blk.failure).toBeUndefined();
    close(open);
  });

  it('says that a request is no multiple of the block size where that is the likely reason', () => {
    const open = openFakeDisk({ ring, features: ['BLK_SIZE'], config: { blkSize: 4096 } });
    const { blk, disk } = open;
    disk.answer = () => RequestStatus.IOERR;
    const likely = /blocks of 4096 bytes, and 512 bytes at byte 4096 are not whole blocks/;
    expect(() => blk.readSync(8, new Uint8Array(512))).toThrow(failed('IO_ERROR', likely));
    expect(() => blk.readSync(1, new Uint8Array(4096))).toThrow(failed('IO_ERROR', /at byte 512/));
    expect(() => blk.readSync(8, new Uint8Array(4096))).toThrow(failed('IO_ERROR', /^(?!.*whole blocks)/));
    close(open);
  });

  it('rejects with UNSUPPORTED what the device does not support', async () => {
    const open = openFakeDisk({ ring });
    open.disk.answer = () => RequestStatus.UNSUPP;
    await expect(open.blk.deviceId()).rejects.toThrow(failed('UNSUPPORTED', /GET_ID/));
    expect(() => open.blk.readSync(0, new Uint8Array(512))).toThrow(failed('UNSUPPORTED'));
    open.disk.answer = undefined;
    open.blk.readSync(0, new Uint8Array(512));
    close(open);
  });

  it('does not trust a status that the specification does not have, on that request alone', () => {
    const open = openFakeDisk({ ring });
    const { blk, disk } = open;
    const data = new Uint8Array(512).fill(1);
    for (const status of [3, 4, 6, 7, 100, 254, 255]) {
      disk.answer = ({ sector }) => (sector === 1 ? status : undefined);
      expect(() => blk.readSync(1, data)).toThrow(failed('DEVICE_MISBEHAVED'));
      blk.readSync(0, new Uint8Array(512));
    }
    expect(data).toEqual(new Uint8Array(512).fill(1));
    expect(blk.failure).toBeUndefined();
    close(open);
  });

  it('does not take a status for one that the device did not write', () => {
    const open = openFakeDisk({ ring });
    const { blk, device } = open;
    const data = new Uint8Array(512).fill(1);
    // A request that succeeds first, in the same slot: its status must not be taken for the next one's.
    blk.readSync(0, data);
    data.fill(1);
    device.handle(0, (chain) => {
      chain.write(new Uint8Array(512).fill(2));
      chain.complete(chain.writable);
    });
    expect(() => blk.readSync(0, data)).toThrow(failed('DEVICE_MISBEHAVED', /did not write a status/));
    expect(data).toEqual(new Uint8Array(512).fill(1));
    close(open);
  });

  it('judges by the status where the length leaves it out, as devices in use do, and counts that', async () => {
    const open = openFakeDisk({ ring });
    const { blk, device } = open;
    const messages: string[] = [];
    blk.on('quirk', ({ message }) => messages.push(message));
    const data = new Uint8Array(512);
    const lengths = [0, 1, 512];
    for (const length of lengths) {
      device.handle(0, (chain) => {
        chain.write(new Uint8Array(512).fill(2)).write([0]);
        chain.complete(length);
      });
      data.fill(1);
      await blk.read(0, data);
      expect(data).toEqual(new Uint8Array(512).fill(2));
    }
    expect(messages).toEqual(
      lengths.map((length) => expect.stringContaining(`${length} written bytes instead of 513`) as string),
    );
    // Those that count what they read on writes, too.
    device.handle(0, (chain) => {
      chain.write([0]);
      chain.complete(513);
    });
    blk.writeSync(0, data);
    expect(blk.quirks).toBe(4);
    expect(blk.failure).toBeUndefined();
    close(open);
  });

  it('takes an error for an error however much the device wrote', () => {
    const open = openFakeDisk({ ring });
    open.device.handle(0, (chain) => {
      chain.writeAt(chain.writable - 1, [RequestStatus.IOERR]);
      chain.complete(1);
    });
    expect(() => open.blk.readSync(0, new Uint8Array(512))).toThrow(failed('IO_ERROR'));
    close(open);
  });

  it('fails the whole driver when the device lies about the ring', async () => {
    const open = openFakeDisk({ ring });
    const { blk, device } = open;
    const failures: string[] = [];
    blk.on('failure', ({ code }) => failures.push(code));
    device.handle(0, (chain) => {
      chain.defer();
      device.queue(0).forceUsed(63, 0);
    });
    await expect(blk.read(0, new Uint8Array(512))).rejects.toThrow(failed('DEVICE_MISBEHAVED'));
    expect(() => blk.readSync(0, new Uint8Array(512))).toThrow(failed('DEVICE_MISBEHAVED'));
    expect(failures).toEqual(['DEVICE_MISBEHAVED']);
    blk.reset();
    const disk = new FakeDisk();
    device.handle(0, (chain) => {
      chain.write(disk.bytes.subarray(0, 512)).write([0]);
    });
    await blk.read(0, new Uint8Array(512));
    close(open);
  });
});
