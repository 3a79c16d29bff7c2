/**
 * Flattened device trees: how firmware describes the devices of a machine that cannot be enumerated. npm has no parser of the
 * binary format in plain ECMAScript, and the format is small.
 *
 * @see Devicetree Specification 0.4, 5
 */
import { VirtioError } from '@virtio/core';

const MAGIC = 0xd00dfeed;
const HEADER = 40;
const TOKEN = { BEGIN_NODE: 1, END_NODE: 2, PROP: 3, NOP: 4, END: 9 } as const;
/** The supported version of the format. */
const VERSION = 17;
/*
 * Limits that the trees of real machines stay far below; a tree that exceeds them is damaged. The specification allows names of at
 * most 31 characters; without limits, the work would grow with the square of a tree's size.
 */
const MAX_DEPTH = 64;
const MAX_NAME = 255;
const MAX_ITEMS = 1024;

/** A node of a device tree. */
export class DeviceTreeNode {
  /** Its name, with the address after `@`; empty for the root. */
  readonly name: string;
  /** The parent node; `undefined` for the root. */
  readonly parent: DeviceTreeNode | undefined;
  readonly children: DeviceTreeNode[] = [];
  /** The raw values of its properties (big-endian). */
  readonly properties = new Map<string, Uint8Array>();

  constructor(name: string, parent: DeviceTreeNode | undefined) {
    this.name = name;
    this.parent = parent;
  }

  /** The path from the root: `/soc/virtio_mmio@10001000`. */
  get path(): string {
    return this.parent === undefined ? '/' : `${this.parent.path.replace(/\/$/, '')}/${this.name}`;
  }

  /** Whether the node is enabled: `status` is missing, `okay` or `ok`. */
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

  /** The first 32-bit number of a property; `undefined` if it is missing. */
  cell(name: string): number | undefined {
    const bytes = this.properties.get(name);
    if (bytes === undefined || bytes.length < 4) return undefined;
    return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
  }

  /**
   * The number of cells (32-bit numbers) of an address or a size: `#address-cells` and the like.
   *
   * @throws {@link VirtioError} `INVALID_DEVICE` for more than the specification allows
   */
  cellCount(name: string, otherwise: number): number {
    const count = this.cell(name) ?? otherwise;
    if (count <= MAX_CELLS) return count;
    throw broken(this, `${name} is ${count}, more than ${MAX_CELLS}`);
  }

  /** A property as a list of strings; empty if it is missing. */
  strings(name: string): readonly string[] {
    const bytes = this.properties.get(name);
    if (bytes === undefined || bytes.length === 0) return [];
    const list = textOf(bytes).split('\0');
    return list.at(-1) === '' ? list.slice(0, -1) : list;
  }

  /** Whether the property `compatible` lists this name. */
  isCompatible(kind: string): boolean {
    return this.strings('compatible').includes(kind);
  }

  /** This node and all its descendants, parents first. */
  *all(): Generator<DeviceTreeNode> {
    yield this;
    for (const child of this.children) yield* child.all();
  }

  /** The first cell of a property of this node or of the nearest ancestor that has it. */
  inherited(name: string): number | undefined {
    return this.cell(name) ?? this.parent?.inherited(name);
  }

  /**
   * The windows of registers (`reg`), at the addresses at which the processor sees them.
   *
   * @throws {@link VirtioError} `INVALID_DEVICE` if a parent bus does not map an address, or an address is not below 2^53
   */
  windows(): readonly AddressWindow[] {
    const addressCells = this.parent?.cellCount('#address-cells', 2) ?? 2;
    const sizeCells = this.parent?.cellCount('#size-cells', 1) ?? 1;
    return items(this, 'reg', addressCells + sizeCells).map((cells) => {
      const address = numberOf(this, cells, 0, addressCells);
      const size = numberOf(this, cells, addressCells, sizeCells);
      return { address: inReach(this, this.#translate(address, size), size), size };
    });
  }

  #translate(address: number, size: number): number {
    let result = address;
    for (let bus = this.parent; bus?.parent !== undefined; bus = bus.parent) {
      const ranges = bus.properties.get('ranges');
      // 2.3.8: if `ranges` is missing, the bus is not mapped, and `reg` is not an address of the processor.
      if (ranges === undefined) {
        throw broken(
          this,
          `the window at 0x${result.toString(16)} is on ${bus.path}, which the processor cannot access: it has no ranges`,
        );
      }
      // If it is empty, addresses are the same on both sides.
      if (ranges.length === 0) continue;
      const found = busRanges(bus).find(
        ({ child, size: length }) => result >= child && result + size <= child + length,
      );
      if (found === undefined) {
        throw broken(this, `the window at 0x${result.toString(16)} is in no range of ${bus.path}`);
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

/** An address has at most three cells (PCI), an interrupt at most four. */
const MAX_CELLS = 4;

/** The entries of a property, each of `stride` cells. An incomplete entry at the end is ignored. */
export function items(node: DeviceTreeNode, name: string, stride: number): readonly (readonly number[])[] {
  const cells = node.cells(name);
  const count = stride === 0 ? 0 : Math.floor(cells.length / stride);
  if (count > MAX_ITEMS) throw broken(node, `${name} has ${count} entries, more than ${MAX_ITEMS}`);
  return Array.from({ length: count }, (_, index) => cells.slice(index * stride, (index + 1) * stride));
}

/**
 * A big-endian number of `count` cells.
 *
 * @throws {@link VirtioError} `INVALID_DEVICE` if it is not below 2^53
 */
export function numberOf(node: DeviceTreeNode, cells: readonly number[], at: number, count: number): number {
  let value = 0;
  for (let index = at; index < at + count; index += 1) value = value * 2 ** 32 + (cells[index] ?? 0);
  return inReach(node, value, 0);
}

/** Returns the address of a window if it ends below 2^53. */
export function inReach(node: DeviceTreeNode, address: number, size: number): number {
  if (Number.isSafeInteger(address) && Number.isSafeInteger(address + size)) return address;
  throw broken(node, `the window at 0x${address.toString(16)} of ${size} bytes does not end below 2^53`);
}

/** The error for a node with impossible values. */
export function broken(node: DeviceTreeNode, why: string): VirtioError {
  return new VirtioError('INVALID_DEVICE', `the device tree's ${node.path}: ${why}`);
}

interface BusRange {
  readonly child: number;
  readonly parent: number;
  readonly size: number;
}

function busRanges(bus: DeviceTreeNode): readonly BusRange[] {
  const childCells = bus.cellCount('#address-cells', 2);
  const parentCells = bus.parent?.cellCount('#address-cells', 2) ?? 2;
  const sizeCells = bus.cellCount('#size-cells', 1);
  return items(bus, 'ranges', childCells + parentCells + sizeCells).map((cells) => ({
    child: numberOf(bus, cells, 0, childCells),
    parent: numberOf(bus, cells, childCells, parentCells),
    size: numberOf(bus, cells, childCells + parentCells, sizeCells),
  }));
}

/** The size of a device tree in bytes, from its first eight bytes; `undefined` if they do not begin a device tree. */
export function deviceTreeSize(bytes: Uint8Array): number | undefined {
  if (bytes.length < 8) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return view.getUint32(0) === MAGIC ? view.getUint32(4) : undefined;
}

/**
 * Parses a flattened device tree (`.dtb`).
 *
 * @throws {@link VirtioError} `INVALID_PARAM` for bytes that are not a complete device tree
 */
export function parseDeviceTree(bytes: Uint8Array): DeviceTreeNode {
  const size = deviceTreeSize(bytes);
  if (size === undefined || size < HEADER || size > bytes.length) {
    throw bad(
      size === undefined ? 'the magic number is missing' : `its header gives a size of ${size} bytes`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, size);
  const [structure, strings, version] = [view.getUint32(8), view.getUint32(12), view.getUint32(24)];
  const oldest = view.getUint32(28);
  if (version < 16 || oldest > VERSION) {
    throw bad(`it has version ${version}, compatible with ${oldest}; version ${VERSION} is supported`);
  }
  const text = (at: number): string => {
    const length = bytes.subarray(at, Math.min(at + MAX_NAME + 1, size)).indexOf(0);
    if (length < 0) throw bad(`the name at offset ${at} has no end, or more than ${MAX_NAME} characters`);
    return textOf(bytes.subarray(at, at + length));
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
      at = align(at + name.length + 1, structure);
      const child = new DeviceTreeNode(name, node);
      depth += 1;
      if (depth > MAX_DEPTH || (node === undefined && root !== undefined)) {
        throw bad('its nodes do not form a tree');
      }
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
      throw bad(`unknown token ${token} at offset ${at - 4}`);
    }
  }
}

function align(at: number, start: number): number {
  return start + Math.ceil((at - start) / 4) * 4;
}

/** Names and strings of a device tree are ASCII: one byte per character. */
function textOf(bytes: Uint8Array): string {
  let text = '';
  for (let index = 0; index < bytes.length; index += 1) text += String.fromCharCode(bytes[index] ?? 0);
  return text;
}

function bad(why: string): VirtioError {
  return new VirtioError('INVALID_PARAM', `not a flattened device tree: ${why}`);
}
