/** Why calls may fail: what has happened to the driver, and when. An error without a cause is a finding. */
import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import { check, describeError } from '../contract/check.ts';

/** What happens to a driver. */
export type Cause =
  'ready' | 'reset' | 'queue reset' | 'lie' | 'garble' | 'needs reset' | 'removed' | 'disposed' | 'share';

/** The time of a call. */
export interface Since {
  /** When it was made. */
  readonly made: number;
  /** The last reset before that: failures since then still count. */
  readonly reset: number;
  /** When the driver was last made ready. */
  readonly ready: number;
}

/** Records what happened. */
export class Causes {
  #now = 1;
  readonly #last = new Map<Cause, number>();

  /** Records that something happens now. */
  happened(cause: Cause): void {
    this.#now += 1;
    this.#last.set(cause, this.#now);
  }

  /** The time of a call that is made now. */
  since(): Since {
    this.#now += 1;
    return { made: this.#now, reset: this.#last.get('reset') ?? 0, ready: this.#last.get('ready') ?? 0 };
  }

  /** Whether something ever happened since a time. */
  after(cause: Cause, time: number): boolean {
    return (this.#last.get(cause) ?? -1) >= time;
  }

  /** Whether the device or a queue of it was reset since a time. */
  restarted(time: number): boolean {
    return this.after('reset', time) || this.after('queue reset', time);
  }

  /** Whether the device has lied since the last reset that succeeded. */
  get tainted(): boolean {
    return this.after('lie', this.#last.get('reset') ?? 0);
  }

  /** Whether the driver is disposed. */
  get disposed(): boolean {
    return this.#last.has('disposed');
  }

  /** Whether the device was unplugged. */
  get removed(): boolean {
    return this.#last.has('removed');
  }

  /**
   * Checks that an error has a cause.
   *
   * @param allowed codes that need no cause
   */
  judge(error: unknown, since: Since, what: string, allowed: readonly VirtioErrorCode[]): void {
    check(
      VirtioError.is(error),
      `${what} ended with ${describeError(error)}, which is not a VirtioError`,
      error,
    );
    if (allowed.includes(error.code)) return;
    const { made, reset, ready } = since;
    // Until it is made ready again, what stands on the driver (a connection) goes on to say what it ended of.
    const from = Math.min(reset, ready);
    const right =
      (error.code === 'DEVICE_RESET' && this.restarted(made)) ||
      (error.code === 'DEVICE_MISBEHAVED' && this.after('lie', from)) ||
      // Of a disk that has no sectors any more, for example.
      (['INVALID_DEVICE', 'INVALID_PARAM'].includes(error.code) && this.after('garble', from)) ||
      (error.code === 'DEVICE_NEEDS_RESET' && this.after('needs reset', from)) ||
      (error.code === 'DEVICE_REMOVED' && this.removed) ||
      (error.code === 'DISPOSED' && this.disposed) ||
      (error.code === 'DMA_ERROR' && this.after('share', 0));
    check(right, `${what} ended with ${describeError(error)}, which has no cause`, error);
  }
}
