/** What an episode of the fuzzer is made of, and what it saw. */
import type { FeatureName } from '@virtio/core';

/** What an episode is made of. */
export interface EpisodeOptions {
  readonly seed: number;
  readonly steps: number;
  readonly features: readonly FeatureName[];
  readonly size: number;
  readonly tableLength: number;
  /** Whether the device has the legacy interface; `features` must then be such that it has. */
  readonly legacy: boolean;
  /** The device lies once in so many steps; 0 for an honest device. */
  readonly lieOneIn: number;
  /** The queue or the device is reset once in so many steps; 0 for never, so that indices wrap. After a lie was caught it is reset in any case. */
  readonly resetOneIn: number;
}

/** What an episode saw, for people: a fuzzer that never meets a full ring or a lie shows nothing. */
export interface EpisodeCounts {
  steps: number;
  chains: number;
  full: number;
  rewound: number;
  popped: number;
  /** Chains that were popped while another one was being built. */
  poppedMeanwhile: number;
  /** How often each lie was told. */
  readonly lies: Record<string, number>;
  /** How often the first lie since a reset was this one, and the queue found out. */
  readonly caught: Record<string, number>;
  resets: number;
  notified: number;
  interrupted: number;
}

/** Counts of nothing yet. */
export function emptyCounts(): EpisodeCounts {
  return {
    steps: 0,
    chains: 0,
    full: 0,
    rewound: 0,
    popped: 0,
    poppedMeanwhile: 0,
    lies: {},
    caught: {},
    resets: 0,
    notified: 0,
    interrupted: 0,
  };
}

/** Counts one more. */
export function increment(counts: Record<string, number>, name: string): void {
  counts[name] = (counts[name] ?? 0) + 1;
}

/** Ends the episode unless `condition` holds. */
export function expect(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}
