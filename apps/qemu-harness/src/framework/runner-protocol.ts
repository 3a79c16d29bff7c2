/** What a test's process in the guest and the host say to each other. */
import type { Cell, DeviceLocation } from './define.ts';

/** Where a device is as far as the host knows: behind a port, the guest's firmware chose the number of the bus. */
export type PlannedLocation = DeviceLocation | { readonly kind: 'pci-behind-port'; readonly port: string };

/** From the host to the test. */
export type ToTest =
  | {
      readonly type: 'start';
      readonly cell: Cell;
      readonly devices: Readonly<Record<string, PlannedLocation>>;
    }
  | { readonly type: 'result'; readonly id: number; readonly value: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly message: string };

/** From the test to the host. */
export type FromTest =
  | { readonly type: 'call'; readonly id: number; readonly name: string; readonly args: unknown }
  | { readonly type: 'note'; readonly line: string }
  | { readonly type: 'passed' }
  | { readonly type: 'failed'; readonly message: string };
