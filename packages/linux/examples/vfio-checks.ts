/* eslint-disable no-console -- an example prints what it does */
/**
 * What only a machine with an IOMMU can show of this package: binding, errors, removal, rights, shared and posted memory.
 *
 * Run it in a guest with a spare disk as root: `vfio-checks.ts`. Everything on the disk is overwritten.
 */
import { strict as assert } from 'node:assert';
import { spawn, spawnSync } from 'node:child_process';
import { chownSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { once } from 'node:events';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, VirtioError } from '@virtio/core';
import {
  attachMemory,
  listDevices,
  openTransport,
  type PciDeviceInfo,
  type PostedMemory,
  VfioDevice,
  VfioHal,
} from '@virtio/linux';

const [role, argument = ''] = process.argv.slice(2);
if (!isMainThread) {
  attachMemory(workerData as PostedMemory).fill(0x77);
  process.exit();
}

const findDisk = (): PciDeviceInfo => {
  const found = listDevices().find(
    (device) => device.kind === 'pci' && device.deviceType === DeviceType.Block,
  );
  assert(found?.kind === 'pci', 'there is no disk on PCI');
  return found;
};
const path = (address: string, file: string): string => `/sys/bus/pci/devices/${address}/${file}`;
const driverOf = (address: string): string | undefined => {
  try {
    return basename(readlinkSync(path(address, 'driver')));
  } catch {
    return undefined;
  }
};
const overrideOf = (address: string): string => readFileSync(path(address, 'driver_override'), 'utf8').trim();

function fails(code: string, action: () => unknown): void {
  assert.throws(action, (error) => {
    assert(VirtioError.is(error), `not a VirtioError: ${String(error)}`);
    assert.equal(error.code, code);
    console.log(`    ${code}: ${error.message}`);
    return true;
  });
}

/** Runs this script in another process with a role. */
const again = (as: string, ...args: string[]) => [process.argv[1] ?? '', as, ...args];

// Roles of child processes.
if (role === 'unprivileged') {
  process.setgid?.(1000);
  process.setuid?.(1000);
  using device = openTransport(argument);
  using blk = new VirtioBlk(device.transport, device.hal);
  const sector = new Uint8Array(512);
  blk.readSync(0, sector);
  await blk.write(0, sector);
  console.log('    an unprivileged process drives the disk');
  fails('DMA_ERROR', () => device.hal.alloc(64 * 2 ** 20));
  process.exit(0);
}
if (role === 'no-rights') {
  process.setgid?.(1000);
  process.setuid?.(1000);
  fails('PERMISSION_DENIED', () => openTransport(argument));
  process.exit(0);
}
if (role === 'waits') {
  const device = openTransport(argument);
  console.log('open', driverOf(argument));
  setInterval(() => device, 1000);
  await once(process, 'never');
}

async function check(name: string, body: () => unknown): Promise<void> {
  console.log(`- ${name}`);
  await body();
}

const { address } = findDisk();

await check('binds to vfio-pci, and gives the device back', () => {
  const before = [driverOf(address), overrideOf(address)];
  const device = openTransport(address);
  assert.equal(driverOf(address), 'vfio-pci');
  device[Symbol.dispose]();
  assert.deepEqual([driverOf(address), overrideOf(address)], before);
});

await check('refuses a device that is open already', () => {
  using device = openTransport(address);
  fails('DEVICE_BUSY', () => openTransport(address));
  fails('DEVICE_BUSY', () => openTransport(address, { hal: device.hal }));
  device.transport.readDeviceFeatures();
});

await check('takes a device from another driver only if told, and gives it back', () => {
  spawnSync('modprobe', ['uio_pci_generic']);
  writeFileSync(path(address, 'driver_override'), 'uio_pci_generic');
  writeFileSync('/sys/bus/pci/drivers_probe', address);
  assert.equal(driverOf(address), 'uio_pci_generic');
  fails('DEVICE_BUSY', () => openTransport(address));
  {
    using device = openTransport(address, { takeOver: true });
    assert.equal(driverOf(address), 'vfio-pci');
    device.transport.readDeviceFeatures();
  }
  assert.equal(driverOf(address), 'uio_pci_generic');
  writeFileSync(path(address, 'driver/unbind'), address);
  writeFileSync(path(address, 'driver_override'), '\n');
});

await check('gives the device back when a signal ends the process', async () => {
  const child = spawn(process.execPath, again('waits', address), { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(line.toString(), 'open vfio-pci\n');
  child.kill('SIGTERM');
  const [, signal] = (await once(child, 'exit')) as [number | null, string | null];
  assert.equal(signal, 'SIGTERM');
  assert.equal(driverOf(address), undefined);
  assert.equal(overrideOf(address), '(null)');
});

await check('leaves views empty when the memory is gone', () => {
  const device = openTransport(address);
  const blk = new VirtioBlk(device.transport, device.hal);
  const buffer = device.hal.alloc(10_000);
  assert.equal(buffer.bytes.length, 10_000);
  blk.readSync(0, buffer.bytes.subarray(0, 512));
  blk[Symbol.dispose]();
  device[Symbol.dispose]();
  assert.equal(buffer.bytes.length, 0);
  buffer.bytes[5] = 1;
  assert.throws(() => device.transport.getStatus());
  assert.throws(() => device.hal.alloc(1), { code: 'DISPOSED' });
});

await check('falls back to ordinary pages when there are no huge ones', () => {
  const free = (): number =>
    Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]);
  const before = free();
  {
    using device = openTransport(address);
    using buffer = device.hal.alloc(100);
    assert(before === 0 || free() < before, 'a huge page was used');
    assert(buffer.address < 2 ** 31);
  }
  assert.equal(free(), before);
  const count = readFileSync('/proc/sys/vm/nr_hugepages', 'utf8').trim();
  writeFileSync('/proc/sys/vm/nr_hugepages', '0');
  {
    using device = openTransport(address);
    using blk = new VirtioBlk(device.transport, device.hal);
    using buffer = device.hal.alloc(3 * 2 ** 20);
    buffer.bytes.fill(0x5a);
    blk.writeSync(0, buffer.bytes.subarray(2 ** 20, 2 ** 20 + 65536));
    buffer.bytes.fill(0);
    blk.readSync(0, buffer.bytes.subarray(0, 65536));
    assert(buffer.bytes.subarray(0, 65536).every((byte) => byte === 0x5a));
  }
  writeFileSync('/proc/sys/vm/nr_hugepages', count);
});

await check('has several devices share one address space', async () => {
  const disks = listDevices().filter((device) => device.deviceType === DeviceType.Block);
  const [first, second] = disks;
  assert(first && second, 'give the guest two disks');
  using hal = VfioHal.create();
  using a = openTransport(first, { hal });
  using b = openTransport(second, { hal });
  using from = new VirtioBlk(a.transport, hal);
  using to = new VirtioBlk(b.transport, hal);
  using buffer = hal.alloc(4096);
  buffer.bytes.fill(0x33);
  await from.write(0, buffer.bytes);
  buffer.bytes.fill(0);
  await from.read(0, buffer.bytes);
  await to.write(8, buffer.bytes);
  buffer.bytes.fill(0);
  await to.read(8, buffer.bytes);
  assert(buffer.bytes.every((byte) => byte === 0x33));
  // Memory outlives the devices: all leave, one comes back.
  from[Symbol.dispose]();
  to[Symbol.dispose]();
  a[Symbol.dispose]();
  b[Symbol.dispose]();
  using again = openTransport(second, { hal });
  using blk = new VirtioBlk(again.transport, hal);
  buffer.bytes.fill(0);
  await blk.read(8, buffer.bytes);
  assert(buffer.bytes.every((byte) => byte === 0x33));
});

await check('refuses a device that bypasses the IOMMU', () => {
  using device = openTransport(address);
  fails('DMA_ERROR', () => device.hal.dmaAlloc(1, 'both', false));
  fails('DMA_ERROR', () => device.hal.share(new Uint8Array(16), 'both', false));
});

await check('maps registers by their physical address, and resets the function', () => {
  using hal = VfioHal.create();
  using device = openTransport(address, { hal });
  const bar4 = Number(readFileSync(path(address, 'resource'), 'utf8').split('\n')[4]?.split(' ')[0]);
  assert(bar4 > 0);
  // num_queues of the common configuration, which QEMU puts at the start of BAR 4.
  assert(hal.mapRegisters(bar4 + 0x12, 2).read16(0) >= 1);
  fails('INVALID_PARAM', () => hal.mapRegisters(0x1000, 4));
  device[Symbol.dispose]();
  writeFileSync(path(address, 'driver_override'), 'vfio-pci');
  writeFileSync('/sys/bus/pci/drivers_probe', address);
  using own = VfioHal.create();
  {
    using vfio = new VfioDevice(own.container, address, findDisk().iommuGroup ?? -1, () => '');
    assert.equal(vfio.config.read16(0), 0x1af4);
    console.log('    VFIO_DEVICE_RESET:', vfio.reset());
  }
  writeFileSync(path(address, 'driver/unbind'), address);
  writeFileSync(path(address, 'driver_override'), '\n');
});

await check('posts memory to a worker', async () => {
  using device = openTransport(address);
  using blk = new VirtioBlk(device.transport, device.hal);
  using buffer = device.hal.alloc(4096);
  const posted = device.hal.post(buffer.bytes.subarray(512, 1024));
  assert.equal(posted.address, buffer.address + 512);
  await once(new Worker(process.argv[1] ?? '', { workerData: posted }), 'exit');
  assert.deepEqual([buffer.bytes[511], buffer.bytes[512]], [0, 0x77]);
  await blk.write(0, buffer.bytes.subarray(512, 1024));
  buffer.bytes.fill(0);
  await blk.read(0, buffer.bytes.subarray(512, 1024));
  assert.equal(buffer.bytes[1023], 0x77);
});

await check('needs rights, and works without root where root prepared it', () => {
  const run = (as: string): void => {
    const { status, stdout, stderr } = spawnSync(process.execPath, again(as, address), { encoding: 'utf8' });
    process.stdout.write(stdout);
    assert.equal(status, 0, stderr);
  };
  run('no-rights');
  writeFileSync(path(address, 'driver_override'), 'vfio-pci');
  writeFileSync('/sys/bus/pci/drivers_probe', address);
  run('no-rights');
  const group = basename(readlinkSync(path(address, 'iommu_group')));
  chownSync(`/dev/vfio/${group}`, 1000, 1000);
  run('unprivileged');
  writeFileSync(path(address, 'driver/unbind'), address);
  writeFileSync(path(address, 'driver_override'), '\n');
});

const remove = async (interrupts: 'msix' | 'intx' | 'polling'): Promise<void> => {
  using device = openTransport(address, { interrupts });
  const blk = new VirtioBlk(device.transport, device.hal);
  const failure = new Promise<VirtioError>((resolve) => blk.on('failure', resolve));
  const sector = new Uint8Array(4096);
  let stop = false;
  const outcomes: Promise<string>[] = [];
  const load = (async () => {
    while (!stop) {
      const request = blk.read(0, sector).then(
        () => 'ok',
        (error: unknown) => (VirtioError.is(error) ? error.code : String(error)),
      );
      outcomes.push(request);
      if ((await request) !== 'ok') return;
    }
  })();
  const start = performance.now();
  const remover = spawn('sh', ['-c', `echo 1 > ${path(address, 'remove')}`], { stdio: 'inherit' });
  const removed = once(remover, 'exit');
  const error = await failure;
  assert.equal(error.code, 'DEVICE_REMOVED');
  await load;
  stop = true;
  const last = await outcomes.at(-1);
  console.log(
    `    ${outcomes.length} requests, the last one: ${String(last)}, after ${(performance.now() - start).toFixed(0)} ms`,
  );
  assert.equal(last, 'DEVICE_REMOVED');
  assert.deepEqual(await removed, [0, null]);
  console.log(`    the kernel let go of it after ${(performance.now() - start).toFixed(0)} ms`);
  assert.equal(device.transport.getStatus().bits, 0xff);
  blk[Symbol.dispose]();
  writeFileSync('/sys/bus/pci/rescan', '1');
};
await check('lets go of a device that is removed while requests are in flight', () => remove('msix'));
await check('the same with INTx', () => remove('intx'));
await check('the same when it is polled', () => remove('polling'));

await check('drives it again after it came back', () => {
  using device = openTransport(findDisk());
  using blk = new VirtioBlk(device.transport, device.hal);
  blk.readSync(0, new Uint8Array(512));
});
console.log('all checks passed');
