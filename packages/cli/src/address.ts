/** Addresses of devices: one form for each transport. */
import type { DeviceInfo } from '@virtio/linux';
import { usage } from './errors.ts';

/** The address of a device. */
export type Address =
  | { readonly kind: 'pci'; readonly address: string }
  | { readonly kind: 'mmio'; readonly address: number; readonly size: number }
  | { readonly kind: 'vhost-user'; readonly path: string };

const FORMS = 'pci:0000:00:03.0, mmio:0xfeb00e00 or vhost-user:/path/to/socket';

/** The default size of an MMIO window. */
const MMIO_SIZE = 0x200;

/** Parses an address; `0000:00:03.0` and `00:03.0` without a prefix are on PCI. */
export function parseAddress(text: string): Address {
  const [, scheme = '', rest = ''] = /^(pci|mmio|vhost-user):(.*)$/s.exec(text) ?? [];
  if (scheme === 'vhost-user' && rest !== '') return { kind: 'vhost-user', path: rest };
  if (scheme === 'mmio') {
    const [, address, size] = /^(0x[0-9a-f]+)(?:\+(0x[0-9a-f]+|\d+))?$/i.exec(rest) ?? [];
    const window = { address: Number(address), size: Number(size ?? MMIO_SIZE) };
    if (window.size > 0 && Number.isSafeInteger(window.address + window.size)) {
      return { kind: 'mmio', ...window };
    }
  }
  const [, domain = '0000', bus, slot, func] =
    /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i.exec(scheme === 'pci' ? rest : text) ??
    [];
  if (scheme !== 'mmio' && bus !== undefined && slot !== undefined && func !== undefined) {
    return { kind: 'pci', address: `${domain}:${bus}:${slot}.${func}`.toLowerCase() };
  }
  throw usage(`"${text}" is not the address of a device`, `write ${FORMS}; virtio list shows them`);
}

/** Formats an address as `virtio list` shows it. */
export function formatAddress(address: Address | DeviceInfo): string {
  switch (address.kind) {
    case 'pci':
      return `pci:${address.address}`;
    case 'mmio': {
      const size = address.size === MMIO_SIZE ? '' : `+0x${address.size.toString(16)}`;
      return `mmio:0x${address.address.toString(16)}${size}`;
    }
    case 'vhost-user':
      return `vhost-user:${address.path}`;
  }
}
