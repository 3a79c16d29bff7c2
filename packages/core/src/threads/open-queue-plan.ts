/** Makes a driver for queues that another thread has handed over. */
import type { Transport } from '../device/transport.ts';
import type { Hal } from '../memory/hal.ts';
import type { QueuePlan, QueuePlatform } from './queue-plan.ts';
import { QueueTransport, type ThreadDriver } from './queue-transport.ts';

/** A class of drivers. */
export type QueueDriverClass<D, O> = new (transport: Transport, hal: Hal, options?: O) => D;

/**
 * Opens queues that the driver of another thread has handed over: the driver of the same class, with all its calls, over these queues
 * alone. It ends with `DEVICE_RESET`, `DEVICE_REMOVED` … what the other thread's driver ends so, tells of it by the event `failure`,
 * and works again by itself after a reset.
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
    if (transport === undefined) platform.close();
    else transport[Symbol.dispose]();
    throw error;
  }
}
