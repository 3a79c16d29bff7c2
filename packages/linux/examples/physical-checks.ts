/* eslint-disable no-console -- an example prints what it does */
/**
 * What only a machine without an IOMMU can show of this package: physical memory, interrupts through UIO.
 *
 * Run it in a guest with a spare disk, on PCI (physical) or MMIO: `physical-checks.ts`. Everything on the disk is overwritten.
 */
import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, VirtioError } from '@virtio/core';
import {
  type DeviceInfo,
  listDevices,
  type OpenOptions,
  openTransport,
  type SomeTransport,
} from '@virtio/linux';

const found = listDevices().find((device) => device.deviceType === DeviceType.Block);
assert(found, 'there is no disk');
const disk: DeviceInfo = found;
const open = (options: OpenOptions = {}): SomeTransport =>
  openTransport(disk, { unsafePhysicalMemory: true, ...options });
const driver = (): string | undefined =>
  listDevices().find(({ address }) => address === disk.address)?.driver;

async function check(name: string, body: () => unknown): Promise<void> {
  console.log(`- ${name}`);
  await body();
}

function fails(code: string, action: () => unknown): void {
  assert.throws(action, (error) => {
    assert(VirtioError.is(error, code as VirtioError['code']), String(error));
    console.log(`    ${code}: ${error.message}`);
    return true;
  });
}

/** Writes and reads through promises. */
async function exercise({ transport, hal }: SomeTransport): Promise<void> {
  using blk = new VirtioBlk(transport, hal);
  const data = randomFillSync(new Uint8Array(65536));
  const back = new Uint8Array(65536);
  for (let i = 0; i < 20; i += 1) {
    await blk.write(i * 128, data);
    await blk.read(i * 128, back);
    assert.deepEqual(back, data);
  }
}

await check('must be asked for by name', () => {
  fails('IOMMU_MISSING', () => openTransport(disk));
});

await check('polls', async () => {
  using device = open({ interrupts: 'polling' });
  await exercise(device);
});

await check('spans huge pages that are neighbours', () => {
  using device = open();
  using blk = new VirtioBlk(device.transport, device.hal);
  using buffer = device.hal.alloc(6 * 2 ** 20);
  randomFillSync(buffer.bytes);
  const copy = buffer.bytes.slice();
  // Ordinary memory would be copied on write while a child shares it, and the device would go on using the old page.
  spawnSync('true');
  const step = 2 ** 19;
  for (let at = 0; at < buffer.bytes.length; at += step) {
    blk.writeSync(at / 512, buffer.bytes.subarray(at, at + step));
  }
  buffer.bytes.fill(0);
  const middle = 2 ** 21 - 2 ** 18;
  blk.readSync(middle / 512, buffer.bytes.subarray(middle, middle + step));
  assert.deepEqual(buffer.bytes.subarray(middle, middle + step), copy.subarray(middle, middle + step));
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  fails('DMA_ERROR', () => device.hal.alloc((free + 1) * 2 ** 21));
});

if (disk.kind === 'pci') {
  await check('interrupts through UIO, and is idle meanwhile', async () => {
    assert.equal(spawnSync('modprobe', ['uio_pci_generic']).status, 0);
    {
      using device = open();
      assert.equal(driver(), 'uio_pci_generic');
      await exercise(device);
    }
    assert.equal(driver(), undefined);
    using device = open({ interrupts: 'uio' });
    using blk = new VirtioBlk(device.transport, device.hal);
    blk.readSync(0, new Uint8Array(512));
    const before = process.cpuUsage();
    device.transport.interrupts?.hold();
    await sleep(500);
    device.transport.interrupts?.release();
    const { user, system } = process.cpuUsage(before);
    console.log(`    ${(user + system) / 1000} ms of processor time in 500 ms of waiting`);
    assert(user + system < 100_000);
    await blk.flush();
  });
  await check('refuses what needs VFIO', () => {
    fails('UNSUPPORTED', () => open({ interrupts: 'msix' }));
  });
} else {
  await check('finds nothing in an empty window', () => {
    // ACPI does not announce windows that are empty; QEMU fills them from the end.
    const empty = { address: disk.address - disk.size, size: disk.size };
    fails('NO_DEVICE', () => openTransport(empty, { unsafePhysicalMemory: true }));
    fails('UNSUPPORTED', () => open({ interrupts: 'msix' }));
  });
}
console.log('all checks passed');
