/** Waiting without an event loop: polls repeatedly, and checks the clock and the device's status now and then. */
import { type Named } from '../check.ts';
import { Deadline } from '../deadline.ts';
import type { Transport } from '../device/transport.ts';
import { VirtioError } from '../errors.ts';
import { show } from '../show.ts';

/** Options of calls that spin. */
export interface SpinOptions {
  /** The milliseconds after which the call gives up with `NOT_READY` (default 60,000). */
  readonly timeoutMs?: number;
}

const DEFAULT_SPIN_MS = 60_000;

/** How many polls there are between two checks of the clock and the status, which cost far more. */
export const SPINS_PER_CHECK = 4096;

/**
 * How long a spinning call may take.
 *
 * @returns milliseconds
 * @throws {@link VirtioError} `INVALID_PARAM` if `timeoutMs` is not a number of 0 or more
 */
export function spinTime(named: Named, options: SpinOptions | undefined): number {
  const timeoutMs: unknown = options?.timeoutMs;
  if (timeoutMs === undefined) return DEFAULT_SPIN_MS;
  if (typeof timeoutMs === 'number' && timeoutMs >= 0) return timeoutMs;
  throw new VirtioError(
    'INVALID_PARAM',
    `${typeof named === 'string' ? named : named.who()}: timeoutMs is ${show(timeoutMs)}; give milliseconds, 0 or more`,
  );
}

/**
 * Spins until `done` returns true.
 *
 * @param awaited what the caller waits for, for the message
 * @param report called if the device no longer works, with the error that is then thrown. What `done` throws is not reported: it may be
 * older than a reset
 * @throws {@link VirtioError} `NOT_READY` after the time allowed, `DEVICE_NEEDS_RESET`, `DEVICE_REMOVED`, `INVALID_PARAM`
 */
export function spin(
  transport: Transport,
  done: () => boolean,
  options: SpinOptions | undefined,
  awaited: string,
  report?: (error: VirtioError) => void,
): void {
  const timeoutMs = spinTime(transport, options);
  if (done()) return;
  const deadline = new Deadline(timeoutMs);
  for (let spins = 1; !done(); spins += 1) {
    if (spins % SPINS_PER_CHECK !== 0) continue;
    try {
      transport.checkAlive();
    } catch (error) {
      report?.(error as VirtioError);
      throw error;
    }
    if (deadline.isOver) throw spinTimeout(transport, timeoutMs, awaited);
  }
}

/** The error of a spinning call whose time is over. */
export function spinTimeout(transport: Transport, timeoutMs: number, awaited: string): VirtioError {
  return new VirtioError(
    'NOT_READY',
    `${transport.who()}: ${awaited} did not come within ${timeoutMs} ms; wait longer, or check the host`,
  );
}
