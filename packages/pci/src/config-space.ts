/** The configuration header of a PCI function: its registers, their flags, and {@link DeviceFunctionInfo}. */
import { flagNames, Flags, formatFlags, type RegisterWindow, VirtioError } from '@virtio/core';
import type { DeviceFunction } from './device-function.ts';

/** Registers of the configuration header: offsets in bytes. */
export const PciRegister = {
  /** 16 bits; all ones where there is no function. */
  VENDOR_ID: 0x00,
  /** 16 bits. */
  DEVICE_ID: 0x02,
  /** 16 bits: see {@link Command}. */
  COMMAND: 0x04,
  /** 16 bits: see {@link Status}. */
  STATUS: 0x06,
  /** Revision, programming interface, subclass, class: one byte each. */
  REVISION: 0x08,
  /** 8 bits: see {@link HeaderType}; the highest bit says that there are functions other than 0. */
  HEADER_TYPE: 0x0e,
  /** 32 bits; the others follow. */
  BAR0: 0x10,
  /** Type 1 (bridges) only. */
  SECONDARY_BUS: 0x19,
  /** Type 0 only. */
  SUBSYSTEM_VENDOR_ID: 0x2c,
  /** Type 0 only. */
  SUBSYSTEM_ID: 0x2e,
  /** 8 bits: the offset of the first capability. */
  CAPABILITIES: 0x34,
} as const;

/** Flags of the command register: what the function may do. */
export class Command extends Flags {
  /** The function answers in I/O space. */
  static readonly IO_SPACE = 0x0001;
  /** The function answers in memory space. */
  static readonly MEMORY_SPACE = 0x0002;
  /** The function may access memory by itself (DMA), and so send message-signalled interrupts. */
  static readonly BUS_MASTER = 0x0004;
  /** The function watches special cycles. Wired to 0 in PCI Express, as are the next two. */
  static readonly SPECIAL_CYCLES = 0x0008;
  /** The function may use the command Memory Write and Invalidate. */
  static readonly MEMORY_WRITE_AND_INVALIDATE_ENABLE = 0x0010;
  /** The function snoops writes to the VGA palette. */
  static readonly VGA_PALETTE_SNOOP = 0x0020;
  /** The function responds to parity errors. */
  static readonly PARITY_ERROR_RESPONSE = 0x0040;
  /** The function may report errors to the system. */
  static readonly SERR_ENABLE = 0x0100;
  /** The function may start back-to-back transfers to different targets. Wired to 0 in PCI Express. */
  static readonly FAST_BACK_TO_BACK_ENABLE = 0x0200;
  /** The function does not assert INTx. */
  static readonly INTERRUPT_DISABLE = 0x0400;

  /** The value for these bits. */
  static from(bits: number): Command {
    return new Command(bits & 0xffff);
  }

  /** These bits and those of `mask`. */
  with(mask: number): Command {
    return Command.from(this.bits | mask);
  }

  /** These bits without those of `mask`. */
  without(mask: number): Command {
    return Command.from(this.bits & ~mask);
  }

  override toString(): string {
    return formatFlags('Command', flagNames(Command), BigInt(this.bits));
  }
}

/** Flags of the status register. */
export class Status extends Flags {
  /** The function asserts INTx, unless that is disabled. */
  static readonly INTERRUPT_STATUS = 0x0008;
  /** The function has a list of capabilities. */
  static readonly CAPABILITIES_LIST = 0x0010;
  /** The function can run at 66 MHz. Wired to 0 in PCI Express, as is the next. */
  static readonly MHZ_66_CAPABLE = 0x0020;
  /** The function accepts back-to-back transfers. */
  static readonly FAST_BACK_TO_BACK_CAPABLE = 0x0080;
  /** A transfer of this function had a parity error. Writing 1 clears this bit, and likewise those below. */
  static readonly MASTER_DATA_PARITY_ERROR = 0x0100;
  /** The function ended a transfer of another with an error (target abort). */
  static readonly SIGNALED_TARGET_ABORT = 0x0800;
  /** The target ended a transfer of this function with an error (target abort). */
  static readonly RECEIVED_TARGET_ABORT = 0x1000;
  /** No target answered a transfer of this function (master abort). */
  static readonly RECEIVED_MASTER_ABORT = 0x2000;
  /** The function reported an error to the system. */
  static readonly SIGNALED_SYSTEM_ERROR = 0x4000;
  /** The function saw a parity error. */
  static readonly DETECTED_PARITY_ERROR = 0x8000;

  /** The value for these bits. */
  static from(bits: number): Status {
    return new Status(bits & 0xffff);
  }

  override toString(): string {
    return formatFlags('Status', flagNames(Status), BigInt(this.bits));
  }
}

/** Reads the command register. */
export function readCommand(config: RegisterWindow): Command {
  return Command.from(config.read16(PciRegister.COMMAND));
}

/** Writes the command register. */
export function writeCommand(config: RegisterWindow, command: Command): void {
  config.write16(PciRegister.COMMAND, command.bits);
}

/** Reads the status register. */
export function readStatus(config: RegisterWindow): Status {
  return Status.from(config.read16(PciRegister.STATUS));
}

/** The kind of header; a number for an unknown kind. */
export type HeaderType = 'standard' | 'pci-bridge' | 'cardbus-bridge' | number;

const HEADER_TYPES = ['standard', 'pci-bridge', 'cardbus-bridge'] as const;

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/** The identity of a function from its header. Prints as `1af4:1042 (class 01.00, rev 01) standard`. */
export class DeviceFunctionInfo {
  /** The vendor id: 0x1af4 for all virtio devices. */
  readonly vendorId: number;
  /** The device id. */
  readonly deviceId: number;
  /** The revision id. */
  readonly revision: number;
  /** The programming interface of its class. */
  readonly progIf: number;
  /** The subclass code. */
  readonly subclass: number;
  /** The class code: 1 storage, 2 network, … */
  readonly class: number;
  /** The kind of header. */
  readonly headerType: HeaderType;
  /** Whether the device has functions other than 0; valid in function 0. */
  readonly multiFunction: boolean;
  /** 0 if the header has no such register. */
  readonly subsystemVendorId: number;
  /** 0 if the header has no such register. */
  readonly subsystemId: number;

  private constructor(config: RegisterWindow, ids: number) {
    this.vendorId = ids & 0xffff;
    this.deviceId = ids >>> 16;
    const revision = config.read32(PciRegister.REVISION);
    this.revision = revision & 0xff;
    this.progIf = (revision >>> 8) & 0xff;
    this.subclass = (revision >>> 16) & 0xff;
    this.class = revision >>> 24;
    const type = config.read8(PciRegister.HEADER_TYPE);
    this.headerType = HEADER_TYPES[type & 0x7f] ?? type & 0x7f;
    this.multiFunction = (type & 0x80) !== 0;
    const subsystem = this.headerType === 'standard' ? config.read32(PciRegister.SUBSYSTEM_VENDOR_ID) : 0;
    this.subsystemVendorId = subsystem & 0xffff;
    this.subsystemId = subsystem >>> 16;
  }

  /** Reads the header; `undefined` if there is no function, which reads as all ones, with some host bridges as zeros. */
  static find(config: RegisterWindow): DeviceFunctionInfo | undefined {
    const ids = config.read32(PciRegister.VENDOR_ID);
    return (ids & 0xffff) === 0xffff || ids === 0 ? undefined : new DeviceFunctionInfo(config, ids);
  }

  /**
   * Reads the header.
   *
   * @throws {@link VirtioError} `NO_DEVICE` if there is no function
   */
  static read(config: RegisterWindow, name: string | DeviceFunction): DeviceFunctionInfo {
    const info = DeviceFunctionInfo.find(config);
    if (info === undefined) {
      throw new VirtioError(
        'NO_DEVICE',
        `there is no PCI device at ${String(name)}: its ids read as ${config.read32(PciRegister.VENDOR_ID) === 0 ? 'zeros' : 'all ones'}; check the address`,
      );
    }
    return info;
  }

  /** For messages: `1af4:1042 (class 01.00, rev 01) standard`. */
  toString(): string {
    return (
      `${hex(this.vendorId, 4)}:${hex(this.deviceId, 4)} (class ${hex(this.class, 2)}.${hex(this.subclass, 2)}, ` +
      `rev ${hex(this.revision, 2)}) ${typeof this.headerType === 'number' ? `header type ${this.headerType}` : this.headerType}`
    );
  }
}
