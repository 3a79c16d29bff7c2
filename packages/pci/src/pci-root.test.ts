import { MappedRegisters } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { camOffset, MmioCam } from './config-access.ts';
import { PciRegister } from './config-space.ts';
import { DeviceFunction } from './device-function.ts';
import { PciRoot } from './pci-root.ts';

/** A CAM window with functions at these addresses: device id, header type, secondary bus. */
function root(
  functions: Readonly<Record<string, readonly [id: number, header?: number, secondary?: number]>>,
) {
  const window = new MappedRegisters(new ArrayBuffer(0x10_0000));
  window.mapped.u8.fill(0xff);
  for (const [text, [id, header = 0, secondary = 0]] of Object.entries(functions)) {
    const at = camOffset('cam', DeviceFunction.parse(text), 0);
    window.mapped.u8.fill(0, at, at + 256);
    window.write16(at, 0x1af4);
    window.write16(at + PciRegister.DEVICE_ID, id);
    window.write8(at + PciRegister.HEADER_TYPE, header);
    if ((header & 0x7f) === 1) window.write8(at + PciRegister.SECONDARY_BUS, secondary);
  }
  return new PciRoot(new MmioCam(window, 'cam'));
}

const names = (found: Iterable<readonly [DeviceFunction, unknown]>): string[] =>
  [...found].map(([at]) => String(at).slice('0000:'.length));

describe('PciRoot', () => {
  it('finds the functions of a bus', () => {
    const pci = root({ '00:00.0': [0x1042], '00:1f.0': [0x1041], '01:00.0': [0x1042] });
    expect(names(pci.bus(0))).toEqual(['00:00.0', '00:1f.0']);
  });

  it('takes slots that read as zeros for empty ones, as some host bridges have them', () => {
    const window = new MappedRegisters(new ArrayBuffer(0x10_0000));
    const pci = new PciRoot(new MmioCam(window, 'cam'));
    expect(names(pci.functions())).toEqual([]);
    window.write32(camOffset('cam', DeviceFunction.parse('00:04.0'), 0), 0x1042_1af4);
    expect(names(pci.functions())).toEqual(['00:04.0']);
  });

  it('looks for functions above 0 only where function 0 says that there are some', () => {
    const pci = root({
      '00:01.0': [0x1042],
      '00:01.3': [0x1042],
      '00:02.0': [0x1042, 0x80],
      '00:02.7': [0x1042],
      '00:03.1': [0x1042],
    });
    expect(names(pci.bus(0))).toEqual(['00:01.0', '00:02.0', '00:02.7']);
  });

  it('follows bridges, also behind bridges', () => {
    const pci = root({
      '00:01.0': [1, 1, 3],
      '00:02.0': [0x1042],
      '03:00.0': [1, 0x81, 5],
      '03:00.1': [0x1041],
      '05:04.0': [0x1042],
    });
    expect(names(pci.functions())).toEqual(['00:01.0', '03:00.0', '05:04.0', '03:00.1', '00:02.0']);
  });

  it('visits a bus once, however bridges point', () => {
    const pci = root({
      '00:01.0': [1, 1, 1],
      '00:02.0': [1, 1, 1],
      '00:03.0': [1, 1, 0],
      '01:00.0': [1, 1, 0],
      '01:01.0': [1, 1, 1],
      '01:02.0': [1, 1, 2],
      '02:00.0': [1, 1, 1],
    });
    expect(names(pci.functions())).toEqual([
      '00:01.0',
      '01:00.0',
      '01:01.0',
      '01:02.0',
      '02:00.0',
      '00:02.0',
      '00:03.0',
    ]);
  });

  it('does not follow a bridge to a bus that the window does not reach', () => {
    expect(names(root({ '00:01.0': [1, 1, 0xf0] }).functions())).toEqual(['00:01.0']);
  });

  it('picks virtio devices', () => {
    const pci = root({ '00:01.0': [0x1042], '00:02.0': [0x10f0], '00:03.0': [0x1000] });
    expect(names(pci.virtioDevices())).toEqual(['00:01.0', '00:03.0']);
  });

  it('starts at the bus that it is given, in its segment', () => {
    const { access } = root({ '00:01.0': [0x1042], '02:01.0': [0x1042] });
    const found = [...new PciRoot(access, 7, 2).functions()];
    expect(found.map(([at]) => String(at))).toEqual(['0007:02:01.0']);
  });
});
