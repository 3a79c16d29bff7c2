import { MappedRegisters } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import {
  Command,
  DeviceFunctionInfo,
  PciRegister,
  readCommand,
  readStatus,
  Status,
  writeCommand,
} from './config-space.ts';
import { DeviceFunction } from './device-function.ts';

function space(fill: (view: DataView) => void): MappedRegisters {
  const buffer = new ArrayBuffer(256);
  fill(new DataView(buffer));
  return new MappedRegisters(buffer);
}

describe('status and command', () => {
  it('print by name, with unknown bits visible', () => {
    expect(String(Command.from(0x0407))).toBe(
      'Command(IO_SPACE | MEMORY_SPACE | BUS_MASTER | INTERRUPT_DISABLE)',
    );
    expect(String(Status.from(0x0411))).toBe('Status(CAPABILITIES_LIST | 0x401)');
  });

  it('are read and written apart, so that no status bit is cleared by accident', () => {
    const config = space((view) => view.setUint32(PciRegister.COMMAND, 0x0020_0003, true));
    expect(readStatus(config).bits).toBe(Status.MHZ_66_CAPABLE);
    expect(readCommand(config).bits).toBe(Command.IO_SPACE | Command.MEMORY_SPACE);
    writeCommand(config, Command.from(Command.BUS_MASTER).with(Command.MEMORY_SPACE));
    expect(config.read32(PciRegister.COMMAND)).toBe(0x0020_0006);
  });

  it('gain and lose bits without changing', () => {
    const command = Command.from(7);
    expect(command.without(Command.BUS_MASTER).bits).toBe(3);
    expect(command.bits).toBe(7);
    expect(command.has(Command.BUS_MASTER | Command.IO_SPACE)).toBe(true);
  });
});

describe('DeviceFunctionInfo', () => {
  const header = (view: DataView): void => {
    view.setUint32(0x00, 0x1042_1af4, true);
    view.setUint32(0x08, 0x0180_0301, true);
    view.setUint8(0x0e, 0x80);
    view.setUint32(0x2c, 0x1100_1af5, true);
  };

  it('says what the header says', () => {
    expect(DeviceFunctionInfo.find(space(header))).toEqual(
      expect.objectContaining({
        vendorId: 0x1af4,
        deviceId: 0x1042,
        class: 1,
        subclass: 0x80,
        progIf: 3,
        revision: 1,
        headerType: 'standard',
        multiFunction: true,
        subsystemVendorId: 0x1af5,
        subsystemId: 0x1100,
      }),
    );
  });

  it('prints ids, class and revision', () => {
    expect(String(DeviceFunctionInfo.find(space(header)))).toBe('1af4:1042 (class 01.80, rev 01) standard');
  });

  it.each([
    [1, 'pci-bridge'],
    [2, 'cardbus-bridge'],
    [0x45, 0x45],
  ])('knows header type %d as %s, and reads no subsystem there', (type, expected) => {
    const info = DeviceFunctionInfo.find(
      space((view) => {
        header(view);
        view.setUint8(0x0e, type);
      }),
    );
    expect(info).toMatchObject({ headerType: expected, multiFunction: false, subsystemId: 0 });
    expect(String(info)).toMatch(
      typeof expected === 'number' ? /header type 69$/ : new RegExp(`${expected}$`),
    );
  });

  it('takes all ones for no device', () => {
    const empty = space((view) => {
      for (let i = 0; i < 256; i += 4) view.setUint32(i, 0xffff_ffff);
    });
    expect(DeviceFunctionInfo.find(empty)).toBeUndefined();
    expect(() => DeviceFunctionInfo.read(empty, new DeviceFunction(0, 3, 0))).toThrow(
      expect.objectContaining({
        code: 'NO_DEVICE',
        message: expect.stringContaining('0000:00:03.0') as string,
      }),
    );
  });
});
