/**
 * The fuzzer of whole drivers: makes random calls in all forms, with a device that is slow, answers at any moment, lies, needs a
 * reset or is unplugged; with aborts, time-outs, resets and disposal, also from within listeners, from within the device, and from
 * within calls that spin. It checks that:
 *
 * - the driver throws only a `VirtioError`, and none without a cause;
 * - a promise settles when its answer has arrived, and always after a reset or disposal;
 * - answers reach their own requests, and the buffers of those that failed are unchanged;
 * - buffers are given back once, and not while the device has them; the device accesses only memory that it was offered;
 * - no slot, buffer or message is lost, nothing is sent twice, nothing keeps the event loop alive;
 * - a failure is reported once.
 *
 * It takes a {@link Subject}, so that each driver of the contract can be fuzzed. A seed reproduces a run.
 */
import { CommonFeatures } from '@virtio/core';
import { ContractBreach, describeError } from '../contract/check.ts';
import type { ContractDriver, Subject } from '../contract/subject.ts';
import { ringVariants } from '../ring-variants.ts';
import { emptyFuzzCounts, type FuzzCounts } from './fuzz-counts.ts';
import { Life } from './life.ts';
import { Random } from './random.ts';
import type { LifeOptions } from './world.ts';

/** Options of {@link fuzzDriver}. */
export interface FuzzOptions {
  /** The seed: the same seed reproduces the same run. */
  readonly seed: number;
  /** How many steps (default 2000). Each driver lives for some hundreds of them. */
  readonly steps?: number;
  /** Counts to which this run is added. */
  readonly counts?: FuzzCounts;
  /**
   * Whether listeners may throw {@link LISTENER_ERROR} (default false): the engine then sees unhandled rejections, which most test
   * runners count as a failure.
   */
  readonly throwing?: boolean;
  /**
   * The clock in milliseconds by which a step may take at most 20 s. Default `Date.now`; use the processor time of the process on a
   * busy machine.
   */
  readonly clock?: () => number;
}

/** The driver did something that it must not do. */
export class FuzzFinding extends Error {
  override readonly name = 'FuzzFinding';
  /** The seed of the life in which it was found. */
  readonly seed: number;

  constructor(seed: number, message: string, options: { readonly cause: unknown }) {
    super(message, options);
    this.seed = seed;
  }
}

const RING_RESET = CommonFeatures.set('RING_RESET').bits;
const WAKES = ['interrupts', 'interrupts', 'polling', 'interrupts inside of calls', 'no interrupts'] as const;

/** The options of a life, which follow from its seed. */
function lifeOf<D extends ContractDriver>(subject: Subject<D>, seed: number, throwing: boolean): LifeOptions {
  const random = new Random(seed);
  const ring = random.pick(ringVariants);
  const most = Math.max(1, ...(subject.requests ?? []).map(({ descriptors }) => descriptors));
  const smallest = 2 ** Math.ceil(Math.log2(most));
  return {
    seed,
    ring: { ...ring, features: random.oneIn(2) ? ring.features | RING_RESET : ring.features },
    wake: random.pick(WAKES),
    queueSize: smallest * random.pick([1, 1, 2, 4, 8]),
    lying: random.oneIn(2),
    troubled: !random.oneIn(4),
    reentrant: random.oneIn(2),
    throwing: throwing && random.oneIn(4),
    steps: 20 + random.below(random.pick([50, 200, 1000])),
  };
}

/**
 * Runs a driver for some steps.
 *
 * @returns counts of what was seen
 * @throws {@link FuzzFinding} with the seed that reproduces it: `fuzzDriver(subject, { seed, steps: 1 })`
 */
export async function fuzzDriver<D extends ContractDriver>(
  subject: Subject<D>,
  { seed, steps = 2000, counts = emptyFuzzCounts(), throwing = false, clock = Date.now }: FuzzOptions,
): Promise<FuzzCounts> {
  const end = counts.steps + steps;
  for (let next = seed >>> 0; counts.steps < end; next = (next + 1) >>> 0) {
    const options = lifeOf(subject, next, throwing);
    const life = new Life(subject, options, counts, clock);
    try {
      await life.run();
    } catch (error) {
      const { ring, ...rest } = options;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      const cause =
        error instanceof ContractBreach && error.cause !== undefined
          ? `\nbecause of ${describeError(error.cause)}`
          : '';
      throw new FuzzFinding(
        next,
        `${subject.name}, seed ${next}, step ${life.step} of ${JSON.stringify({ ring: ring.name, ...rest })}:\n${text}${cause}\n` +
          `before that: ${life.trace.join(', ')}`,
        { cause: error },
      );
    }
    counts.lives += 1;
  }
  return counts;
}
