/**
 * The command line for VirtIO devices, as a function: for programs that include it, and for tests.
 *
 * @packageDocumentation
 */
export { type Address, formatAddress, parseAddress } from './address.ts';
export { CliError, ExitStatus } from './errors.ts';
export type { Host, Input, KernelDisk, OpenDevice, OpenHow, Output, System } from './host.ts';
export { Ending, run } from './main.ts';
export { LinuxSystem, type SystemOptions } from './system.ts';
