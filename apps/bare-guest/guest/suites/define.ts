/** Stands for the harness's `define.ts` in tests that run in a bare guest: the pattern is made natively there. */
import { machine } from '../machine.ts';

export { disk, guestTest, onPci, small } from '@virtio/qemu-harness/src/framework/define.ts';

export function pattern(bytes: Uint8Array, seed: number, position = 0): Uint8Array {
  machine.pattern(bytes.buffer, bytes.byteOffset, bytes.length, seed, position);
  return bytes;
}
