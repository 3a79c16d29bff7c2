/** What a driver does whose device is closed before it. */
import type { VirtioBlk } from '@virtio/blk';
import { expect } from 'vitest';

const removed = expect.objectContaining({ code: 'DEVICE_REMOVED' }) as Error;

/** Closes the device under a disk's driver: all calls end with a typed error, also for a listener that resets the driver. */
export async function expectTypedEnd(blk: VirtioBlk, close: () => void): Promise<void> {
  const heard: unknown[] = [];
  blk.on('failure', (error) => {
    heard.push(error);
    expect(() => blk.reset()).toThrow(removed);
  });
  const reading = expect(blk.read(0, new Uint8Array(512))).rejects.toThrow(removed);
  close();
  await reading;
  expect(heard).toEqual([removed]);
  expect(heard[0]).toMatchObject({ message: expect.stringContaining('is closed') as string });
  expect(() => blk.readSync(0, new Uint8Array(512))).toThrow(removed);
  expect(() => blk.reset()).toThrow(removed);
  blk.ackInterrupt();
  blk[Symbol.dispose]();
}
