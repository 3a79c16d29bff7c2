import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { emptyCounts, type EpisodeCounts, runEpisode } from '../fuzz/episode.ts';
import type { FeatureName } from './features.ts';

/** Random episodes; fast-check prints the seed and the smallest failing options, and `runEpisode` names the step. */
function fuzz(packed: boolean, lies: boolean, steps: number, runs: number): EpisodeCounts {
  const counts = emptyCounts();
  const options = fc.record({
    seed: fc.nat(),
    steps: fc.constant(steps),
    features: fc.subarray<FeatureName>(['INDIRECT_DESC', 'EVENT_IDX', 'IN_ORDER', 'NOTIFICATION_DATA']),
    size: packed ? fc.integer({ min: 1, max: 40 }) : fc.constantFrom(1, 2, 4, 8, 16, 32),
    tableLength: fc.integer({ min: 0, max: 9 }),
    lieOneIn: lies ? fc.constantFrom(20, 200, 2000) : fc.constant(0),
    resetOneIn: fc.constantFrom(0, 1000),
  });
  fc.assert(
    fc.property(options, ({ features, ...rest }) => {
      runEpisode({ ...rest, features: packed ? ['RING_PACKED', ...features] : features }, counts);
    }),
    { numRuns: runs },
  );
  return counts;
}

describe.each([
  { format: 'split', packed: false },
  { format: 'packed', packed: true },
])('a $format queue under random steps', ({ packed }) => {
  it('does what a model of a correct queue does while the device is honest', { timeout: 60_000 }, () => {
    const counts = fuzz(packed, false, 20_000, 30);
    expect(counts.popped).toBeGreaterThan(10_000);
    expect(counts.full).toBeGreaterThan(0);
    expect(counts.rewound).toBeGreaterThan(0);
    expect(counts.notified).toBeGreaterThan(0);
    expect(counts.interrupted).toBeGreaterThan(0);
  });

  it('catches a device that lies, or goes on as if it had not', { timeout: 60_000 }, () => {
    const counts = fuzz(packed, true, 20_000, 60);
    expect(counts.lies).toBeGreaterThan(1000);
    expect(counts.caught).toBeGreaterThan(100);
    expect(counts.popped).toBeGreaterThan(10_000);
  });

  it('passes many wraps of the 16-bit index', { timeout: 60_000 }, () => {
    const features: FeatureName[] = packed ? ['RING_PACKED', 'EVENT_IDX'] : ['EVENT_IDX'];
    const options = {
      seed: 1,
      steps: 1_500_000,
      features,
      size: 16,
      tableLength: 0,
      lieOneIn: 0,
      resetOneIn: 0,
    };
    expect(runEpisode(options).popped).toBeGreaterThan(2 * 65536);
  });
});
