/** Interrupts of a device that cannot interrupt a process. */
import { InterruptStatus, PollingInterrupts } from '@virtio/core';
import type { MmioTransport } from '@virtio/mmio';
import type { PciTransport } from '@virtio/pci';

/** How often the device's registers are read, in milliseconds: reading a register is costly. */
const DEVICE_POLL_MS = 10;

/**
 * Makes interrupts by polling: checks for used buffers at each turn of the event loop while a caller waits, and every now and
 * then whether the configuration has changed or the device is gone.
 *
 * @param transport called when the transport is needed, as the transport is made with the result of this function
 */
export function pollingInterrupts(
  transport: () => Pick<MmioTransport | PciTransport, 'ackInterrupt' | 'isGone'>,
): PollingInterrupts {
  let asked = -Infinity;
  return new PollingInterrupts({
    schedule: (callback) => setImmediate(callback),
    configChanged: () => {
      // Not the time of day, which may be set back.
      const now = performance.now();
      if (now - asked < DEVICE_POLL_MS) return false;
      asked = now;
      const device = transport();
      return device.ackInterrupt().has(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT) || device.isGone();
    },
  });
}
