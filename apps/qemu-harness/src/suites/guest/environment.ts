/**
 * The guest itself: what the tests of the drivers rely on. If these tests fail, the failures of the others say nothing about a
 * driver.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { disk, guestTest, onPci } from '../../framework/define.ts';

const MEBIBYTE = 1 << 20;

export default [
  guestTest({
    device: 'guest',
    name: 'has no kernel driver on its virtio devices',
    devices: { disk: disk({ size: MEBIBYTE }) },
    guest(context) {
      const location = context.device('disk');
      const modules = readFileSync('/proc/modules', 'utf8');
      ok(!/^virtio/m.test(modules), `loaded modules:\n${modules}`);
      if (location.kind === 'mmio') {
        match(readFileSync('/proc/iomem', 'utf8'), /LNRO0005|virtio_mmio/);
        ok(!existsSync('/sys/bus/virtio/devices') || readdirSync('/sys/bus/virtio/devices').length === 0);
        return;
      }
      const path = `/sys/bus/pci/devices/${location.address}`;
      equal(readFileSync(`${path}/vendor`, 'utf8').trim(), '0x1af4');
      equal(readFileSync(`${path}/device`, 'utf8').trim(), '0x1042');
      ok(!existsSync(`${path}/driver`), 'a kernel driver has the device');
    },
  }),

  guestTest({
    device: 'guest',
    name: 'binds a device to vfio-pci behind the IOMMU, in a group of its own',
    devices: { disk: disk({ size: MEBIBYTE }) },
    skip: ({ transport }) =>
      transport === 'pci-vfio' ? undefined : 'VFIO is for PCI devices behind an IOMMU',
    guest(context) {
      const location = context.device('disk');
      ok(location.kind === 'pci');
      const path = `/sys/bus/pci/devices/${location.address}`;
      writeFileSync(`${path}/driver_override`, 'vfio-pci');
      writeFileSync('/sys/bus/pci/drivers_probe', location.address);
      match(readlinkSync(`${path}/driver`), /\/vfio-pci$/);
      const group = readlinkSync(`${path}/iommu_group`);
      deepEqual(readdirSync(`${path}/iommu_group/devices`), [location.address]);
      ok(existsSync(`/dev/vfio/${group.replace(/^.*\//, '')}`));
    },
  }),

  guestTest({
    device: 'guest',
    name: 'finds a device behind a port, and sees it go when it is unplugged',
    devices: { disk: { ...disk({ size: MEBIBYTE }), hotplug: true } },
    skip: (cell) => (onPci(cell) ? undefined : 'MMIO has no hot-unplug'),
    host: {
      async unplug(_args: null, env) {
        await env.qmp('device_del', { id: env.deviceId('disk') });
        await env.qmpEvent('DEVICE_DELETED');
      },
    },
    async guest(context) {
      const location = context.device('disk');
      ok(location.kind === 'pci');
      const path = `/sys/bus/pci/devices/${location.address}`;
      equal(readFileSync(`${path}/device`, 'utf8').trim(), '0x1042');
      await context.host('unplug', null);
      for (let attempt = 0; existsSync(path) && attempt < 50; attempt++) await delay(100);
      ok(!existsSync(path), 'the kernel still has the device');
    },
  }),

  guestTest({
    device: 'guest',
    name: 'has huge pages whose physical addresses a process can see',
    devices: {},
    guest() {
      const free = /^HugePages_Free:\s+(\d+)$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
      ok(Number(free) >= 64, `${free ?? 'no'} free huge pages`);
      ok(existsSync('/proc/self/pagemap'));
    },
  }),
];
