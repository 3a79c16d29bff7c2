/** The board and the devices that it has. */
import type { BareDevice } from './devices.ts';
import { x86Machine } from './machine.ts';
import { discoverTree } from './tree.ts';
import { discoverX86 } from './x86.ts';

export { type BareDevice, hal } from './devices.ts';

let found: readonly BareDevice[] | undefined;

/** All virtio devices of the board. */
export function listDevices(): readonly BareDevice[] {
  const x86 = x86Machine();
  found ??= x86 === undefined ? discoverTree() : discoverX86(x86);
  return found;
}
