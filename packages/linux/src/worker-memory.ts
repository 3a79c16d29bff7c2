/** DMA memory in worker threads of the process that allocated it. */
import type { PostedMemory } from '@virtio/core';
import { viewMemory } from './syscalls.ts';

/**
 * A view of memory that another thread of this process described with `LinuxHal.post`. It is valid for as long as the owner keeps the
 * memory.
 */
export function attachMemory({ pointer, length }: PostedMemory): Uint8Array<ArrayBuffer> {
  return new Uint8Array(viewMemory(pointer, length));
}
