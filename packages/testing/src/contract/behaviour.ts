/** A behaviour of the contract: one thing that is tested. */
import type { Scene, Wake } from './scene.ts';
import type { ContractDriver } from './subject.ts';

/** The message of the error that listeners of the contract throw. */
export const LISTENER_ERROR = 'thrown by a listener of the contract';

/** One thing that every driver must do. */
export interface Behaviour<D extends ContractDriver> {
  /** A description, for the name of the test. */
  readonly name: string;
  /** The environments in which it is tested. */
  readonly wakes: readonly Wake[];
  /** Whether it is tested with the smallest queue that holds a request. */
  readonly smallest?: boolean;
  /** Whether a listener throws {@link LISTENER_ERROR}, which must become an unhandled rejection. */
  readonly throws?: boolean;
  /** Runs it; throws if the driver fails. The scene is checked and disposed afterwards. */
  run(scene: Scene<D>): Promise<void>;
}

/** Environments in which promises settle asynchronously. */
export const WAKING: readonly Wake[] = ['interrupts', 'polling'];
/** Environments in which promises settle. */
export const AWAKE: readonly Wake[] = ['interrupts', 'polling', 'interrupts inside of calls'];
/** All environments. */
export const ANY: readonly Wake[] = ['interrupts', 'polling', 'interrupts inside of calls', 'no interrupts'];

/** Invalid signals that callers without types may pass. */
export const WRONG_SIGNALS: readonly unknown[] = [null, {}, 'abort'];
/** Invalid milliseconds that they may pass. */
export const WRONG_TIMES: readonly unknown[] = [NaN, -1, '5', null];
