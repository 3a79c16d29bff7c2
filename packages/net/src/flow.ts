/**
 * A number for the flow that a frame belongs to: equal for all frames with the same addresses and ports, so that they stay in order
 * on one pair of queues, and spread evenly over flows. Both directions of a flow have the same number.
 */
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const VLAN = 0x8100;
const TCP = 6;
const UDP = 17;

const be16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);

/** Adds 16-bit words of both ends, so that their order does not matter. */
function mixEnds(
  hash: number,
  frame: Uint8Array,
  source: number,
  destination: number,
  words: number,
): number {
  let mixed = hash;
  for (let i = 0; i < words; i += 1) {
    const a = be16(frame, source + 2 * i);
    const b = be16(frame, destination + 2 * i);
    mixed = Math.imul(mixed ^ (a + b), 0x01000193);
    mixed = Math.imul(mixed ^ (a ^ b), 0x01000193);
  }
  return mixed;
}

/**
 * The number of a frame's flow, made from its IP addresses and, unless it is a fragment, its TCP or UDP ports; from its MAC addresses if
 * it is not IP. Use it modulo the number of pairs in use.
 *
 * @returns an integer from 0 to 2^32 - 1
 *
 * @example
 * ```ts
 * import { flowHash, type VirtioNet } from '@virtio/net';
 *
 * export async function sendByFlow(net: VirtioNet, frame: Uint8Array): Promise<void> {
 *   await net.send(frame, { pair: flowHash(frame) % net.activePairs });
 * }
 * ```
 */
export function flowHash(frame: Uint8Array): number {
  let at = 14;
  let type = be16(frame, 12);
  if (type === VLAN) {
    type = be16(frame, 16);
    at = 18;
  }
  let hash = 0x811c9dc5;
  if (type === IPV4) {
    hash = mixEnds(hash, frame, at + 12, at + 16, 2);
    const protocol = frame[at + 9] ?? 0;
    const isFragment = (be16(frame, at + 6) & 0x3fff) !== 0;
    const ports = at + 4 * ((frame[at] ?? 0) & 15);
    if ((protocol === TCP || protocol === UDP) && !isFragment) {
      hash = mixEnds(hash, frame, ports, ports + 2, 1);
    }
  } else if (type === IPV6) {
    hash = mixEnds(hash, frame, at + 8, at + 24, 8);
    const protocol = frame[at + 6] ?? 0;
    if (protocol === TCP || protocol === UDP) hash = mixEnds(hash, frame, at + 40, at + 42, 1);
  } else {
    hash = mixEnds(hash, frame, 0, 6, 3);
  }
  return (hash ^ (hash >>> 15)) >>> 0;
}
