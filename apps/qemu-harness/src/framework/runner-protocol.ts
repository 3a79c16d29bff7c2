/** What a process of tests in the guest and the host say to each other. */
import type { Cell, DeviceLocation } from './define.ts';
import type { TestResult } from './results.ts';

/** Where a device is as far as the host knows: behind a port, the guest's firmware chose the number of the bus. */
export type PlannedLocation = DeviceLocation | { readonly kind: 'pci-behind-port'; readonly port: string };

/** From the host to the process. */
export type ToTest =
  | {
      readonly type: 'start';
      readonly device: string;
      readonly name: string;
      readonly cell: Cell;
      readonly devices: Readonly<Record<string, PlannedLocation>>;
    }
  | { readonly type: 'result'; readonly id: number; readonly value: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly message: string }
  /** There are no more tests: the process shall end by itself. */
  | { readonly type: 'end' };

/** From the process to the host. */
export type FromTest =
  /** It is loaded and takes a test. */
  | { readonly type: 'ready' }
  | { readonly type: 'call'; readonly id: number; readonly name: string; readonly args: unknown }
  | { readonly type: 'note'; readonly line: string }
  /** A driver has negotiated features. */
  | { readonly type: 'negotiated'; readonly what: NonNullable<TestResult['negotiated']>[number] }
  | { readonly type: 'passed' }
  | { readonly type: 'failed'; readonly message: string }
  /** Follows the verdict: what the test has left open. With nothing left, the process takes the next test. */
  | { readonly type: 'left'; readonly what: readonly string[] };
