/**
 * A tracer: reports what happens between a driver and its device: every register that the driver reads or writes, by the
 * specification's name, and every chain when it is published and when it is used. It works with any driver and any device,
 * changes nothing, and costs nothing where it is not used.
 */
import { requireInteger } from '../check.ts';
import type { Transport } from '../device/transport.ts';
import { asError } from '../errors.ts';
import type { Hal } from '../memory/hal.ts';
import type { TraceEvent, TraceOptions } from './trace-event.ts';
import { TracedHal } from './traced-hal.ts';
import { TracedTransport } from './traced-transport.ts';

/** A traced device: what to give to a driver. Disposing it disposes the transport below. */
export interface TracedDevice extends Disposable {
  /** The transport of the device, traced. */
  readonly transport: Transport;
  /** The platform, which here knows the bytes at each address of the device. */
  readonly hal: Hal;
}

/**
 * Puts a tracer between a driver and its device.
 *
 * @param listener called during the call that it reports, in the order of events; it must not use the driver. If it throws, the
 * driver is not affected: the error becomes an unhandled rejection
 * @throws {@link VirtioError} `INVALID_PARAM` if `bytes` is not a whole number of 0 or more
 *
 * @example
 * ```ts
 * import { formatTraceEvent, type Hal, traceTransport, type Transport } from '@virtio/core';
 * import { VirtioRng } from '@virtio/rng';
 *
 * export function traced(transport: Transport, hal: Hal): VirtioRng {
 *   const device = traceTransport(transport, hal, (event) => console.log(formatTraceEvent(event)));
 *   return new VirtioRng(device.transport, device.hal);
 * }
 * ```
 */
export function traceTransport(
  transport: Transport,
  hal: Hal,
  listener: (event: TraceEvent) => void,
  options: TraceOptions = {},
): TracedDevice {
  const bytes = requireInteger(transport, 'bytes', options.bytes ?? 0, 0, Number.MAX_SAFE_INTEGER);
  const tell = (event: TraceEvent): void => {
    try {
      listener(event);
    } catch (error) {
      void Promise.reject(asError(error));
    }
  };
  const memory = new TracedHal(hal, tell, bytes);
  const traced = new TracedTransport(transport, memory, tell, options);
  return {
    transport: traced,
    hal: memory,
    [Symbol.dispose]: () => {
      traced[Symbol.dispose]();
    },
  };
}
