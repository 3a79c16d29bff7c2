/** The environment of a command: streams, variables, devices. Tests replace it. */
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

/** Options of {@link System.openDevice}. */
export interface OpenHow {
  readonly unsafePhysicalMemory?: boolean | undefined;
  readonly takeOver?: boolean | undefined;
  readonly interrupts?: 'msix' | 'intx' | 'uio' | 'polling' | undefined;
  /** The device type, if the transport does not report it (vhost-user). */
  readonly deviceType?: DeviceType | undefined;
}

/** A disk of the kernel. */
export interface KernelDisk {
  /** The name, e.g. `vda`. */
  readonly name: string;
  /** How the disk, or a part of it, is used: mounts, swap space, other devices. */
  readonly uses: readonly string[];
}

/** The machine. */
export interface System {
  listDevices(): readonly DeviceInfo[];
  openDevice(address: Address, how: OpenHow): Promise<OpenDevice>;
  /** The features that the kernel's driver has negotiated with a device; `undefined` if there is no such driver. */
  kernelFeatures(address: Address): bigint | undefined;
  /** The disks of the kernel that are on a device. */
  kernelDisks(address: Address): readonly KernelDisk[];
  /** Binds a PCI function to a driver of the kernel; `undefined`: to its default driver. */
  bind(address: string, driver: string | undefined, takeOver: boolean): void;
  /** Unbinds a PCI function from its driver. */
  unbind(address: string): void;
}

/** The environment of a command. */
export interface Host {
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the command must end: by SIGINT, SIGTERM, SIGHUP, or because the reader of its output has ended. */
  readonly signal: AbortSignal;
  readonly system: System;
}
