/** Opens an MMIO device. */
import { VirtioError } from '@virtio/core';
import { MmioTransport } from '@virtio/mmio';
import { DEV_MEM, DevMem } from './dev-mem.ts';
import { DeviceLock } from './device-lock.ts';
import { listMmioDevices, type MmioWindow } from './mmio-devices.ts';
import { pollingInterrupts } from './polling.ts';
import { Resources } from './resources.ts';
import type { SystemFiles } from './system-files.ts';

/** Maps the window from /dev/mem. */
export function openMmio(files: SystemFiles, { address, size }: MmioWindow, name: string): MmioTransport {
  if (
    !Number.isSafeInteger(address) ||
    !Number.isSafeInteger(size) ||
    address < 0 ||
    size < 1 ||
    address % 4 !== 0
  ) {
    throw new VirtioError(
      'INVALID_PARAM',
      `an MMIO window has an address and a size in bytes, not ${address} and ${size}`,
    );
  }
  const driver = listMmioDevices(files).find((device) => device.address === address)?.driver;
  if (driver !== undefined) {
    throw new VirtioError(
      'DEVICE_BUSY',
      `${name} is in use by the kernel's driver ${driver}; unbind it (/sys/bus/platform/drivers/${driver}/unbind)`,
    );
  }
  const resources = new Resources();
  return resources.keepUnlessThrown(() => {
    resources.add(new DeviceLock(files, name, DEV_MEM, address, size));
    const memory = resources.add(new DevMem(files));
    const polling = pollingInterrupts(() => transport);
    // A driver that was not disposed before ends.
    resources.defer(() => {
      polling.remove();
    });
    const transport: MmioTransport = new MmioTransport(memory.map(address, size), {
      name,
      interrupts: polling,
      onDispose: () => resources[Symbol.dispose](),
    });
    return transport;
  });
}
