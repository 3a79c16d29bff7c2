/** What the tests of `@virtio/linux` share. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs';
import { equal, ok, throws } from 'node:assert/strict';
import { basename } from 'node:path';
import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import type { GuestContext } from '../../framework/define.ts';

export const MIB = 2 ** 20;

/** The device's address on PCI. */
export function addressOf(context: Pick<GuestContext, 'device'>, name = 'disk'): string {
  const location = context.device(name);
  if (location.kind !== 'pci') throw new Error('the device is not on PCI');
  return location.address;
}

const sysfs = (address: string, file: string): string => `/sys/bus/pci/devices/${address}/${file}`;

/** The kernel driver that a device has. */
export function driverOf(address: string): string | undefined {
  try {
    return basename(readlinkSync(sysfs(address, 'driver')));
  } catch {
    return undefined;
  }
}

/** The number of a device's IOMMU group. */
export function groupOf(address: string): string {
  return basename(readlinkSync(sysfs(address, 'iommu_group')));
}

/** What a file of the device in sysfs says. */
export function readSysfs(address: string, file: string): string {
  return readFileSync(sysfs(address, file), 'utf8').trim();
}

/** Binds a device to a kernel driver until it is disposed. */
export function bindTo(driver: string, address: string): Disposable {
  writeFileSync(sysfs(address, 'driver_override'), driver);
  writeFileSync('/sys/bus/pci/drivers_probe', address);
  equal(driverOf(address), driver);
  return {
    [Symbol.dispose]: () => {
      if (driverOf(address) !== undefined) writeFileSync(sysfs(address, 'driver/unbind'), address);
      writeFileSync(sysfs(address, 'driver_override'), '\n');
    },
  };
}

/** A module of the kernel, loaded until it is disposed. */
export function loadModule(name: string): Disposable {
  execFileSync('modprobe', [name]);
  return { [Symbol.dispose]: () => void execFileSync('modprobe', ['-r', name]) };
}

/** Fails unless `action` throws a `VirtioError` of this code, and returns its message. */
export function failsWith(code: VirtioErrorCode, action: () => unknown): string {
  let message = '';
  throws(action, (error) => {
    ok(VirtioError.is(error), `not a VirtioError: ${String(error)}`);
    equal(error.code, code, error.message);
    ({ message } = error);
    return true;
  });
  return message;
}

/** A control group in which no process gets huge pages of 2 MiB; this process is in it until it is disposed. */
export function withoutHugePages(): Disposable {
  const root = '/tmp/cgroup';
  const group = `${root}/none`;
  mkdirSync(root);
  execFileSync('mount', ['-t', 'cgroup2', 'cgroup', root]);
  writeFileSync(`${root}/cgroup.subtree_control`, '+hugetlb');
  mkdirSync(group);
  writeFileSync(`${group}/hugetlb.2MB.max`, '0');
  writeFileSync(`${group}/cgroup.procs`, String(process.pid));
  return {
    [Symbol.dispose]: () => {
      writeFileSync(`${root}/cgroup.procs`, String(process.pid));
      rmdirSync(group);
      execFileSync('umount', [root]);
      rmdirSync(root);
    },
  };
}

/** How many huge pages are free. */
export function freeHugePages(): number {
  return Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
}
