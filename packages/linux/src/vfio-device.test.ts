import { closeSync, openSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { DeviceFlags, DeviceInfo, RegionFlags, RegionInfo } from './vfio-abi.ts';
import type { VfioContainer } from './vfio-container.ts';
import { VfioDevice } from './vfio-device.ts';

/** The kernel: a PCI device with regions of a page that can be mapped. */
const kernel = vi.hoisted(() => ({ calls: [] as string[], fail: '' }));

vi.mock('./syscalls.ts', async (original) => ({
  ...(await original<object>()),
  ioctl: (_fd: number, _request: number, label: string, argument: Uint8Array): number => {
    kernel.calls.push(label);
    if (kernel.fail === label) throw Object.assign(new Error(`${label} failed`), { code: 'ENODEV' });
    const view = new DataView(argument.buffer);
    if (label === 'VFIO_DEVICE_GET_INFO') {
      view.setUint32(DeviceInfo.offset.flags, DeviceFlags.PCI, true);
    }
    if (label === 'VFIO_DEVICE_GET_REGION_INFO') {
      view.setUint32(RegionInfo.offset.flags, RegionFlags.MMAP, true);
      view.setBigUint64(RegionInfo.offset.size, 4096n, true);
    }
    return 0;
  },
}));

/** A container whose device is some file: one that cannot be mapped, as that of a device that is gone. */
function open(): VfioDevice {
  const fd = openSync('/proc/self/status', 'r');
  const container = {
    openDevice: () => fd,
    closeDevice: () => {
      closeSync(fd);
    },
  } as unknown as VfioContainer;
  return new VfioDevice(container, '0000:00:03.0', 4, () => '');
}

describe('VfioDevice', () => {
  beforeEach(() => {
    kernel.calls.length = 0;
    kernel.fail = '';
  });

  it('says what could not be mapped, also when a driver asks for it long after opening', () => {
    using device = open();
    const failed = (code: string, reason: string): Error =>
      expect.objectContaining({
        code,
        message: expect.stringMatching(
          `^PCI 0000:00:03\\.0: 256 bytes at 0 of BAR 2 could not be mapped \\(${reason}\\); the device may have been unplugged`,
        ) as string,
      }) as Error;
    kernel.fail = 'VFIO_DEVICE_GET_REGION_INFO';
    expect(() => device.mapBar(2, 0, 256)).toThrow(failed('SYSTEM_ERROR', 'ENODEV'));
    kernel.fail = '';
    expect(() => device.mapBar(2, 0, 256)).toThrow(failed('PERMISSION_DENIED', 'EACCES'));
    expect(() => device.mapBar(2, 4000, 256)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
  });

  it.each(['abandon', Symbol.dispose] as const)('maps nothing of another file after %s', (end) => {
    const device = open();
    device[end]();
    kernel.calls.length = 0;
    expect(() => device.mapBar(2, 0, 256)).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    expect(kernel.calls).toEqual([]);
  });
});
