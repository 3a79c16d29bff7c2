/** The board: its memory, its interrupt controller, and the devices that it has. */
import {
  BareHal,
  deviceTreeSize,
  interruptsOf,
  type DeviceTreeNode,
  GicV2,
  InterruptRouter,
  mmioDevices,
  parseDeviceTree,
  pciHosts,
  Plic,
  type TreeInterrupt,
  type TreePciHost,
} from '@virtio/bare';
import { type DeviceType, type InterruptSource, PollingInterrupts, type RegisterWindow } from '@virtio/core';
import { type MmioInterrupt, MmioTransport } from '@virtio/mmio';
import {
  BarAllocator,
  type DeviceFunction,
  FunctionConfig,
  MmioCam,
  type PciInterrupts,
  PciRoot,
  PciTransport,
  virtioDeviceType,
} from '@virtio/pci';
import { machine, x86Machine } from './machine.ts';
import { drainConsole, loop, setInterrupts } from './prelude.ts';
import { discoverX86 } from './x86.ts';

/** A device, not opened. */
export interface BareDevice {
  /** `MMIO 0x10001000` or `PCI 0000:00:01.0`. */
  readonly name: string;
  readonly deviceType: DeviceType;
  /** Opens it, with interrupts where the board has them. */
  open(): MmioTransport | PciTransport;
}

/** The DMA memory of the board. */
export const hal = new BareHal({
  dma: machine.map(machine.dmaAddress, machine.dmaSize),
  dmaAddress: machine.dmaAddress,
  mapDevice: (address, size) => machine.map(address, size),
});

/** Interrupts for a device that has no line here: asks at each turn while somebody waits. */
export function polling(configChanged?: () => boolean): InterruptSource {
  return new PollingInterrupts({ schedule: loop.schedule, ...(configChanged && { configChanged }) });
}

/** A register of configuration space: which INTx pin a function has. */
const INTERRUPT_PIN = 0x3d;
const FOREVER = 0x7fff_ffff;

let found: readonly BareDevice[] | undefined;

/** All virtio devices of the board. */
export function listDevices(): readonly BareDevice[] {
  const x86 = x86Machine();
  found ??= x86 === undefined ? discoverTree() : discoverX86(x86);
  return found;
}

/** A window of registers, if a virtio device is there. */
export function* mmioDevice(
  address: number,
  size: number,
  interrupts: () => MmioInterrupt | InterruptSource,
): Generator<BareDevice> {
  const window = hal.mapRegisters(address, size);
  const identity = MmioTransport.probe(window);
  if (identity === undefined) return;
  const name = `MMIO 0x${address.toString(16)}`;
  yield {
    name,
    deviceType: identity.deviceType,
    open: () => new MmioTransport(window, { name, interrupts: interrupts() }),
  };
}

/** All virtio functions of a PCI host bridge. */
export function* pciDevices(
  root: PciRoot,
  mapPorts: ((port: number, count: number) => RegisterWindow) | undefined,
  interrupts: (at: DeviceFunction) => PciInterrupts | InterruptSource,
): Generator<BareDevice> {
  const space = {
    mapRegisters: (address: number, size: number) => hal.mapRegisters(address, size),
    ...(mapPorts && { mapPorts }),
  };
  for (const [at, info] of root.virtioDevices()) {
    const deviceType = virtioDeviceType(info);
    if (deviceType === undefined) continue;
    yield {
      name: `PCI ${at.toString()}`,
      deviceType,
      open: () => PciTransport.open(root.access, at, space, interrupts(at)),
    };
  }
}

function discoverTree(): readonly BareDevice[] {
  const size = deviceTreeSize(new Uint8Array(machine.map(machine.bootInfo, 8)));
  if (size === undefined) throw new Error('the board gave no device tree');
  const tree = parseDeviceTree(new Uint8Array(machine.map(machine.bootInfo, size)));
  const router = startInterrupts(tree);
  const devices: BareDevice[] = [];
  for (const { address, size: length, interrupts } of mmioDevices(tree)) {
    const source = sourceOf(interrupts[0]);
    devices.push(
      ...mmioDevice(address, length, () => (source === undefined ? polling() : router.mmio(source))),
    );
  }
  for (const host of pciHosts(tree)) devices.push(...treePci(host, router));
  return devices;
}

/** No firmware ran: the BARs get their addresses here. */
function treePci(host: TreePciHost, router: InterruptRouter): Iterable<BareDevice> {
  const window = hal.mapRegisters(host.config.address, host.config.size);
  const root = new PciRoot(new MmioCam(window, host.kind), host.segment, host.firstBus);
  const { io: _ports, ...memory } = host.ranges;
  const allocator = new BarAllocator(memory);
  for (const [at, info] of root.bus(host.firstBus)) {
    if (info.headerType === 'standard') allocator.assign(new FunctionConfig(root.access, at), String(at));
  }
  return pciDevices(root, undefined, (at) => {
    const pin = root.access.read8(at, INTERRUPT_PIN);
    const source = sourceOf(pin === 0 ? undefined : host.interrupt(at, pin));
    return source === undefined ? polling() : router.intx(source);
  });
}

function startInterrupts(tree: DeviceTreeNode): InterruptRouter {
  const window = (node: DeviceTreeNode, index: number): RegisterWindow => {
    const { address, size } = node.windows()[index] ?? { address: 0, size: 0 };
    return hal.mapRegisters(address, size);
  };
  for (const node of tree.all()) {
    const controller = node.isCompatible('riscv,plic0')
      ? new Plic(window(node, 0), 0)
      : node.isCompatible('arm,cortex-a15-gic')
        ? new GicV2(window(node, 0), window(node, 1))
        : undefined;
    if (controller === undefined) continue;
    const router = new InterruptRouter(controller, loop);
    setInterrupts(() => router.poll(), FOREVER);
    const console = [...tree.all()].find(
      (one) => one.isCompatible('ns16550a') || one.isCompatible('arm,pl011'),
    );
    const source = sourceOf(console && interruptsOf(tree, console)[0]);
    if (source !== undefined) router.mmio(source).onLine(drainConsole);
    return router;
  }
  throw new Error('the board has no interrupt controller that is known here');
}

/** Shared interrupts of a GIC begin at 32; a PLIC has its own numbers. */
const GIC_SHARED = 32;

function sourceOf(interrupt: TreeInterrupt | undefined): number | undefined {
  const [first, second] = interrupt?.cells ?? [];
  return second === undefined ? first : GIC_SHARED + second;
}
