/** DMA memory in worker threads of the process that allocated it. */
import type { PostedMemory } from '@virtio/core';
import { viewMemory } from './syscalls.ts';

/**
 * Makes a view of memory that another thread of this process described with `LinuxHal.post`. It is valid until the owner frees the
 * memory.
 */
export function attachMemory({ pointer, length }: PostedMemory): Uint8Array<ArrayBuffer> {
  return new Uint8Array(viewMemory(pointer, length));
}
