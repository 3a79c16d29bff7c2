/** Random reads of 4 KiB at a given depth, for a given time. */
import type { VirtioBlk } from '@virtio/blk';
import type { LinuxHal } from '@virtio/linux';

const SIZE = 4096;

/** @returns reads a second */
export async function readFor(blk: VirtioBlk, hal: LinuxHal, depth: number, ms: number): Promise<number> {
  using memory = hal.alloc(depth * SIZE);
  const blocks = Math.floor(blk.capacity / 8);
  const start = performance.now();
  const end = start + ms;
  let done = 0;
  const lane = async (n: number): Promise<void> => {
    const buffer = memory.bytes.subarray(n * SIZE, (n + 1) * SIZE);
    for (let at = n; ; at = (at * 1103515245 + 12345) & 0x7fffffff) {
      await blk.read((at % blocks) * 8, buffer);
      done += 1;
      if (performance.now() >= end) return;
    }
  };
  await Promise.all(Array.from({ length: depth }, (_, n) => lane(n)));
  return (done * 1000) / (performance.now() - start);
}
