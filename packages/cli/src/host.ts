/** What a command needs of the world around it: streams, the environment, devices. Tests bring their own. */
import type { DeviceType, Hal, Transport } from '@virtio/core';
import type { DeviceInfo } from '@virtio/linux';
import type { Readable, Writable } from 'node:stream';
import type { Address } from './address.ts';

/** A stream to write to, perhaps a terminal. */
export type Output = Writable & { readonly isTTY?: boolean; readonly columns?: number };

/** A stream to read from, perhaps a terminal. */
export type Input = Readable & { readonly isTTY?: boolean; setRawMode?(on: boolean): unknown };

/** A device that is open. */
export interface OpenDevice extends Disposable {
  readonly transport: Transport;
  readonly hal: Hal;
}

/** How a device is opened. */
export interface OpenHow {
  readonly unsafePhysicalMemory?: boolean | undefined;
  readonly takeOver?: boolean | undefined;
  readonly interrupts?: 'msix' | 'intx' | 'uio' | 'polling' | undefined;
  /** What the device is, where its transport does not tell (vhost-user). */
  readonly deviceType?: DeviceType | undefined;
}

/** The kernel's part of a disk that it drives. */
export interface KernelDisk {
  /** `vda`. */
  readonly name: string;
  /** Where it, or a part of it, is mounted or otherwise in use. */
  readonly uses: readonly string[];
}

/** The machine. */
export interface System {
  listDevices(): readonly DeviceInfo[];
  openDevice(address: Address, how: OpenHow): Promise<OpenDevice>;
  /** The features that the kernel's driver has negotiated with a device, where it has one. */
  kernelFeatures(address: Address): bigint | undefined;
  /** The disks that the kernel has of a device. */
  kernelDisks(address: Address): readonly KernelDisk[];
  /** Binds a PCI function to a driver of the kernel's; `undefined`: to the one that it would have by itself. */
  bind(address: string, driver: string | undefined, takeOver: boolean): void;
  /** Takes a PCI function from its driver. */
  unbind(address: string): void;
}

/** The world around a command. */
export interface Host {
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the command is to end: by SIGINT, SIGTERM, SIGHUP, or because nobody reads its output. */
  readonly signal: AbortSignal;
  readonly system: System;
}
