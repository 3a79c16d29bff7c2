/**
 * Flattened device trees: how firmware tells which devices a machine has where they cannot be enumerated. The registry of npm has
 * no parser of the binary form in plain ECMAScript, and the format is small.
 *
 * @see Devicetree Specification 0.4, 5
 */
import { VirtioError } from '@virtio/core';

const MAGIC = 0xd00dfeed;
const HEADER = 40;
const TOKEN = { BEGIN_NODE: 1, END_NODE: 2, PROP: 3, NOP: 4, END: 9 } as const;
/** Deeper ones are no trees of machines. */
const MAX_DEPTH = 64;

/** A node of a device tree. */
export class DeviceTreeNode {
  /** Its name, with the address after `@`; empty for the root. */
  readonly name: string;
  /** The node that it is in; `undefined` for the root. */
  readonly parent: DeviceTreeNode | undefined;
  readonly children: DeviceTreeNode[] = [];
  /** The values of its properties, as they are: big-endian. */
  readonly properties = new Map<string, Uint8Array>();

  constructor(name: string, parent: DeviceTreeNode | undefined) {
    this.name = name;
    this.parent = parent;
  }

  /** The path from the root: `/soc/virtio_mmio@10001000`. */
  get path(): string {
    return this.parent === undefined ? '/' : `${this.parent.path.replace(/\/$/, '')}/${this.name}`;
  }

  /** Whether the node is switched on: `status` is missing, `okay` or `ok`. */
  get enabled(): boolean {
    const [status] = this.strings('status');
    return status === undefined || status === 'okay' || status === 'ok';
  }

  /** A property as a list of 32-bit numbers; empty if it is missing. */
  cells(name: string): readonly number[] {
    const bytes = this.properties.get(name);
    if (bytes === undefined) return [];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Array.from({ length: bytes.length >>> 2 }, (_, index) => view.getUint32(4 * index));
  }

  /** The first 32-bit number of a property. */
  cell(name: string): number | undefined {
    return this.cells(name)[0];
  }

  /** A property as a list of strings; empty if it is missing. */
  strings(name: string): readonly string[] {
    const bytes = this.properties.get(name);
    if (bytes === undefined || bytes.length === 0) return [];
    const list = textOf(bytes).split('\0');
    return list.at(-1) === '' ? list.slice(0, -1) : list;
  }

  /** Whether the node is a device of this kind. */
  isCompatible(kind: string): boolean {
    return this.strings('compatible').includes(kind);
  }

  /** This node and all below it, parents first. */
  *all(): Generator<DeviceTreeNode> {
    yield this;
    for (const child of this.children) yield* child.all();
  }

  /** The value of a property of this node or of the nearest node above that has it. */
  inherited(name: string): number | undefined {
    return this.cell(name) ?? this.parent?.inherited(name);
  }

  /**
   * The windows of registers (`reg`), at the addresses at which the processor sees them.
   *
   * @throws {@link VirtioError} `INVALID_DEVICE` if a bus above has no such window
   */
  windows(): readonly AddressWindow[] {
    const addressCells = this.parent?.cell('#address-cells') ?? 2;
    const sizeCells = this.parent?.cell('#size-cells') ?? 1;
    const cells = this.cells('reg');
    const stride = addressCells + sizeCells;
    const result: AddressWindow[] = [];
    for (let at = 0; stride > 0 && at + stride <= cells.length; at += stride) {
      const address = numberOf(cells, at, addressCells);
      const size = numberOf(cells, at + addressCells, sizeCells);
      result.push({ address: this.#translate(address, size), size });
    }
    return result;
  }

  #translate(address: number, size: number): number {
    let result = address;
    for (let bus = this.parent; bus?.parent !== undefined; bus = bus.parent) {
      const ranges = bus.properties.get('ranges');
      // Empty: the addresses are the same on both sides. Missing: nothing is visible; there `reg` is no address of the processor's.
      if (ranges === undefined || ranges.length === 0) continue;
      const found = busRanges(bus).find(
        ({ child, size: length }) => result >= child && result + size <= child + length,
      );
      if (found === undefined) {
        throw new VirtioError(
          'INVALID_DEVICE',
          `${this.path}: the window 0x${result.toString(16)} is in no range of ${bus.path}`,
        );
      }
      result = found.parent + (result - found.child);
    }
    return result;
  }
}

/** A window of addresses, in bytes. */
export interface AddressWindow {
  readonly address: number;
  readonly size: number;
}

/** Big-endian numbers of `count` cells: as much as a number holds. */
export function numberOf(cells: readonly number[], at: number, count: number): number {
  let value = 0;
  for (let index = at; index < at + count; index += 1) value = value * 2 ** 32 + (cells[index] ?? 0);
  return value;
}

function busRanges(bus: DeviceTreeNode): { child: number; parent: number; size: number }[] {
  const childCells = bus.cell('#address-cells') ?? 2;
  const parentCells = bus.parent?.cell('#address-cells') ?? 2;
  const sizeCells = bus.cell('#size-cells') ?? 1;
  const cells = bus.cells('ranges');
  const stride = childCells + parentCells + sizeCells;
  const result = [];
  for (let at = 0; at + stride <= cells.length; at += stride) {
    result.push({
      child: numberOf(cells, at, childCells),
      parent: numberOf(cells, at + childCells, parentCells),
      size: numberOf(cells, at + childCells + parentCells, sizeCells),
    });
  }
  return result;
}

/** How many bytes a device tree has, as its first eight bytes say; `undefined` if they are not a device tree's. */
export function deviceTreeSize(bytes: Uint8Array): number | undefined {
  if (bytes.length < 8) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0) === MAGIC ? view.getUint32(4) : undefined;
}

/**
 * Parses a flattened device tree (`.dtb`).
 *
 * @throws {@link VirtioError} `INVALID_PARAM` for bytes that are none, or none that is whole
 */
export function parseDeviceTree(bytes: Uint8Array): DeviceTreeNode {
  const size = deviceTreeSize(bytes);
  if (size === undefined || size < HEADER || size > bytes.length) {
    throw bad(size === undefined ? 'the magic number is missing' : `it says that it has ${size} bytes`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  const [structure, strings, version] = [view.getUint32(8), view.getUint32(12), view.getUint32(24)];
  if (version < 16) throw bad(`version ${version}`);
  const text = (at: number): string => {
    const end = at < size ? bytes.indexOf(0, at) : -1;
    if (end < 0 || end >= size) throw bad(`a string at ${at} has no end`);
    return textOf(bytes.subarray(at, end));
  };
  const word = (at: number): number => {
    if (at + 4 > size) throw bad('it ends within its structure');
    return view.getUint32(at);
  };

  let root: DeviceTreeNode | undefined;
  let node: DeviceTreeNode | undefined;
  let depth = 0;
  for (let at = structure; ;) {
    const token = word(at);
    at += 4;
    if (token === TOKEN.BEGIN_NODE) {
      const name = text(at);
      // The end of a string is found by its bytes, not by its characters.
      at = align(bytes.indexOf(0, at) + 1, structure);
      const child = new DeviceTreeNode(name, node);
      depth += 1;
      if (depth > MAX_DEPTH || (node === undefined && root !== undefined)) throw bad('its nodes are no tree');
      node?.children.push(child);
      root ??= child;
      node = child;
    } else if (token === TOKEN.PROP && node !== undefined) {
      const length = word(at);
      const name = text(strings + word(at + 4));
      if (at + 8 + length > size) throw bad(`the property ${name} of ${node.path} is longer than the tree`);
      node.properties.set(name, bytes.subarray(at + 8, at + 8 + length));
      at = align(at + 8 + length, structure);
    } else if (token === TOKEN.END_NODE && node !== undefined) {
      node = node.parent;
      depth -= 1;
    } else if (token === TOKEN.END && root !== undefined && node === undefined) {
      return root;
    } else if (token !== TOKEN.NOP) {
      throw bad(`token ${token} at ${at - 4}`);
    }
  }
}

function align(at: number, start: number): number {
  return start + Math.ceil((at - start) / 4) * 4;
}

/** Names and strings of a device tree are ASCII. */
function textOf(bytes: Uint8Array): string {
  let text = '';
  for (let index = 0; index < bytes.length; index += 1) text += String.fromCharCode(bytes[index] ?? 0);
  return text;
}

function bad(why: string): VirtioError {
  return new VirtioError('INVALID_PARAM', `not a flattened device tree: ${why}`);
}
