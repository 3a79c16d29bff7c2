import { VirtioError } from '@virtio/core';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LinuxSystem } from './system.ts';

/** The error with which each file is opened. */
const refused = vi.hoisted(() => ({ code: '' }));

vi.mock('node:fs', async (original) => {
  const fs = await original<{ openSync(...args: unknown[]): number }>();
  const openSync = (...args: unknown[]): number => {
    if (refused.code !== '') throw Object.assign(new Error(refused.code), { code: refused.code });
    return fs.openSync(...args);
  };
  return { ...fs, openSync };
});

const DEVICE = { kind: 'pci', address: '0000:00:03.0' } as const;
const PCI = 'sys/bus/pci/devices/0000:00:03.0';

describe('LinuxSystem', () => {
  let root: string;
  let system: LinuxSystem;

  const file = (path: string, text = ''): void => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
    system = new LinuxSystem({ root });
    file(`${PCI}/vendor`, '0x1af4\n');
    file(`${PCI}/device`, '0x1042\n');
    file(`${PCI}/driver_override`);
    file('sys/bus/pci/drivers_probe');
    file('sys/bus/pci/drivers/virtio-pci/unbind');
    symlinkSync('../../drivers/virtio-pci', join(root, PCI, 'driver'));
    file(`${PCI}/virtio0/features`, `0000000001${'0'.repeat(22)}1${'0'.repeat(31)}\n`);
    file(`${PCI}/virtio0/block/vda/dev`, '254:0\n');
    file(`${PCI}/virtio0/block/vda/vda1/dev`, '254:1\n');
    file(`${PCI}/virtio0/block/vda/vda2/dev`, '254:2\n');
  });

  afterEach(() => {
    refused.code = '';
    rmSync(root, { recursive: true });
  });

  it("reads the features of the kernel's driver", () => {
    expect(system.kernelFeatures(DEVICE)).toBe((1n << 9n) | (1n << 32n));
    expect(system.kernelFeatures({ kind: 'pci', address: '0000:00:04.0' })).toBeUndefined();
    expect(system.kernelFeatures({ kind: 'vhost-user', path: '/tmp/x' })).toBeUndefined();
  });

  it('knows where a disk is in use', () => {
    expect(system.kernelDisks(DEVICE)).toEqual([{ name: 'vda', uses: [] }]);
    file(
      'proc/self/mountinfo',
      '22 1 254:1 / /data rw - ext4 /dev/vda1 rw\n23 1 8:1 / / rw - ext4 /dev/sda1 rw\n',
    );
    file('proc/swaps', 'Filename Type Size Used Priority\n/dev/vda2 partition 100 0 -2\n');
    file(`${PCI}/virtio0/block/vda/holders/dm-0`);
    file('sys/class/block/dm-0/dm/name', 'vault\n');
    expect(system.kernelDisks(DEVICE)).toEqual([
      { name: 'vda', uses: ['vda1 is mounted at /data', 'vda2 is swap space', 'vda is part of vault'] },
    ]);
  });

  it('binds only to a driver that the kernel has, and takes nothing without being told to', () => {
    const code = (body: () => void): string | undefined => {
      try {
        body();
      } catch (error) {
        return VirtioError.is(error) ? error.code : String(error);
      }
      return undefined;
    };
    expect(code(() => system.bind('0000:00:09.0', 'vfio-pci', false))).toBe('NO_DEVICE');
    expect(code(() => system.bind(DEVICE.address, 'vfio-pci', true))).toBe('MODULE_MISSING');
    mkdirSync(join(root, 'sys/bus/pci/drivers/vfio-pci'));
    expect(code(() => system.bind(DEVICE.address, 'vfio-pci', false))).toBe('DEVICE_BUSY');
    expect(readFileSync(join(root, 'sys/bus/pci/drivers/virtio-pci/unbind'), 'utf8')).toBe('');
    // The files are no kernel, so the driver stays: that is told, and the override is taken back.
    expect(code(() => system.bind(DEVICE.address, 'vfio-pci', true))).toBe('SYSTEM_ERROR');
    expect(readFileSync(join(root, 'sys/bus/pci/drivers/virtio-pci/unbind'), 'utf8')).toBe(DEVICE.address);
    expect(readFileSync(join(root, PCI, 'driver_override'), 'utf8')).toBe('\n');
    expect(code(() => system.bind(DEVICE.address, 'virtio-pci', false))).toBeUndefined();
  });

  it('gives a device back to the driver that it had, and its override, when binding fails on the way', () => {
    mkdirSync(join(root, 'sys/bus/pci/drivers/vfio-pci'));
    file(`${PCI}/driver_override`, 'virtio-pci\n');
    expect(() => system.bind(DEVICE.address, 'vfio-pci', true)).toThrow(/did not take it/);
    expect(readFileSync(join(root, PCI, 'driver_override'), 'utf8')).toBe('virtio-pci\n');
    file('sys/bus/pci/drivers_probe');
    rmSync(join(root, PCI, 'driver_override'));
    expect(() => system.bind(DEVICE.address, 'vfio-pci', true)).toThrow(
      /driver_override could not be written/,
    );
    expect(readFileSync(join(root, 'sys/bus/pci/drivers/virtio-pci/unbind'), 'utf8')).toBe(DEVICE.address);
    expect(readFileSync(join(root, 'sys/bus/pci/drivers_probe'), 'utf8')).toBe(DEVICE.address);
  });

  it.each([
    ['EACCES', 'PERMISSION_DENIED', 'run it as root'],
    ['EPERM', 'PERMISSION_DENIED', 'run it as root'],
    ['EROFS', 'PERMISSION_DENIED', 'sysfs is read-only here, as in most containers: run it on the host'],
    ['EIO', 'SYSTEM_ERROR', "the kernel's log says why"],
  ])('says what to do if the kernel refuses with %s', (errno, code, advice) => {
    refused.code = errno;
    mkdirSync(join(root, 'sys/bus/pci/drivers/vfio-pci'));
    const fails = (act: string): unknown =>
      expect.objectContaining({
        code,
        message: expect.stringMatching(
          new RegExp(
            `^PCI 0000:00:03\\.0 could not be ${act}: .*/driver/unbind could not be written \\(${errno}\\); ${advice} `,
          ),
        ) as string,
      });
    expect(() => system.bind(DEVICE.address, 'vfio-pci', true)).toThrow(fails('bound to vfio-pci'));
    expect(() => system.unbind(DEVICE.address)).toThrow(fails('unbound from its driver'));
  });
});
