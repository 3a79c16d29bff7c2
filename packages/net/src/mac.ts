/** MAC addresses: six bytes on the wire, `52:54:00:12:34:56` as text. */
import { VirtioError } from '@virtio/core';
import { MAC_SIZE } from './protocol.ts';

/** The address that all stations receive. */
export const BROADCAST: readonly number[] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/** Formats an address as `52:54:00:12:34:56`. */
export function formatMac(address: ArrayLike<number>): string {
  return Array.from({ length: MAC_SIZE }, (_, i) => (address[i] ?? 0).toString(16).padStart(2, '0')).join(
    ':',
  );
}

/**
 * Parses an address: six bytes, or pairs of hexadecimal digits with `:` or `-` between them.
 *
 * @returns a copy of its bytes
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function parseMac(address: string | ArrayLike<number>): Uint8Array<ArrayBuffer> {
  if (typeof address === 'string') {
    if (/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(address)) {
      return Uint8Array.from(address.split(/[:-]/), (pair) => Number.parseInt(pair, 16));
    }
  } else if (address instanceof Uint8Array || Array.isArray(address)) {
    const bytes = Array.from(address as ArrayLike<number>);
    if (
      bytes.length === MAC_SIZE &&
      bytes.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)
    ) {
      return Uint8Array.from(bytes);
    }
  }
  throw new VirtioError(
    'INVALID_PARAM',
    `${typeof address === 'string' ? `'${address}'` : 'the value'} is not a MAC address; give six bytes, or text like ` +
      '52:54:00:12:34:56',
  );
}

/** Whether an address is that of a group of stations; the broadcast address is one. */
export function isMulticast(address: ArrayLike<number>): boolean {
  return ((address[0] ?? 0) & 1) !== 0;
}

/** Whether a single station can have the address: it is neither all zeros nor that of a group. */
export function isStation(address: ArrayLike<number>): boolean {
  return !isMulticast(address) && Array.from(address).some((byte) => byte !== 0);
}

/** A random, locally administered unicast address. */
export function randomMac(): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length: MAC_SIZE }, () => Math.floor(Math.random() * 256));
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 2;
  return bytes;
}
