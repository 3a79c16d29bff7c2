/**
 * `npm run fuzz`: runs random episodes against both queue formats for as long as asked, honest devices and lying ones. Each
 * episode is named by its seed; a finding prints the command that replays it.
 */
import { parseArgs } from 'node:util';
import type { FeatureName } from '@virtio/core';
import { Random } from '@virtio/testing';
import { Finding, runEpisode } from './episode.ts';
import { emptyCounts, type EpisodeOptions } from './options.ts';

/** Steps of one episode: enough for several laps of the 16-bit index in a small queue. */
const STEPS = 1_000_000;

/** An episode's options follow from its seed alone, but for the format and the number of steps. */
function episode(seed: number, packed: boolean, steps: number): EpisodeOptions {
  const random = new Random(seed);
  const legacy = !packed && random.oneIn(8);
  const features: FeatureName[] = packed ? ['RING_PACKED'] : [];
  for (const name of ['INDIRECT_DESC', 'EVENT_IDX'] as const) if (random.oneIn(2)) features.push(name);
  for (const name of ['IN_ORDER', 'NOTIFICATION_DATA', 'RING_RESET'] as const) {
    if (!legacy && random.oneIn(2)) features.push(name);
  }
  const most = random.pick([5, 5, 5, 5, 9, 9, 15]);
  return {
    seed,
    steps,
    features,
    size: packed ? 1 + random.below(2 ** most) : 2 ** random.below(most + 1),
    tableLength: random.below(10),
    legacy,
    lieOneIn: random.pick([0, 0, 5000, 500, 50]),
    resetOneIn: random.pick([0, 0, 1000, 100]),
  };
}

/** What the command line asks for, or `undefined` if it makes no sense. */
function readOptions():
  { minutes: number; steps: number; seed?: number; format?: 'split' | 'packed' } | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '1' },
        seed: { type: 'string' },
        format: { type: 'string' },
        steps: { type: 'string', default: String(STEPS) },
      },
    });
    const { format, seed } = values;
    const minutes = Number(values.minutes);
    const steps = Number(values.steps);
    if (!(minutes > 0) || !Number.isSafeInteger(steps) || steps <= 0) return undefined;
    if (seed !== undefined && !/^\d+$/.test(seed)) return undefined;
    if (format !== undefined && format !== 'split' && format !== 'packed') return undefined;
    return {
      ...{ minutes, steps },
      ...(seed === undefined ? {} : { seed: Number(seed) }),
      ...(format === undefined ? {} : { format }),
    };
  } catch {
    return undefined;
  }
}

function main(): void {
  const options = readOptions();
  if (options === undefined) {
    console.error('These arguments are wrong; npm run fuzz -- --help lists them.');
    process.exitCode = 2;
    return;
  }
  const { minutes, steps, format, seed: replay } = options;
  const formats = format === undefined ? ['split', 'packed'] : [format];
  let seed = replay ?? Date.now() >>> 0;
  for (const name of formats) {
    const deadline = Date.now() + (minutes * 60_000) / formats.length;
    const counts = emptyCounts();
    const first = seed;
    let episodes = 0;
    let reported = Date.now();
    do {
      const options = episode(seed, name === 'packed', steps);
      try {
        runEpisode(options, counts);
      } catch (error) {
        if (!(error instanceof Finding)) throw error;
        console.error(`\n${name}: seed ${seed} found something.\n${error.message}`);
        console.error(`Replay: npm run fuzz -- --format ${name} --seed ${seed} --steps ${steps}`);
        process.exitCode = 1;
        return;
      }
      episodes += 1;
      if (Date.now() - reported > 10_000) {
        reported = Date.now();
        console.log(
          `${name}: ${episodes} episodes, ${counts.steps.toLocaleString('en')} steps, last seed ${seed}`,
        );
      }
      seed = (seed + 1) >>> 0;
    } while (replay === undefined && Date.now() < deadline);
    console.log(
      `${name}: ${episodes} episodes from seed ${first} on without a finding. ${JSON.stringify(counts, undefined, 1)}`,
    );
  }
}

main();
