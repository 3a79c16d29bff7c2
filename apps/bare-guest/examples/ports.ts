/**
 * What only x86-64 processors have, run on a PC: configuration space by I/O ports and in memory, notifications by a port, and
 * the detection of pKVM. The host checks what was written.
 */
import { ecamRanges, findRootPointer, type ReadMemory } from '@virtio/bare';
import { hal, machine, x86Cpu, x86Machine } from '@virtio/bare-guest';
import { VirtioBlk } from '@virtio/blk';
import { MmioCam, PciRoot, PciTransport } from '@virtio/pci';
import { HypCam, isPkvm, PortCam, PortRegion, type X86Ports } from '@virtio/pci-x86';

const x86 = x86Machine();
if (x86 === undefined) throw new Error('this is not an x86-64 processor');
const read: ReadMemory = (address, size) =>
  address + size <= 2 ** 32 ? new Uint8Array(machine.map(address, size)) : undefined;
const [ecam] = ecamRanges(read, findRootPointer(read) ?? 0);
if (ecam === undefined) throw new Error('the firmware has no MCFG');

const list = (root: PciRoot): string =>
  [...root.functions()].map(([at, info]) => `${String(at)} ${String(info)}`).join('\n');
const inMemory = new PciRoot(new MmioCam(hal.mapRegisters(ecam.address, 0x1000_0000), 'ecam'));
const byPorts = new PciRoot(new PortCam(x86));
const functions = list(byPorts);
console.log(
  `ports: ${functions.split('\n').length} functions, ${functions === list(inMemory) ? 'the same' : 'others'} in memory`,
);

/** Counts what is written to ports of devices. */
let notifications = 0;
const counting: X86Ports = {
  in8: (port) => x86.in8(port),
  in16: (port) => x86.in16(port),
  in32: (port) => x86.in32(port),
  out8: (port, value) => x86.out8(port, value),
  out16: (port, value) => {
    notifications += 1;
    x86.out16(port, value);
  },
  out32: (port, value) => x86.out32(port, value),
};
const space = {
  mapRegisters: (address: number, size: number) => hal.mapRegisters(address, size),
  mapPorts: (port: number, count: number) => new PortRegion(counting, port, count),
};
const [found] = byPorts.virtioDevices();
if (found === undefined) throw new Error('there is no disk');
{
  using transport = PciTransport.open(byPorts.access, found[0], space);
  using blk = new VirtioBlk(transport, hal);
  const sector = new Uint8Array(512);
  blk.readSync(0, sector);
  blk.writeSync(1, sector.fill(sector[0] === 0xc3 ? 0x5a : 0));
  blk.flushSync();
}
console.log(`blk: ${notifications} notifications by a port`);

const cpu = x86Cpu(x86);
console.log(`pKVM: ${isPkvm(cpu) ? 'detected' : 'not detected'}`);
try {
  const id = new HypCam(cpu, ecam.address, 'ecam').read32(found[0], 0);
  console.log(`VMCALL: a hypervisor answered 0x${id.toString(16)}`);
} catch (error) {
  console.log(`VMCALL: ${error instanceof Error ? error.message : String(error)}`);
}
