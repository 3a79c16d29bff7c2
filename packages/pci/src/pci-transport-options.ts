/** What a platform provides for `PciTransport`. */
import type { InterruptSource, RegisterWindow } from '@virtio/core';
import type { Bars } from './bars.ts';
import type { DeviceFunction } from './device-function.ts';
import type { PciInterrupts } from './interrupts.ts';

/** Maps `length` bytes of a BAR from `offset`. Throws `UNSUPPORTED` for a BAR that the platform cannot map (I/O space). */
export type MapBar = (bar: number, offset: number, length: number) => RegisterWindow;

/** Options of `PciTransport`: a PCI function as the platform provides it. */
export interface PciTransportOptions {
  /** The address of the function. */
  readonly at: DeviceFunction;
  /** Its configuration space. */
  readonly config: RegisterWindow;
  /** Maps a part of a BAR. */
  readonly mapBar: MapBar;
  /** Its BARs, if the platform knows them; otherwise they are read and sized. */
  readonly bars?: Bars;
  /** Its interrupt lines, or any other source of interrupts, e.g. `PollingInterrupts`. None: the driver is polled. */
  readonly interrupts?: PciInterrupts | InterruptSource;
  /** Called at the end of disposal: releases what the platform holds for the function. */
  readonly onDispose?: () => void;
}
