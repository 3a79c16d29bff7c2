/** Packed rings: what QEMU's network card cannot do with them. */
import type { Cell } from '../../framework/define.ts';

/** Why the link is not taken down on a packed ring. */
export function linkStaysUp({ ring }: Cell): string | undefined {
  return ring.properties.packed === true
    ? "QEMU 10.0 miscounts a packed ring when it drops what is sent while the link is down, and breaks the device ('Virtqueue size exceeded')"
    : undefined;
}
