/** What a device tree says of virtio: windows of MMIO devices with their interrupts, and PCI host bridges with their ranges. */
import type { BarRanges, DeviceFunction } from '@virtio/pci';
import { type AddressWindow, type DeviceTreeNode, numberOf } from './device-tree.ts';

/** An interrupt as a device tree gives it. */
export interface TreeInterrupt {
  /** The controller's node. */
  readonly controller: DeviceTreeNode | undefined;
  /** What the controller's kind makes of it: a PLIC has one number, a GIC has type, number and flags. */
  readonly cells: readonly number[];
}

/** The register window of an MMIO device. Whether a device is there only its registers tell. */
export interface TreeMmioDevice extends AddressWindow {
  readonly interrupts: readonly TreeInterrupt[];
}

/** A PCI host bridge whose configuration space is in memory. */
export interface TreePciHost {
  /** The window to configuration space. */
  readonly config: AddressWindow;
  /** Whether it is ECAM (4096 bytes a function), or the older CAM (256). */
  readonly kind: 'ecam' | 'cam';
  readonly segment: number;
  readonly firstBus: number;
  readonly lastBus: number;
  /**
   * Addresses that BARs may be given, as `BarAllocator` wants them. They are the same for devices and processor, unless the host
   * bridge translates; see {@link TreePciHost.translation}.
   */
  readonly ranges: BarRanges;
  /** What to add to a device's memory address for the processor's; 0 on most machines. */
  readonly translation: number;
  /** Where the processor sees I/O port 0 of the bus, if there is I/O space. */
  readonly ports: number | undefined;
  /** The interrupt of a function's INTx pin (1 to 4), behind no bridge. */
  interrupt(at: DeviceFunction, pin: number): TreeInterrupt | undefined;
}

/** A way to find nodes by their handles. */
function handles(root: DeviceTreeNode): ReadonlyMap<number, DeviceTreeNode> {
  const found = new Map<number, DeviceTreeNode>();
  for (const node of root.all()) {
    const handle = node.cell('phandle') ?? node.cell('linux,phandle');
    if (handle !== undefined) found.set(handle, node);
  }
  return found;
}

/** The windows of all `virtio,mmio` nodes that are switched on, by address. */
export function mmioDevices(root: DeviceTreeNode): readonly TreeMmioDevice[] {
  const nodes = handles(root);
  const result: TreeMmioDevice[] = [];
  for (const node of root.all()) {
    const [window] = node.isCompatible('virtio,mmio') && node.enabled ? node.windows() : [];
    if (window !== undefined) result.push({ ...window, interrupts: interruptsAmong(node, nodes) });
  }
  return result.sort((a, b) => a.address - b.address);
}

/** The interrupts of a node. */
export function interruptsOf(root: DeviceTreeNode, node: DeviceTreeNode): readonly TreeInterrupt[] {
  return interruptsAmong(node, handles(root));
}

function interruptsAmong(
  node: DeviceTreeNode,
  nodes: ReadonlyMap<number, DeviceTreeNode>,
): readonly TreeInterrupt[] {
  const controller = nodes.get(node.inherited('interrupt-parent') ?? -1);
  const count = controller?.cell('#interrupt-cells') ?? 1;
  const cells = node.cells('interrupts');
  const result: TreeInterrupt[] = [];
  for (let at = 0; count > 0 && at + count <= cells.length; at += count) {
    result.push({ controller, cells: cells.slice(at, at + count) });
  }
  return result;
}

const KINDS = { 'pci-host-ecam-generic': 'ecam', 'pci-host-cam-generic': 'cam' } as const;

/** The host bridges with configuration space in memory that are switched on. */
export function pciHosts(root: DeviceTreeNode): readonly TreePciHost[] {
  const nodes = handles(root);
  const result: TreePciHost[] = [];
  for (const node of root.all()) {
    const kind = node
      .strings('compatible')
      .map((name) => (KINDS as Partial<Record<string, 'ecam' | 'cam'>>)[name])
      .find((found) => found !== undefined);
    const [config] = kind !== undefined && node.enabled ? node.windows() : [];
    if (kind === undefined || config === undefined) continue;
    const [firstBus = 0, lastBus = 255] = node.cells('bus-range');
    const segment = node.cell('linux,pci-domain') ?? 0;
    result.push({
      ...{ config, kind, segment, firstBus, lastBus },
      ...pciRanges(node),
      interrupt: (at, pin) => mapInterrupt(node, nodes, at, pin),
    });
  }
  return result;
}

/** The upper cell of a PCI address says which space it is in. */
const SPACE_SHIFT = 24;
const SPACE = { IO: 1, MEMORY: 2, MEMORY64: 3 } as const;

function pciRanges(node: DeviceTreeNode): Pick<TreePciHost, 'ranges' | 'translation' | 'ports'> {
  const parentCells = node.parent?.cell('#address-cells') ?? 2;
  const cells = node.cells('ranges');
  const stride = 3 + parentCells + 2;
  const spaces: Partial<Record<number, { start: number; size: number; cpu: number }>> = {};
  for (let at = 0; at + stride <= cells.length; at += stride) {
    const space = ((cells[at] ?? 0) >>> SPACE_SHIFT) & 3;
    spaces[space] ??= {
      start: numberOf(cells, at + 1, 2),
      cpu: numberOf(cells, at + 3, parentCells),
      size: numberOf(cells, at + 3 + parentCells, 2),
    };
  }
  const { [SPACE.IO]: io, [SPACE.MEMORY]: memory, [SPACE.MEMORY64]: memory64 } = spaces;
  const range = ({ start, size }: AddressRangeLike): { start: number; size: number } => ({ start, size });
  return {
    ranges: {
      memory: memory === undefined ? { start: 0, size: 0 } : range(memory),
      ...(memory64 && { memory64: range(memory64) }),
      ...(io && { io: range(io) }),
    },
    translation: memory === undefined ? 0 : memory.cpu - memory.start,
    ports: io === undefined ? undefined : io.cpu - io.start,
  };
}

interface AddressRangeLike {
  readonly start: number;
  readonly size: number;
}

function mapInterrupt(
  node: DeviceTreeNode,
  nodes: ReadonlyMap<number, DeviceTreeNode>,
  at: DeviceFunction,
  pin: number,
): TreeInterrupt | undefined {
  const mask = node.cells('interrupt-map-mask');
  const map = node.cells('interrupt-map');
  const wanted = [(at.bus << 16) | (at.device << 11) | (at.function << 8), 0, 0, pin];
  for (let place = 0; place + 5 <= map.length;) {
    const controller = nodes.get(map[place + 4] ?? -1);
    if (controller === undefined) return undefined;
    const addressCells = controller.cell('#address-cells') ?? 0;
    const interruptCells = controller.cell('#interrupt-cells') ?? 1;
    const end = place + 5 + addressCells + interruptCells;
    const matches = wanted.every(
      (cell, index) => ((cell ^ (map[place + index] ?? 0)) & (mask[index] ?? -1)) === 0,
    );
    if (matches) return { controller, cells: map.slice(end - interruptCells, end) };
    place = end;
  }
  return undefined;
}
