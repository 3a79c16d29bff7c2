/** Devices of boards that have a device tree: riscv64's and aarch64's. */
import {
  deviceTreeSize,
  interruptsOf,
  type DeviceTreeNode,
  GicV2,
  GicV2m,
  InterruptRouter,
  mmioDevices,
  parseDeviceTree,
  pciHosts,
  Plic,
  type TreeInterrupt,
  type TreePciHost,
} from '@virtio/bare';
import type { RegisterWindow } from '@virtio/core';
import { BarAllocator, FunctionConfig, MmioCam, PciRoot } from '@virtio/pci';
import {
  type BareDevice,
  hal,
  type MessageTarget,
  messages,
  mmioDevice,
  pciDevices,
  polling,
} from './devices.ts';
import { machine } from './machine.ts';
import { drainConsole, loop, setInterrupts } from './prelude.ts';

/** A register of configuration space: which INTx pin a function has. */
const INTERRUPT_PIN = 0x3d;
/** QEMU's have 1 MiB, most of it empty. */
const MAX_TREE = 2 << 20;
const FOREVER = 0x7fff_ffff;

/** All virtio devices of the board. */
export function discoverTree(): readonly BareDevice[] {
  const size = deviceTreeSize(new Uint8Array(machine.map(machine.bootInfo, 8)));
  if (size === undefined || size > MAX_TREE) throw new Error('the board gave no device tree');
  const tree = parseDeviceTree(new Uint8Array(machine.map(machine.bootInfo, size)));
  const { router, target } = startInterrupts(tree);
  const devices: BareDevice[] = [];
  for (const { address, size: length, interrupts } of mmioDevices(tree)) {
    const source = sourceOf(interrupts[0]);
    devices.push(
      ...mmioDevice(address, length, () => (source === undefined ? polling() : router.mmio(source))),
    );
  }
  for (const host of pciHosts(tree)) devices.push(...treePci(host, router, target));
  return devices;
}

/** No firmware ran: the BARs get their addresses here. */
function treePci(
  host: TreePciHost,
  router: InterruptRouter,
  target: MessageTarget | undefined,
): Iterable<BareDevice> {
  const window = hal.mapRegisters(host.config.address, host.config.size);
  const root = new PciRoot(new MmioCam(window, host.kind, host.firstBus), host.segment, host.firstBus);
  const { io: _ports, ...memory } = host.ranges;
  const allocator = new BarAllocator(memory);
  for (const [at, info] of root.bus(host.firstBus)) {
    if (info.headerType === 'standard') allocator.assign(new FunctionConfig(root.access, at), String(at));
  }
  return pciDevices(root, undefined, (at) => {
    const lines = target && messages(root.access, at, router, target);
    if (lines !== undefined) return lines;
    const pin = root.access.read8(at, INTERRUPT_PIN);
    const source = sourceOf(pin === 0 ? undefined : host.interrupt(at, pin));
    return source === undefined ? polling() : router.intx(source);
  });
}

interface TreeInterrupts {
  readonly router: InterruptRouter;
  /** Where PCI functions send messages to, if there is such a place. */
  readonly target: MessageTarget | undefined;
}

function startInterrupts(tree: DeviceTreeNode): TreeInterrupts {
  const nodes = [...tree.all()];
  const find = (...kinds: readonly string[]): DeviceTreeNode | undefined =>
    nodes.find((node) => node.enabled && kinds.some((kind) => node.isCompatible(kind)));
  const window = (node: DeviceTreeNode, index: number): RegisterWindow => {
    const { address, size } = node.windows()[index] ?? { address: 0, size: 0 };
    return hal.mapRegisters(address, size);
  };
  const [plic, gic] = [find('riscv,plic0'), find('arm,cortex-a15-gic')];
  const gicV2 = gic && new GicV2(window(gic, 0), window(gic, 1));
  const controller = plic === undefined ? gicV2 : new Plic(window(plic, 0), 0);
  if (controller === undefined) throw new Error('the board has no supported interrupt controller');
  const frame = find('arm,gic-v2m-frame');
  const target = gicV2 && frame && new GicV2m(window(frame, 0), frame.windows()[0]?.address ?? 0, gicV2);
  const router = new InterruptRouter(controller, loop);
  setInterrupts(() => router.poll(), FOREVER);
  const console = find('ns16550a', 'arm,pl011');
  const source = sourceOf(console && interruptsOf(tree, console)[0]);
  if (source !== undefined) router.mmio(source).onLine(drainConsole);
  return { router, target };
}

/** In a GIC a processor's own interrupts begin at 16, shared ones at 32, and the first cell says which; a PLIC has its own numbers. */
const GIC_FIRST = [32, 16] as const;

function sourceOf(interrupt: TreeInterrupt | undefined): number | undefined {
  const [first, second] = interrupt?.cells ?? [];
  if (second === undefined) return first;
  const start = GIC_FIRST[first ?? 0];
  return start === undefined ? undefined : start + second;
}
