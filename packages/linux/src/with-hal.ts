/** A device together with its Hal: opened and closed as one. */
import { type Transport, VirtioError } from '@virtio/core';
import { disposeAtExit } from './exit-cleanup.ts';
import type { LinuxHal } from './hal.ts';
import type { OpenOptions } from './open-options.ts';
import { SystemCallError, systemError } from './system-error.ts';
import { VfioHal } from './vfio-hal.ts';

/** Opens with the Hal of the options, or with one that lives as long as the device. */
export function withHal<T extends Transport, H extends LinuxHal>(
  { hal: given }: OpenOptions,
  fits: (hal: LinuxHal) => hal is H,
  create: () => H,
  open: (hal: H) => T,
): { readonly transport: T; readonly hal: H } & Disposable {
  if (given !== undefined && !fits(given)) {
    throw new VirtioError(
      'INVALID_PARAM',
      'the option `hal` is that of another device, but one of the two devices is behind the IOMMU and the other uses physical memory; ' +
        'open each with a Hal of its own',
    );
  }
  const hal = given ?? create();
  let transport: T;
  try {
    transport = open(hal);
  } catch (error) {
    if (given === undefined) hal[Symbol.dispose]();
    if (!(error instanceof SystemCallError)) throw error;
    throw systemError(
      'the device could not be opened',
      error,
      'it may have been unplugged meanwhile; the kernel log ("dmesg") may say more',
    );
  }
  let closed = false;
  const close = (): void => {
    // Once only: the transport of a device that did not stop is disposed, and would be taken for stopped.
    if (closed) return;
    closed = true;
    forget();
    let stopped = false;
    try {
      transport[Symbol.dispose]();
      stopped = true;
    } finally {
      // A device that did not stop may still write to physical memory; with VFIO it cannot reach this process's memory.
      if (given === undefined && (stopped || hal instanceof VfioHal)) hal[Symbol.dispose]();
    }
  };
  const forget = disposeAtExit({ [Symbol.dispose]: close });
  return { transport, hal, [Symbol.dispose]: close };
}
