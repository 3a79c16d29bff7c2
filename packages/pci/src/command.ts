/**
 * The command register as the transport uses it: a number. `Command` has the same bits by name, and stays out of programs that do
 * not use it.
 */
import type { RegisterWindow } from '@virtio/core';
import { PciRegister } from './config-space.ts';

/** I/O space. */
export const DECODE_IO = 0x0001;
/** Memory space. */
export const DECODE_MEMORY = 0x0002;
/** Both kinds of addresses that a BAR may have. */
export const DECODE = DECODE_IO | DECODE_MEMORY;
export const BUS_MASTER = 0x0004;
export const INTERRUPT_DISABLE = 0x0400;

export function commandBits(config: RegisterWindow): number {
  return config.read16(PciRegister.COMMAND);
}

export function setCommandBits(config: RegisterWindow, bits: number): void {
  config.write16(PciRegister.COMMAND, bits);
}
