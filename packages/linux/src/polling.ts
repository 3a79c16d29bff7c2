/** Interrupts of a device that cannot interrupt a process. */
import { type InterruptSource, InterruptStatus, PollingInterrupts, type Transport } from '@virtio/core';

/** How often the device is asked whether its configuration changed, in milliseconds: reading a register is costly. */
const CONFIG_POLL_MS = 10;

/**
 * Looks for used buffers at each turn of the event loop while somebody waits.
 *
 * @param transport asked for when it is needed, as it is made with what this returns
 */
export function pollingInterrupts(transport: () => Transport): InterruptSource {
  let asked = 0;
  return new PollingInterrupts({
    schedule: (callback) => setImmediate(callback),
    configChanged: () => {
      const now = Date.now();
      if (now - asked < CONFIG_POLL_MS) return false;
      asked = now;
      return transport().ackInterrupt().has(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT);
    },
  });
}
