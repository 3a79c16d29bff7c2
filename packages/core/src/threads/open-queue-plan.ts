/** Makes a driver for queues that another thread has lent. */
import type { Transport } from '../device/transport.ts';
import type { Hal } from '../memory/hal.ts';
import type { QueuePlan, QueuePlatform } from './queue-plan.ts';
import { QueueTransport, type ThreadDriver } from './queue-transport.ts';

/** A class of drivers. */
export type QueueDriverClass<D, O> = new (transport: Transport, hal: Hal, options?: O) => D;

/**
 * Opens queues that the driver of another thread has lent: makes a driver of the same class, with all its methods, for these queues
 * alone. When the other thread's driver is reset or fails, this one fails with the same code (`DEVICE_RESET`, `DEVICE_REMOVED` …)
 * and reports that by the event `failure`; after a reset it works again by itself.
 *
 * For authors of platforms; on Linux use `openQueue` of `@virtio/linux`.
 *
 * @throws {@link VirtioError} `ALREADY_USED` if the plan was opened before
 */
export function openQueuePlan<D extends ThreadDriver, O extends object>(
  driver: QueueDriverClass<D, O>,
  plan: QueuePlan,
  platform: QueuePlatform,
  options?: O,
): D {
  let transport: QueueTransport | undefined;
  try {
    transport = new QueueTransport(plan, platform);
    const made = new driver(transport, platform.hal, { ...(options as O), ...plan.options });
    transport.serve(made);
    return made;
  } catch (error) {
    if (transport === undefined) platform.close(false);
    else transport[Symbol.dispose]();
    throw error;
  }
}
