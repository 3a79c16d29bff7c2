/** The command line and the kernel's drivers, judged by sysfs. */
import { equal, match } from 'node:assert/strict';
import { type Cell, disk, guestTest } from '../../framework/define.ts';
import { addressOf, driverOf, loadModule, MIB, readSysfs } from '../linux/_linux.ts';
import { good, json, onSplit, virtio } from './_virtio.ts';

const vfioOnly = (cell: Cell): string | undefined =>
  onSplit(cell) ?? (cell.transport === 'pci-vfio' ? undefined : 'there is no IOMMU');

export default [
  guestTest({
    device: 'cli',
    name: 'binds a device to a driver of the kernel, takes it from one only if told, and unbinds it',
    onlyFull: true,
    timeoutS: 120,
    devices: { disk: disk({ size: MIB, seed: 1 }) },
    skip: vfioOnly,
    async guest(context) {
      const address = addressOf(context);
      match(
        (await good(['bind', address])).toString(),
        new RegExp(`^pci:${address} has the driver vfio-pci\n$`),
      );
      equal(driverOf(address), 'vfio-pci');
      // Bound by root beforehand, it is opened as it is, and stays bound.
      equal((await good(['blk', 'read', address, '--count', '1'])).length, 512);
      equal(driverOf(address), 'vfio-pci');
      match((await good(['list'])).toString(), new RegExp(`^pci:${address} .* vfio-pci `, 'm'));

      const missing = await virtio(['bind', address, '--driver', 'uio_pci_generic', '--take-over']);
      equal(missing.status, 6);
      match(missing.stderr, /has no driver uio_pci_generic; load its module/);
      equal(driverOf(address), 'vfio-pci');
      {
        using _module = loadModule('uio_pci_generic');
        const busy = await virtio(['bind', address, '--driver', 'uio_pci_generic']);
        equal(busy.status, 5);
        match(busy.stderr, /in use by the kernel's driver vfio-pci.*\nhint: .*--take-over/);
        const bound = await json<{ driver: string }>([
          ...['bind', address, '--driver', 'uio_pci_generic', '--take-over'],
        ]);
        equal(bound.driver, 'uio_pci_generic');
        equal(driverOf(address), 'uio_pci_generic');
        match((await good(['unbind', address])).toString(), /has no driver\n$/);
        equal(driverOf(address), undefined);
      }
      equal(readSysfs(address, 'driver_override'), '(null)');
      match((await good(['unbind', address])).toString(), /has no driver\n$/);
      equal((await virtio(['unbind', '0000:00:1f.7'])).status, 3);
    },
  }),
];
