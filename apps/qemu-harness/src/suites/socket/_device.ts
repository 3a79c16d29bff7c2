/** The socket device of the tests: `vhost-device-vsock`, a program of the host that shares the guest's memory. */
import { type Cell, type DeviceSpec, onPci } from '../../framework/define.ts';

/** The guest's context ID. */
export const CID = 42;
/** The host's. */
export const HOST = 2;

/** How a device is started. */
export interface SocketSpec {
  /** Bytes that the device takes of each connection before its far side reads them (default 65,536, its own default). */
  readonly window?: number;
  readonly hotplug?: boolean;
}

/** A socket device whose far ends are unix sockets in the test's folder. */
export function socketDevice({ window = 65_536, hotplug = false }: SocketSpec = {}): DeviceSpec {
  return {
    model: 'vhost-user-vsock',
    hotplug,
    backend: {
      program: 'vhost-device-vsock',
      socket: '{dir}/vhost',
      args: [
        ...['--guest-cid', String(CID), '--socket', '{dir}/vhost', '--uds-path', '{dir}/vsock'],
        ...['--tx-buffer-size', String(window)],
      ],
    },
    before: ['-chardev', 'socket,id={id}-chardev,path={dir}/vhost'],
    after: ['-set', 'device.{id}.chardev={id}-chardev'],
  };
}

/** Why a kind of guest cannot have the device. */
export function unable({ transport, ring }: Cell): string | undefined {
  if (transport === 'pci-vfio') {
    return 'the device is a program of its own that reaches memory by physical addresses: it knows no IOMMU';
  }
  if (transport === 'mmio-v1') {
    return 'the device has no legacy interface: its program ends ("invalid parameters") when QEMU sets it up without VERSION_1';
  }
  return ring.properties.packed === true ? 'the device offers no packed rings' : undefined;
}

/** Why a kind of guest cannot unplug the device. */
export function cannotUnplug(cell: Cell): string | undefined {
  return unable(cell) ?? (onPci(cell) ? undefined : 'only a PCI device can be unplugged');
}
