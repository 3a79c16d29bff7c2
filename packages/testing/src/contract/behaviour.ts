/** What a behaviour of the contract is. */
import type { Scene, Wake } from './scene.ts';
import type { ContractDriver } from './subject.ts';

/** What listeners of the contract throw. */
export const LISTENER_ERROR = 'thrown by a listener of the contract';

/** One thing that every driver keeps. */
export interface Behaviour<D extends ContractDriver> {
  /** What it is, in words. */
  readonly name: string;
  /** In which surroundings it is tried. */
  readonly wakes: readonly Wake[];
  /** Whether it is tried with the smallest queue that holds a request. */
  readonly smallest?: boolean;
  /** Whether a listener throws {@link LISTENER_ERROR}, which must become an unhandled rejection. */
  readonly throws?: boolean;
  /** Fails by throwing. The scene is checked and disposed afterwards. */
  run(scene: Scene<D>): Promise<void>;
}

/** Surroundings in which promises are kept, each in its time. */
export const WAKING: readonly Wake[] = ['interrupts', 'polling'];
/** Surroundings in which promises are kept. */
export const AWAKE: readonly Wake[] = ['interrupts', 'polling', 'interrupts inside of calls'];
/** All surroundings. */
export const ANY: readonly Wake[] = ['interrupts', 'polling', 'interrupts inside of calls', 'no interrupts'];

/** What callers without types may give in place of a signal. */
export const WRONG_SIGNALS: readonly unknown[] = [null, {}, 'abort'];
/** What they may give in place of milliseconds. */
export const WRONG_TIMES: readonly unknown[] = [NaN, -1, '5', null];
