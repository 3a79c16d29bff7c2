/** What only a machine without an IOMMU shows of `@virtio/linux`: physical memory and where it ends. */
import { deepEqual, ok } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { VirtioBlk } from '@virtio/blk';
import { openDriver, openTransport } from '@virtio/linux';
import { type Cell, disk, guestTest, onPci } from '../../framework/define.ts';
import { emptyWindow } from '../../framework/mmio-windows.ts';
import { addressOf, failsWith, freeHugePages, MIB, withoutHugePages } from './_linux.ts';

const physicalOnly = ({ transport }: Cell): string | undefined =>
  transport === 'pci-physical' ? undefined : 'only a PCI device without an IOMMU is opened in this way';

const mmioOnly = (cell: Cell): string | undefined =>
  !onPci(cell) ? undefined : 'only a machine with MMIO windows has empty ones';

export default [
  guestTest({
    device: 'linux',
    name: 'has physical memory: huge pages that are neighbours, as many as the process may have',
    long: true,
    essential: true,
    devices: { disk: disk({ size: 8 * MIB }) },
    skip: physicalOnly,
    guest(context) {
      const address = addressOf(context);
      const options = { unsafePhysicalMemory: true } as const;
      failsWith('IOMMU_MISSING', () => openTransport(address));
      failsWith('UNSUPPORTED', () => openTransport(address, { ...options, interrupts: 'msix' }));
      {
        using blk = openDriver(VirtioBlk, address, { ...options, interrupts: 'polling' });
        failsWith('DEVICE_BUSY', () => openTransport(address, options));
        using buffer = blk.hal.alloc(6 * MIB);
        randomFillSync(buffer.bytes);
        const copy = buffer.bytes.slice();
        // Memory that is not shared is copied on write while a child has it, and the device would go on using the old page.
        spawnSync('true');
        const step = MIB / 2;
        for (let at = 0; at < buffer.bytes.length; at += step) {
          blk.writeSync(at / 512, buffer.bytes.subarray(at, at + step));
        }
        buffer.bytes.fill(0);
        const middle = 2 * MIB - step / 2;
        blk.readSync(middle / 512, buffer.bytes.subarray(middle, middle + step));
        deepEqual(buffer.bytes.subarray(middle, middle + step), copy.subarray(middle, middle + step));
        failsWith('DMA_ERROR', () => blk.hal.alloc((freeHugePages() + 1) * 2 * MIB));
        blk.readSync(0, new Uint8Array(512));
      }
      using _limit = withoutHugePages();
      const message = failsWith('DMA_ERROR', () => openDriver(VirtioBlk, address, options));
      ok(message.includes('hugetlb.2MB.max'), message);
    },
  }),

  guestTest({
    device: 'linux',
    name: 'finds nothing in an empty window',
    essential: 'checks',
    devices: { disk: disk({ size: MIB }) },
    skip: mmioOnly,
    guest(context) {
      const location = context.device('disk');
      if (location.kind !== 'mmio') throw new Error('the disk is not on MMIO');
      const { address } = location;
      failsWith('IOMMU_MISSING', () => openTransport(location));
      failsWith('UNSUPPORTED', () =>
        openTransport(location, { unsafePhysicalMemory: true, interrupts: 'msix' }),
      );
      // The harness gives out windows from the first on; the last one stays empty.
      const last = emptyWindow(context.cell).toString(16);
      failsWith('NO_DEVICE', () => openTransport(`mmio:0x${last}`, { unsafePhysicalMemory: true }));
      using blk = openDriver(VirtioBlk, `mmio:0x${address.toString(16)}`, { unsafePhysicalMemory: true });
      failsWith('DEVICE_BUSY', () => openTransport(location, { unsafePhysicalMemory: true }));
      blk.readSync(0, new Uint8Array(512));
    },
  }),
];
