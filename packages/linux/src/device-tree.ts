/**
 * The virtio windows of a flattened device tree, which the kernel shows as folders (nodes) and files (properties, big-endian).
 *
 * @see Devicetree Specification 0.4, 2.3
 */
import type { SystemFiles } from './system-files.ts';

/** The address translation of a bus: children from `child` are at `parent`. */
interface BusRange {
  readonly child: number;
  readonly parent: number;
  readonly size: number;
}

/** How addresses below a node are written, and where they are. */
interface Bus {
  readonly addressCells: number;
  readonly sizeCells: number;
  /** `undefined`: the addresses of the bus are those of its parent. None: nothing on it can be reached from there. */
  readonly ranges: readonly BusRange[] | undefined;
  readonly parent: Bus | undefined;
}

interface TreeWindow {
  readonly address: number;
  readonly size: number;
  readonly source: 'device-tree';
  readonly interrupt: number | undefined;
}

const ROOT = '/proc/device-tree';
const DEPTH = 16;

/** The windows of all enabled nodes that are compatible with `virtio,mmio`. */
export function deviceTreeWindows(files: SystemFiles): TreeWindow[] {
  const windows: TreeWindow[] = [];
  const visit = (path: string, bus: Bus | undefined, depth: number): void => {
    const names = files.list(path);
    if (bus && strings(files.bytes(`${path}/compatible`)).includes('virtio,mmio') && enabled(files, path)) {
      const window = readWindow(files, path, bus);
      if (window) windows.push(window);
    }
    if (depth === DEPTH || names.length === 0) return;
    const own = readBus(files, path, bus);
    for (const name of names) {
      if (isNode(files, `${path}/${name}`)) visit(`${path}/${name}`, own, depth + 1);
    }
  };
  visit(ROOT, undefined, 0);
  return windows;
}

/** A node is a folder: it has entries, of which one is its name. */
function isNode(files: SystemFiles, path: string): boolean {
  return files.list(path).length > 0;
}

function enabled(files: SystemFiles, path: string): boolean {
  const [status = 'okay'] = strings(files.bytes(`${path}/status`));
  return status === 'okay' || status === 'ok';
}

function readBus(files: SystemFiles, path: string, parent: Bus | undefined): Bus {
  const addressCells = cells(files.bytes(`${path}/#address-cells`))[0] ?? 2;
  const sizeCells = cells(files.bytes(`${path}/#size-cells`))[0] ?? 1;
  const property = files.bytes(`${path}/ranges`);
  const raw = cells(property);
  // 2.3.8: empty ranges are the identity; without the property nothing is mapped.
  if (parent === undefined || property?.length === 0) {
    return { addressCells, sizeCells, ranges: undefined, parent };
  }
  const ranges: BusRange[] = [];
  const step = addressCells + parent.addressCells + sizeCells;
  // Without a cell there is no range, and the loop would not end.
  for (let i = 0; step > 0 && i + step <= raw.length; i += step) {
    ranges.push({
      child: wide(raw, i, addressCells),
      parent: wide(raw, i + addressCells, parent.addressCells),
      size: wide(raw, i + addressCells + parent.addressCells, sizeCells),
    });
  }
  return { addressCells, sizeCells, ranges, parent };
}

function readWindow(files: SystemFiles, path: string, bus: Bus): TreeWindow | undefined {
  const reg = cells(files.bytes(`${path}/reg`));
  if (reg.length < bus.addressCells + bus.sizeCells) return undefined;
  const address = translate(wide(reg, 0, bus.addressCells), bus);
  if (address === undefined) return undefined;
  const interrupts = cells(files.bytes(`${path}/interrupts`));
  // With three cells (ARM's interrupt controllers) the first is the kind.
  const interrupt = interrupts.length >= 3 ? interrupts[1] : interrupts[0];
  return { address, size: wide(reg, bus.addressCells, bus.sizeCells), source: 'device-tree', interrupt };
}

/** From an address of a bus to one of the root, or `undefined` if the bus does not pass it on. */
function translate(address: number, bus: Bus): number | undefined {
  let here = address;
  for (let at: Bus | undefined = bus; at; at = at.parent) {
    if (at.ranges === undefined) continue;
    const range = at.ranges.find(({ child, size }) => here >= child && here < child + size);
    if (range === undefined) return undefined;
    here = here - range.child + range.parent;
  }
  return here;
}

function cells(bytes: Uint8Array | undefined): readonly number[] {
  if (bytes === undefined) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.byteLength / 4) }, (_, i) => view.getUint32(4 * i));
}

/** A number of several cells, the most significant first. */
function wide(values: readonly number[], at: number, count: number): number {
  return values.slice(at, at + count).reduce((sum, cell) => sum * 2 ** 32 + cell, 0);
}

function strings(bytes: Uint8Array | undefined): string[] {
  return bytes === undefined ? [] : new TextDecoder().decode(bytes).split('\0').slice(0, -1);
}
