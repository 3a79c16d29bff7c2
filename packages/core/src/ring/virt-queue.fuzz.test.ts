import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { runEpisode } from '../../fuzz/episode.ts';
import { harmlessLies, lies } from '../../fuzz/lies.ts';
import { emptyCounts, type EpisodeCounts } from '../../fuzz/options.ts';
import { Feature, type FeatureName } from '../device/features.ts';

/** Random episodes; fast-check prints the seed and the smallest failing options, and `runEpisode` names the step. */
function fuzz(packed: boolean, lying: boolean, steps: number, runs: number): EpisodeCounts {
  const counts = emptyCounts();
  const modern: FeatureName[] = ['INDIRECT_DESC', 'EVENT_IDX', 'IN_ORDER', 'NOTIFICATION_DATA', 'RING_RESET'];
  const options = fc.record({
    seed: fc.nat(),
    steps: fc.constant(steps),
    features: fc.subarray(modern),
    size: packed ? fc.integer({ min: 1, max: 40 }) : fc.constantFrom(1, 2, 4, 8, 16, 32),
    tableLength: fc.integer({ min: 0, max: 9 }),
    legacy: packed ? fc.constant(false) : fc.integer({ min: 0, max: 7 }).map((n) => n === 7),
    lieOneIn: lying ? fc.constantFrom(20, 200, 2000) : fc.constant(0),
    resetOneIn: fc.constantFrom(0, 1000, 100),
  });
  fc.assert(
    fc.property(options, ({ features, legacy, ...rest }) => {
      // The legacy interface has 32 feature bits [4.2.4].
      const possible = features.filter((name) => !legacy || Feature[name] < 32);
      runEpisode({ ...rest, legacy, features: packed ? ['RING_PACKED', ...possible] : possible }, counts);
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
    expect(counts.poppedMeanwhile).toBeGreaterThan(1000);
    expect(counts.full).toBeGreaterThan(0);
    expect(counts.rewound).toBeGreaterThan(0);
    expect(counts.resets).toBeGreaterThan(0);
    expect(counts.notified).toBeGreaterThan(0);
    expect(counts.interrupted).toBeGreaterThan(0);
    expect(counts.lies).toEqual({});
  });

  it('catches a device that lies, or goes on as if it had not', { timeout: 60_000 }, () => {
    const counts = fuzz(packed, true, 20_000, 60);
    expect(counts.popped).toBeGreaterThan(10_000);
    for (const name of [...Object.keys(harmlessLies), ...Object.keys(lies)]) {
      expect(counts.lies[name], name).toBeGreaterThan(50);
    }
    expect(Object.keys(counts.caught).sort()).toEqual(Object.keys(lies).sort());
  });

  it('passes many wraps of the 16-bit index', { timeout: 60_000 }, () => {
    const features: FeatureName[] = packed ? ['RING_PACKED', 'EVENT_IDX'] : ['EVENT_IDX'];
    const options = {
      seed: 1,
      steps: 1_500_000,
      features,
      size: 16,
      tableLength: 0,
      legacy: false,
      lieOneIn: 0,
      resetOneIn: 0,
    };
    expect(runEpisode(options).popped).toBeGreaterThan(2 * 65536);
  });
});
