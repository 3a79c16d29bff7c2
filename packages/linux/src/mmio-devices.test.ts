import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listDevices } from './discovery.ts';
import { acpiWindows, commandLineWindows, listMmioDevices } from './mmio-devices.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

let machine: FakeMachine;

beforeEach(() => {
  machine = new FakeMachine();
});
afterEach(() => {
  machine[Symbol.dispose]();
});

const cells = (...values: number[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => view.setUint32(4 * i, value));
  return new Uint8Array(view.buffer);
};

describe('MMIO windows', () => {
  it('are found among the resources of ACPI', () => {
    const iomem = [
      '00000000-00000fff : Reserved',
      'feb00000-feb001ff : LNRO0005:00',
      '  feb02e00-feb02fff : LNRO0005:23',
      'fec00000-fec003ff : IOAPIC 0',
      '00000000-00000000 : LNRO0005:01',
    ].join('\n');
    expect(acpiWindows(iomem)).toEqual([
      { address: 0xfeb00000, size: 512, source: 'acpi', interrupt: undefined, platformName: 'LNRO0005:00' },
      { address: 0xfeb02e00, size: 512, source: 'acpi', interrupt: undefined, platformName: 'LNRO0005:23' },
    ]);
  });

  it('are found on the command line of the kernel', () => {
    const line =
      'quiet virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=4K@0xd0000000:6:7 virtio_mmio.device=0x1k@4096:7 ' +
      'virtio-mmio.device="0x1M@010000:8" root=/dev/vda -- virtio_mmio.device=512@0xfeb00400:5';
    expect(commandLineWindows(line)).toEqual(
      [
        { address: 0xfeb00000, size: 512, interrupt: 5, platformName: 'virtio-mmio.0' },
        { address: 0xd0000000, size: 4096, interrupt: 6, platformName: 'virtio-mmio.7' },
        { address: 4096, size: 1024, interrupt: 7, platformName: 'virtio-mmio.8' },
        { address: 0o10000, size: 2 ** 20, interrupt: 8, platformName: 'virtio-mmio.9' },
      ].map((window) => ({ ...window, source: 'command-line' })),
    );
  });

  it.each([
    'nonsense',
    '1K@zzz:7',
    '512@0xfeb00000',
    '512@0xfeb00000:0',
    '512@0xfeb00000:x',
    '512@0xfeb00000:5:1:2',
    '0@0xfeb00000:5',
    '08@0xfeb00000:5',
    '512@0xfffffffffffffe00:5',
  ])('are not where the command line says %j', (parameter) => {
    expect(commandLineWindows(`virtio_mmio.device=${parameter}`)).toEqual([]);
  });

  it('are found in the device tree, through buses that translate and past nodes that are disabled', () => {
    const node = (path: string, properties: Record<string, string | Uint8Array>): void => {
      machine.tree(
        Object.fromEntries(
          Object.entries(properties).map(([name, value]) => [`proc/device-tree/${path}${name}`, value]),
        ),
      );
    };
    node('', { '#address-cells': cells(2), '#size-cells': cells(2), name: '\0' });
    node('virtio_mmio@a000000/', {
      compatible: 'virtio,mmio\0',
      reg: cells(0, 0x0a000000, 0, 0x200),
      interrupts: cells(0, 0x10, 1),
      name: 'virtio_mmio\0',
    });
    node('virtio_mmio@a000200/', {
      compatible: 'virtio,mmio\0',
      reg: cells(0, 0x0a000200, 0, 0x200),
      status: 'disabled\0',
    });
    node('soc/', {
      '#address-cells': cells(1),
      '#size-cells': cells(1),
      ranges: cells(0x1000, 0x1, 0x40000000, 0x10000),
      compatible: 'simple-bus\0',
    });
    node('soc/virtio@2000/', {
      compatible: 'acme,thing\0virtio,mmio\0',
      reg: cells(0x2000, 0x100),
      interrupts: cells(9),
    });
    node('soc/virtio@90000/', { compatible: 'virtio,mmio\0', reg: cells(0x90000, 0x100) });
    node('plain/', { '#address-cells': cells(1), '#size-cells': cells(1), ranges: '' });
    node('plain/virtio@5000/', { compatible: 'virtio,mmio\0', reg: cells(0x5000, 0x100) });
    node('apart/', { '#address-cells': cells(1), '#size-cells': cells(1) });
    node('apart/virtio@6000/', { compatible: 'virtio,mmio\0', reg: cells(0x6000, 0x100) });
    expect(listMmioDevices(new SystemFiles(machine.root))).toEqual([
      expect.objectContaining({ address: 0x5000, size: 0x100, source: 'device-tree', interrupt: undefined }),
      expect.objectContaining({ address: 0x0a000000, size: 0x200, interrupt: 0x10 }),
      expect.objectContaining({ address: 0x1_4000_1000, size: 0x100, interrupt: 9 }),
    ]);
  });

  it('are looked for in a device tree whose buses have addresses of no cells', () => {
    machine.tree({
      'proc/device-tree/#address-cells': cells(0),
      'proc/device-tree/#size-cells': cells(0),
      'proc/device-tree/bus/#address-cells': cells(0),
      'proc/device-tree/bus/#size-cells': cells(0),
      'proc/device-tree/bus/ranges': cells(0, 0),
    });
    expect(listMmioDevices(new SystemFiles(machine.root))).toEqual([]);
  });

  it('are listed once, with the driver that has them', () => {
    machine.tree({
      'proc/iomem': 'feb00000-feb001ff : LNRO0005:00\nfeb00200-feb003ff : LNRO0005:01\n',
      'proc/cmdline': 'virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xd0000000:6\n',
      'sys/bus/platform/devices/LNRO0005:00/driver': '-> ../../drivers/virtio-mmio',
      'sys/bus/platform/devices/LNRO0005:01/modalias': 'acpi:LNRO0005:\n',
      'sys/bus/platform/devices/virtio-mmio.1/driver': '-> ../../drivers/virtio-mmio',
      'proc/device-tree/#address-cells': cells(1),
      'proc/device-tree/virtio@a000000/compatible': 'virtio,mmio\0',
      'proc/device-tree/virtio@a000000/reg': cells(0x0a000000, 0x200),
      'sys/bus/platform/devices/a000000.virtio/driver': '-> ../../drivers/virtio-mmio',
    });
    expect(listDevices({ root: machine.root })).toEqual([
      expect.objectContaining({ address: 0x0a000000, source: 'device-tree', driver: 'virtio-mmio' }),
      {
        kind: 'mmio',
        address: 0xd0000000,
        size: 512,
        source: 'command-line',
        interrupt: 6,
        driver: 'virtio-mmio',
        deviceType: undefined,
      },
      expect.objectContaining({ address: 0xfeb00000, source: 'acpi', driver: 'virtio-mmio' }),
      expect.objectContaining({ address: 0xfeb00200, source: 'acpi', driver: undefined }),
    ]);
  });
});
