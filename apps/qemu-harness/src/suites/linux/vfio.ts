/** What only a machine with an IOMMU shows of `@virtio/linux`: binding, rights, memory, and how it ends. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, readFileSync, writeFileSync } from 'node:fs';
import { Worker, workerData } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import {
  attachMemory,
  openDriver,
  openTransport,
  type PostedMemory,
  VfioDevice,
  VfioHal,
} from '@virtio/linux';
import { type Cell, disk, guestTest } from '../../framework/define.ts';
import {
  addressOf,
  bindTo,
  driverOf,
  failsWith,
  freeHugePages,
  groupOf,
  loadModule,
  MIB,
  readSysfs,
  withoutHugePages,
} from './_linux.ts';

const vfioOnly = ({ transport }: Cell): string | undefined =>
  transport === 'pci-vfio' ? undefined : 'there is no IOMMU';

/** A process without the rights of root. */
function becomeNobody(): void {
  process.setgid?.(1000);
  process.setuid?.(1000);
}

/** Writes DMA memory to the disk and reads it back. */
function transfer(blk: VirtioBlk, bytes: Uint8Array): void {
  bytes.fill(0x5a);
  blk.writeSync(0, bytes);
  bytes.fill(0);
  blk.readSync(0, bytes);
  ok(bytes.every((byte) => byte === 0x5a));
}

export default [
  guestTest({
    device: 'linux',
    name: 'binds a device to vfio-pci, from another driver only if told, and gives it back',
    devices: { disk: disk({ size: MIB }) },
    skip: vfioOnly,
    guest(context) {
      const address = addressOf(context);
      const before = [driverOf(address), readSysfs(address, 'driver_override')];
      {
        using device = openTransport(address);
        equal(driverOf(address), 'vfio-pci');
        failsWith('DEVICE_BUSY', () => openTransport(address));
        failsWith('DEVICE_BUSY', () => openTransport(address, { hal: device.hal }));
        device.transport.readDeviceFeatures();
      }
      deepEqual([driverOf(address), readSysfs(address, 'driver_override')], before);
      using _module = loadModule('uio_pci_generic');
      using _bound = bindTo('uio_pci_generic', address);
      failsWith('DEVICE_BUSY', () => openTransport(address));
      {
        using blk = openDriver(VirtioBlk, address, { takeOver: true });
        equal(driverOf(address), 'vfio-pci');
        blk.readSync(0, new Uint8Array(512));
      }
      equal(driverOf(address), 'uio_pci_generic');
    },
  }),

  guestTest({
    device: 'linux',
    name: 'gives a device back when a signal ends the process, and leaves views of its memory empty',
    long: true,
    devices: { disk: disk({ size: MIB }) },
    skip: vfioOnly,
    apart: {
      waits(address: string): void {
        const blk = openDriver(VirtioBlk, address);
        process.stdout.write(`open ${String(driverOf(address))}\n`);
        setInterval(() => blk, 1000);
      },
    },
    async guest(context) {
      const address = addressOf(context);
      const child = spawn(process.execPath, context.apart('waits', address), {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [line] = (await once(child.stdout, 'data')) as [Buffer];
      equal(line.toString(), 'open vfio-pci\n');
      child.kill('SIGTERM');
      const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
      equal(signal, 'SIGTERM');
      deepEqual([driverOf(address), readSysfs(address, 'driver_override')], [undefined, '(null)']);

      const blk = openDriver(VirtioBlk, address);
      const buffer = blk.hal.alloc(10_000);
      blk.readSync(0, buffer.bytes.subarray(0, 512));
      blk[Symbol.dispose]();
      equal(buffer.bytes.length, 0);
      buffer.bytes[5] = 1;
      equal(blk.transport.getStatus().bits, 0xff, 'registers read as those of a device that is gone');
      failsWith('DISPOSED', () => blk.hal.alloc(1));
    },
  }),

  guestTest({
    device: 'linux',
    name: 'takes ordinary pages where there are no huge ones, or a control group allows none',
    devices: { disk: disk({ size: 4 * MIB }) },
    skip: vfioOnly,
    guest(context) {
      const address = addressOf(context);
      const use = (): number => {
        const before = freeHugePages();
        using blk = openDriver(VirtioBlk, address);
        using buffer = blk.hal.alloc(3 * MIB);
        transfer(blk, buffer.bytes.subarray(MIB, MIB + 65536));
        return before - freeHugePages();
      };
      ok(use() > 0, 'huge pages were used');
      {
        using _limit = withoutHugePages();
        equal(use(), 0, 'under the limit of a control group');
      }
      const count = readFileSync('/proc/sys/vm/nr_hugepages', 'utf8').trim();
      writeFileSync('/proc/sys/vm/nr_hugepages', '0');
      try {
        equal(use(), 0, 'without huge pages');
      } finally {
        writeFileSync('/proc/sys/vm/nr_hugepages', count);
      }
    },
  }),

  guestTest({
    device: 'linux',
    name: 'posts memory to a worker thread, and has no addresses for a device that bypasses the IOMMU',
    long: true,
    devices: { disk: disk({ size: MIB }) },
    skip: vfioOnly,
    apart: {
      fill(): void {
        attachMemory(workerData as PostedMemory).fill(0x77);
      },
    },
    async guest(context) {
      using blk = openDriver(VirtioBlk, addressOf(context));
      using buffer = blk.hal.alloc(4096);
      const posted = blk.hal.post(buffer.bytes.subarray(512, 1024));
      equal(posted.address, buffer.address + 512);
      const [file, ...argv] = context.apart('fill');
      // Its output is not passed on: that would open the standard output of this process, which counts as left open.
      const worker = new Worker(file, { argv, workerData: posted, stdout: true, stderr: true });
      await once(worker, 'exit');
      deepEqual([buffer.bytes[511], buffer.bytes[512], buffer.bytes[1024]], [0, 0x77, 0]);
      await blk.write(0, buffer.bytes.subarray(512, 1024));
      buffer.bytes.fill(0);
      await blk.read(0, buffer.bytes.subarray(512, 1024));
      equal(buffer.bytes[1023], 0x77);
      failsWith('DMA_ERROR', () => blk.hal.dmaAlloc(1, 'both', false));
      failsWith('DMA_ERROR', () => blk.hal.share(new Uint8Array(16), 'both', false));
    },
  }),

  guestTest({
    device: 'linux',
    name: 'maps registers by their physical address, and resets the function',
    devices: { disk: disk({ size: MIB }, { 'num-queues': 2 }) },
    skip: vfioOnly,
    guest(context) {
      const address = addressOf(context);
      using hal = VfioHal.create();
      {
        using _device = openTransport(address, { hal });
        const bar4 = Number(readSysfs(address, 'resource').split('\n')[4]?.split(' ')[0]);
        ok(bar4 > 0);
        // num_queues of the common configuration, which QEMU puts at the start of BAR 4.
        equal(hal.mapRegisters(bar4 + 0x12, 2).read16(0), 2);
        failsWith('INVALID_PARAM', () => hal.mapRegisters(0x1000, 4));
      }
      using _bound = bindTo('vfio-pci', address);
      using own = VfioHal.create();
      using vfio = new VfioDevice(own.container, address, Number(groupOf(address)), () => '');
      equal(vfio.config.read16(0), 0x1af4);
      context.note(`VFIO_DEVICE_RESET: ${vfio.reset()}`);
    },
  }),

  guestTest({
    device: 'linux',
    name: 'needs rights, and works without root where root prepared it',
    long: true,
    // Three processes are started, each with the bundle of all suites.
    timeoutS: 120,
    devices: { disk: disk({ size: MIB }) },
    skip: vfioOnly,
    apart: {
      refused(address: string): void {
        becomeNobody();
        process.stdout.write(failsWith('PERMISSION_DENIED', () => openTransport(address)));
      },
      allowed(address: string): void {
        becomeNobody();
        using blk = openDriver(VirtioBlk, address);
        const sector = new Uint8Array(512);
        blk.writeSync(0, sector.fill(7));
        blk.readSync(0, sector.fill(0));
        equal(sector[511], 7);
        process.stdout.write(failsWith('DMA_ERROR', () => blk.hal.alloc(64 * MIB)));
      },
    },
    guest(context) {
      const address = addressOf(context);
      const run = (name: string): string => {
        const { status, stdout, stderr } = spawnSync(process.execPath, context.apart(name, address), {
          encoding: 'utf8',
        });
        equal(status, 0, stderr);
        return stdout;
      };
      ok(run('refused').includes('driver_override'));
      using _bound = bindTo('vfio-pci', address);
      const group = `/dev/vfio/${groupOf(address)}`;
      ok(run('refused').includes(group));
      chownSync(group, 1000, 1000);
      ok(run('allowed').includes('ulimit -l'));
    },
  }),
];
