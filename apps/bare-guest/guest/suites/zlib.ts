/** Stands for `node:zlib` in tests that run in a bare guest. */
import { machine } from '../machine.ts';

/** The CRC-32 of bytes, continued from another. */
export function crc32(bytes: Uint8Array, before = 0): number {
  return machine.crc32(bytes.buffer, bytes.byteOffset, bytes.length, before);
}
