/** The virtio devices of a device tree: windows of MMIO devices with their interrupts, and PCI host bridges with their ranges. */
import { type BarRanges, CAM_FUNCTION_SIZE, type DeviceFunction } from '@virtio/pci';
import { type AddressWindow, broken, type DeviceTreeNode, inReach, items, numberOf } from './device-tree.ts';

/** An interrupt as a device tree describes it. */
export interface TreeInterrupt {
  /** The node of the interrupt controller. */
  readonly controller: DeviceTreeNode | undefined;
  /** Its cells, whose meaning depends on the controller: one number for a PLIC; type, number and flags for a GIC. */
  readonly cells: readonly number[];
}

/** The register window of an MMIO device. Only its registers show whether there is a device. */
export interface TreeMmioDevice extends AddressWindow {
  readonly interrupts: readonly TreeInterrupt[];
}

/** A PCI host bridge whose configuration space is in memory. */
export interface TreePciHost {
  /** The window to configuration space. */
  readonly config: AddressWindow;
  /** The mechanism: ECAM (4096 bytes per function), or the older CAM (256). */
  readonly kind: 'ecam' | 'cam';
  readonly segment: number;
  readonly firstBus: number;
  readonly lastBus: number;
  /**
   * The address ranges for BARs, as `BarAllocator` takes them. Addresses are the same for devices and the processor, unless the
   * host bridge translates them; see {@link TreePciHost.translation}.
   */
  readonly ranges: BarRanges;
  /**
   * What to add to a memory address on the bus to get the processor's address; 0 on most machines. A 64-bit range with another
   * translation is left out of {@link TreePciHost.ranges}.
   */
  readonly translation: number;
  /** The processor's address of I/O port 0 of the bus, if there is I/O space. */
  readonly ports: number | undefined;
  /** The interrupt of the INTx pin (1 to 4) of a function that is not behind a bridge. */
  interrupt(at: DeviceFunction, pin: number): TreeInterrupt | undefined;
}

/** The nodes by their handles (`phandle`). */
function handles(root: DeviceTreeNode): ReadonlyMap<number, DeviceTreeNode> {
  const found = new Map<number, DeviceTreeNode>();
  for (const node of root.all()) {
    const handle = node.cell('phandle') ?? node.cell('linux,phandle');
    if (handle !== undefined) found.set(handle, node);
  }
  return found;
}

/**
 * The windows of all enabled `virtio,mmio` nodes, sorted by address.
 *
 * @throws VirtioError `INVALID_DEVICE` for impossible numbers
 */
export function mmioDevices(root: DeviceTreeNode): readonly TreeMmioDevice[] {
  const nodes = handles(root);
  const result: TreeMmioDevice[] = [];
  for (const node of root.all()) {
    const [window] = node.isCompatible('virtio,mmio') && node.enabled ? node.windows() : [];
    if (window !== undefined) result.push({ ...window, interrupts: interruptsAmong(node, nodes) });
  }
  return result.sort((a, b) => a.address - b.address);
}

/**
 * The interrupts of a node.
 *
 * @throws VirtioError `INVALID_DEVICE` for impossible numbers
 */
export function interruptsOf(root: DeviceTreeNode, node: DeviceTreeNode): readonly TreeInterrupt[] {
  return interruptsAmong(node, handles(root));
}

function interruptsAmong(
  node: DeviceTreeNode,
  nodes: ReadonlyMap<number, DeviceTreeNode>,
): readonly TreeInterrupt[] {
  if (node.properties.has('interrupts-extended')) return extendedInterrupts(node, nodes);
  const controller = nodes.get(node.inherited('interrupt-parent') ?? -1);
  const count = controller?.cellCount('#interrupt-cells', 1) ?? 1;
  return items(node, 'interrupts', count).map((cells) => ({ controller, cells }));
}

/** `interrupts-extended`: each interrupt follows the handle of its controller. */
function extendedInterrupts(
  node: DeviceTreeNode,
  nodes: ReadonlyMap<number, DeviceTreeNode>,
): readonly TreeInterrupt[] {
  const cells = node.cells('interrupts-extended');
  const result: TreeInterrupt[] = [];
  for (let at = 0; at < cells.length;) {
    const controller = nodes.get(cells[at] ?? -1);
    const end = at + 1 + (controller?.cellCount('#interrupt-cells', 1) ?? Infinity);
    if (end > cells.length) {
      throw broken(node, `interrupts-extended names no controller at cell ${at}, or ends too early`);
    }
    result.push({ controller, cells: cells.slice(at + 1, end) });
    at = end;
  }
  return result;
}

const MAX_BUS = 255;
const MAX_SEGMENT = 0xffff;
/** Bytes of configuration space per bus. */
const BUS_SIZE = { ecam: 256 * CAM_FUNCTION_SIZE.ecam, cam: 256 * CAM_FUNCTION_SIZE.cam } as const;

const KINDS = { 'pci-host-ecam-generic': 'ecam', 'pci-host-cam-generic': 'cam' } as const;

/**
 * The enabled PCI host bridges with configuration space in memory.
 *
 * @throws VirtioError `INVALID_DEVICE` for impossible numbers
 */
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
    const [firstBus = 0, lastBus = MAX_BUS] = node.cells('bus-range');
    const segment = node.cell('linux,pci-domain') ?? 0;
    // No more buses than the window has room for.
    const last = Math.min(lastBus, firstBus + Math.floor(config.size / BUS_SIZE[kind]) - 1);
    if (firstBus > last || last > MAX_BUS || segment > MAX_SEGMENT) {
      throw broken(
        node,
        `buses ${firstBus} to ${lastBus} of segment ${segment} are impossible in ${config.size} bytes of configuration space`,
      );
    }
    result.push({
      ...{ config, kind, segment, firstBus, lastBus: last },
      ...pciRanges(node),
      interrupt: (at, pin) => mapInterrupt(node, nodes, at, pin),
    });
  }
  return result;
}

/** The highest cell of a PCI address says which space it is in. */
const SPACE_SHIFT = 24;
const SPACE = { IO: 1, MEMORY: 2, MEMORY64: 3 } as const;

interface PciRange {
  readonly start: number;
  readonly size: number;
  readonly cpu: number;
}

function pciRanges(node: DeviceTreeNode): Pick<TreePciHost, 'ranges' | 'translation' | 'ports'> {
  const parentCells = node.parent?.cellCount('#address-cells', 2) ?? 2;
  const spaces: Partial<Record<number, PciRange>> = {};
  for (const cells of items(node, 'ranges', 3 + parentCells + 2)) {
    const space = ((cells[0] ?? 0) >>> SPACE_SHIFT) & 3;
    const size = numberOf(node, cells, 3 + parentCells, 2);
    const start = inReach(node, numberOf(node, cells, 1, 2), size);
    spaces[space] ??= { start, size, cpu: inReach(node, numberOf(node, cells, 3, parentCells), size) };
  }
  const { [SPACE.IO]: io, [SPACE.MEMORY]: memory, [SPACE.MEMORY64]: memory64 } = spaces;
  const translation = memory === undefined ? 0 : memory.cpu - memory.start;
  const range = ({ start, size }: PciRange): { start: number; size: number } => ({ start, size });
  return {
    ranges: {
      memory: memory === undefined ? { start: 0, size: 0 } : range(memory),
      ...(memory64 && memory64.cpu - memory64.start === translation && { memory64: range(memory64) }),
      ...(io && { io: range(io) }),
    },
    translation,
    ports: io === undefined ? undefined : io.cpu - io.start,
  };
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
    const interruptCells = controller.cellCount('#interrupt-cells', 1);
    const end = place + 5 + controller.cellCount('#address-cells', 0) + interruptCells;
    if (end > map.length) return undefined;
    const matches = wanted.every(
      (cell, index) => ((cell ^ (map[place + index] ?? 0)) & (mask[index] ?? -1)) === 0,
    );
    if (matches) return { controller, cells: map.slice(end - interruptCells, end) };
    place = end;
  }
  return undefined;
}
