/** Interrupts of a device that cannot interrupt a process. */
import { InterruptStatus, PollingInterrupts } from '@virtio/core';
import type { MmioTransport } from '@virtio/mmio';
import type { PciTransport } from '@virtio/pci';

/** How often the device itself is asked, in milliseconds: reading a register is costly. */
const DEVICE_POLL_MS = 10;

/**
 * Looks for used buffers at each turn of the event loop while a caller waits, and every now and then whether the configuration
 * changed or the device is gone.
 *
 * @param transport asked for when it is needed, as it is made with what this returns
 */
export function pollingInterrupts(
  transport: () => Pick<MmioTransport | PciTransport, 'ackInterrupt' | 'isGone'>,
): PollingInterrupts {
  let asked = 0;
  return new PollingInterrupts({
    schedule: (callback) => setImmediate(callback),
    configChanged: () => {
      const now = Date.now();
      if (now - asked < DEVICE_POLL_MS) return false;
      asked = now;
      const device = transport();
      return device.ackInterrupt().has(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT) || device.isGone();
    },
  });
}
