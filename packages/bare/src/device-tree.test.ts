import { describe, expect, it } from 'vitest';
import { DeviceFunction } from '@virtio/pci';
import { deviceTreeSize, parseDeviceTree } from './device-tree.ts';
import { mmioDevices, pciHosts } from './tree-devices.ts';

type Value = string | readonly number[] | readonly string[];
interface Node {
  readonly properties?: Readonly<Record<string, Value>>;
  readonly children?: Readonly<Record<string, Node>>;
}

/** Writes a flattened device tree as firmware does. */
function flatten(root: Node): Uint8Array<ArrayBuffer> {
  const words: number[] = [];
  const names: string[] = [];
  const put = (bytes: readonly number[]): void => {
    const padded = [...bytes, ...Array<number>((4 - (bytes.length % 4)) % 4).fill(0)];
    for (let at = 0; at < padded.length; at += 4) {
      words.push(new DataView(Uint8Array.from(padded.slice(at, at + 4)).buffer).getUint32(0));
    }
  };
  const text = (value: string): number[] => Array.from(`${value}\0`, (letter) => letter.charCodeAt(0));
  const offset = (name: string): number => {
    if (!names.includes(name)) names.push(name);
    return names.slice(0, names.indexOf(name)).join('\0').length + (names.indexOf(name) > 0 ? 1 : 0);
  };
  const bytesOf = (value: Value): number[] => {
    const list = typeof value === 'string' ? [value] : value;
    return list.flatMap((item) =>
      typeof item === 'string' ? text(item) : [24, 16, 8, 0].map((shift) => (item >>> shift) & 0xff),
    );
  };
  const node = (name: string, { properties = {}, children = {} }: Node): void => {
    words.push(1);
    put(text(name));
    for (const [key, value] of Object.entries(properties)) {
      const bytes = bytesOf(value);
      words.push(4, 3, bytes.length, offset(key));
      put(bytes);
    }
    for (const [key, child] of Object.entries(children)) node(key, child);
    words.push(2);
  };
  node('', root);
  words.push(9);
  const strings = names.flatMap(text);
  const size = 40 + 4 * words.length + strings.length;
  const view = new DataView(new ArrayBuffer(size));
  [0xd00dfeed, size, 40, 40 + 4 * words.length, 0, 17, 16, 0, strings.length, 4 * words.length].forEach(
    (word, index) => view.setUint32(4 * index, word),
  );
  words.forEach((word, index) => view.setUint32(40 + 4 * index, word));
  const bytes = new Uint8Array(view.buffer);
  bytes.set(strings, 40 + 4 * words.length);
  return bytes;
}

/** Two interrupt controllers and what is behind them, in the shape of QEMU's `virt` boards. */
const BOARD: Node = {
  properties: { '#address-cells': [2], '#size-cells': [2], 'interrupt-parent': [1] },
  children: {
    'plic@c000000': { properties: { phandle: [1], '#interrupt-cells': [1], '#address-cells': [0] } },
    soc: {
      properties: { '#address-cells': [1], '#size-cells': [1], ranges: [0x1000, 0, 0x1000_0000, 0x1_0000] },
      children: {
        'virtio_mmio@3000': {
          properties: { compatible: ['vendor,x', 'virtio,mmio'], reg: [0x3000, 0x200], interrupts: [3, 4] },
        },
        'virtio_mmio@2000': {
          properties: { compatible: 'virtio,mmio', reg: [0x2000, 0x200], interrupts: [2], status: 'okay' },
        },
        'virtio_mmio@4000': {
          properties: { compatible: 'virtio,mmio', reg: [0x4000, 0x200], status: 'disabled' },
        },
      },
    },
    'pcie@30000000': {
      properties: {
        compatible: 'pci-host-ecam-generic',
        '#address-cells': [3],
        '#size-cells': [2],
        reg: [0, 0x3000_0000, 0, 0x1000_0000],
        'bus-range': [0, 15],
        // I/O, memory of 32 bits, memory of 64 bits (prefetchable).
        ranges: [
          ...[0x0100_0000, 0, 0, 0, 0x300_0000, 0, 0x1_0000],
          ...[0x0200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x4000_0000],
          ...[0x4300_0000, 4, 0, 4, 0, 4, 0],
        ],
        'interrupt-map-mask': [0x1800, 0, 0, 7],
        'interrupt-map': [0, 0, 0, 1, 1, 32, 0, 0, 0, 2, 1, 33, 0x800, 0, 0, 1, 1, 33, 0x800, 0, 0, 2, 1, 34],
      },
    },
  },
};

describe('a flattened device tree', () => {
  const bytes = flatten(BOARD);

  it('is parsed into nodes with their properties, and says how long it is', () => {
    const root = parseDeviceTree(bytes);
    expect(deviceTreeSize(bytes)).toBe(bytes.length);
    expect([...root.all()].map(({ path }) => path)).toEqual([
      '/',
      '/plic@c000000',
      '/soc',
      '/soc/virtio_mmio@3000',
      '/soc/virtio_mmio@2000',
      '/soc/virtio_mmio@4000',
      '/pcie@30000000',
    ]);
    expect(root.children[1]?.children[0]?.strings('compatible')).toEqual(['vendor,x', 'virtio,mmio']);
  });

  it('gives the windows of MMIO devices where the processor sees them, with their interrupts, without disabled ones', () => {
    const devices = mmioDevices(parseDeviceTree(bytes));
    expect(devices.map(({ address, size }) => [address, size])).toEqual([
      [0x1000_1000, 0x200],
      [0x1000_2000, 0x200],
    ]);
    expect(devices.map(({ interrupts }) => interrupts.map(({ cells }) => cells))).toEqual([
      [[2]],
      [[3], [4]],
    ]);
    expect(devices[0]?.interrupts[0]?.controller?.name).toBe('plic@c000000');
  });

  it('gives PCI host bridges with their windows, ranges and interrupts', () => {
    const [host] = pciHosts(parseDeviceTree(bytes));
    expect(host).toMatchObject({
      config: { address: 0x3000_0000, size: 0x1000_0000 },
      kind: 'ecam',
      firstBus: 0,
      lastBus: 15,
      translation: 0,
      ports: 0x300_0000,
      ranges: {
        io: { start: 0, size: 0x1_0000 },
        memory: { start: 0x4000_0000, size: 0x4000_0000 },
        memory64: { start: 4 * 2 ** 32, size: 4 * 2 ** 32 },
      },
    });
    // The mask keeps two bits of the device's number: device 5 has the lines of device 1.
    expect(host?.interrupt(new DeviceFunction(0, 5, 0), 2)?.cells).toEqual([34]);
    expect(host?.interrupt(new DeviceFunction(0, 4, 0), 1)?.cells).toEqual([32]);
    expect(host?.interrupt(new DeviceFunction(0, 2, 0), 1)).toBeUndefined();
  });

  it('gives interrupts that name their controllers themselves', () => {
    const tree = parseDeviceTree(
      flatten({
        children: {
          a: { properties: { phandle: [7], '#interrupt-cells': [3] } },
          b: { properties: { phandle: [8], '#interrupt-cells': [1] } },
          device: {
            properties: {
              compatible: 'virtio,mmio',
              reg: [0, 0x1000, 0x200],
              'interrupts-extended': [8, 5, 7, 0, 16, 4],
            },
          },
        },
      }),
    );
    expect(
      mmioDevices(tree)[0]?.interrupts.map(({ controller, cells }) => [controller?.name, cells]),
    ).toEqual([
      ['b', [5]],
      ['a', [0, 16, 4]],
    ]);
  });

  it('leaves a 64-bit range out that is translated otherwise than the 32-bit one', () => {
    const [host] = pciHosts(
      parseDeviceTree(
        flatten({
          properties: { '#address-cells': [2], '#size-cells': [2] },
          children: {
            pcie: {
              properties: {
                compatible: 'pci-host-ecam-generic',
                reg: [0, 0x3000_0000, 0, 0x100_0000],
                ranges: [
                  ...[0x0200_0000, 0, 0x4000_0000, 0, 0x5000_0000, 0, 0x1000_0000],
                  ...[0x4300_0000, 4, 0, 4, 0, 4, 0],
                ],
              },
            },
          },
        }),
      ),
    );
    expect(host).toMatchObject({ translation: 0x1000_0000, lastBus: 15 });
    expect(host?.ranges).toEqual({ memory: { start: 0x4000_0000, size: 0x1000_0000 } });
  });

  const hostile = (
    properties: Readonly<Record<string, Value>>,
    above: Readonly<Record<string, Value>> = {},
  ): (() => unknown) => {
    const tree = parseDeviceTree(flatten({ properties: above, children: { device: { properties } } }));
    return () => [mmioDevices(tree), pciHosts(tree)];
  };
  const mmio = { compatible: 'virtio,mmio', reg: [0, 0x1000, 0x200] };
  const pci = { compatible: 'pci-host-ecam-generic', reg: [0, 0x3000_0000, 0x100_0000] };

  it.each<[string, () => unknown]>([
    ['an address beyond 2^53', hostile({ ...mmio, reg: [0xffff_ffff, 0, 0x200] })],
    ['a window that ends beyond 2^53', hostile({ ...mmio, reg: [0x1f_ffff, 0xffff_ffff, 0x200] })],
    ['cells without number', hostile(mmio, { '#address-cells': [0xffff_ffff] })],
    ['thousands of windows', hostile({ ...mmio, reg: Array<number>(9000).fill(1) })],
    ['thousands of interrupts', hostile({ ...mmio, interrupts: Array<number>(2000).fill(1) })],
    ['an interrupt of no controller', hostile({ ...mmio, 'interrupts-extended': [9, 1] })],
    ['buses beyond 255', hostile({ ...pci, 'bus-range': [300, 301] })],
    ['buses in the wrong order', hostile({ ...pci, 'bus-range': [5, 4] })],
    ['configuration space of no bus', hostile({ ...pci, reg: [0, 0x3000_0000, 0x1000] })],
    ['a segment beyond 65535', hostile({ ...pci, 'linux,pci-domain': [0x1_0000] })],
    ['a range beyond 2^53', hostile({ ...pci, ranges: [0x0200_0000, 0xffff_ffff, 0, 0, 0, 0, 1] })],
  ])('is refused with %s', (_, body) => {
    expect(body).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
  });

  it('gives no address of the processor for a window on a bus that it cannot access, which has no ranges', () => {
    const bus = {
      children: { device: { properties: { compatible: 'virtio,mmio', reg: [0, 0x1000, 0x200] } } },
    };
    const tree = parseDeviceTree(flatten({ children: { bus } }));
    expect(() => mmioDevices(tree)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
    const mapped = parseDeviceTree(flatten({ children: { bus: { ...bus, properties: { ranges: [] } } } }));
    expect(mmioDevices(mapped).map(({ address }) => address)).toEqual([0x1000]);
  });

  it('is refused with a name that is too long, or a version that cannot be read', () => {
    expect(() => parseDeviceTree(flatten({ children: { ['n'.repeat(256)]: {} } }))).toThrow(/256|255/);
    const newer = bytes.slice();
    new DataView(newer.buffer).setUint32(28, 18);
    expect(() => parseDeviceTree(newer)).toThrow(/version/);
  });

  it('gives no interrupt of a map that ends within an entry', () => {
    const { 'pcie@30000000': pcie = {}, ...children } = BOARD.children ?? {};
    const cut = { ...pcie, properties: { ...pcie.properties, 'interrupt-map': [0, 0, 0, 1, 1] } };
    const tree = parseDeviceTree(flatten({ ...BOARD, children: { ...children, pcie: cut } }));
    const [host] = pciHosts(tree);
    expect(host?.interrupt(new DeviceFunction(0, 0, 0), 1)).toBeUndefined();
  });

  it('is refused where it is cut off or damaged, whatever the place, and never read beyond its end', () => {
    expect(() => parseDeviceTree(new Uint8Array(64))).toThrow(/magic/);
    for (let length = 8; length < bytes.length; length += 1) {
      expect(() => parseDeviceTree(bytes.subarray(0, length))).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
    for (let at = 8; at < bytes.length; at += 1) {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0xff;
      try {
        const root = parseDeviceTree(damaged);
        mmioDevices(root);
        for (const host of pciHosts(root)) host.interrupt(new DeviceFunction(0, 1, 0), 1);
      } catch (error) {
        expect(error).toMatchObject({ name: 'VirtioError' });
      }
    }
  });
});
