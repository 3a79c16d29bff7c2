/**
 * Reads of 4 KiB a second at random places of a disk, at depths 1, 8 and 32: fio (Debian's) on Linux' own driver, by io_uring and by libaio,
 * and ours in the same guest, with every ratio. Ours behind the IOMMU, with promises and with tokens, into ordinary memory, which is
 * copied, and into DMA memory. QEMU serves the disk from null-co, so that the host's disk has no part in it.
 *
 *     npm run bench -- disk
 */
import { tryRun } from '../src/run.ts';
import { ensurePackages } from '../src/setup/install.ts';
import { measureInGuest } from './_guest.ts';

await ensurePackages(
  {
    missing: async () => ((await tryRun('fio', ['--version'])).status === 0 ? [] : ['fio']),
    suite: () => Promise.resolve(undefined),
    note: 'to be compared with',
    unusable: 'fio --version says why',
  },
  (line) => console.log(line),
);
await measureInGuest({
  transport: 'pci-vfio',
  devices: [
    ...['-blockdev', 'driver=null-co,node-name=disk,size=1073741824,read-zeroes=off'],
    ...['-object', 'iothread,id=io'],
    ...[
      '-device',
      'virtio-blk-pci,drive=disk,bus=pcie.0,addr=0x1,disable-legacy=on,iommu_platform=on,iothread=io,num-queues=1',
    ],
  ],
  modules: ['virtio_pci', 'virtio_blk'],
  programs: ['/usr/bin/fio'],
  script: 'disk.ts',
  host: {},
});
