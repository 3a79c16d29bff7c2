/**
 * `npm run fuzz -- --drivers`: fuzzes whole drivers with a slow and lying device, each driver that has a `test/contract-subject.ts`
 * for a while. A finding prints the command that reproduces it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import {
  type ContractDriver,
  emptyFuzzCounts,
  type FuzzCounts,
  fuzzDriver,
  FuzzFinding,
  LISTENER_ERROR,
  type Subject,
} from '@virtio/testing';

const packages = path.resolve(import.meta.dirname, '../..');
/** The processor time after which a life counts as a hang, in milliseconds. */
const HANGS_CPU_MS = 60_000;
/** The time after which a life counts as a hang, even if it is idle. */
const HANGS_MS = 1_800_000;
/** Steps between two checks of the clock. */
const SOME = 2000;

interface Options {
  readonly driver: string | undefined;
  readonly minutes: number;
  readonly seed: number | undefined;
  readonly steps: number;
}

function readOptions(): Options | undefined {
  try {
    const { values } = parseArgs({
      options: {
        drivers: { type: 'boolean' },
        driver: { type: 'string' },
        minutes: { type: 'string', default: '1' },
        seed: { type: 'string' },
        steps: { type: 'string', default: 'Infinity' },
      },
    });
    const { driver, seed } = values;
    const [minutes, steps] = [Number(values.minutes), Number(values.steps)];
    if (!(minutes > 0) || !(steps > 0) || (seed !== undefined && !/^\d+$/.test(seed))) return undefined;
    return { driver, minutes, seed: seed === undefined ? undefined : Number(seed), steps };
  } catch {
    return undefined;
  }
}

async function findSubjects(name: string | undefined): Promise<Subject<ContractDriver>[]> {
  const files = [
    ...fs.globSync('*/test/contract-subject.ts', { cwd: packages }).sort(),
    'testing/src/contract/sample-driver.fixture.ts',
  ];
  const subjects: Subject<ContractDriver>[] = [];
  // The name of a package, or of one of its drivers.
  const own = files.filter((file) => file.startsWith(name === 'sample' ? 'testing/' : `${name}/`));
  for (const file of own.length > 0 ? own : files) {
    const module = (await import(pathToFileURL(path.join(packages, file)).href)) as Record<string, unknown>;
    for (const [key, value] of Object.entries(module)) {
      if (key.endsWith('Subject')) subjects.push(value as Subject<ContractDriver>);
    }
  }
  return name === undefined || own.length > 0
    ? subjects
    : subjects.filter((subject) => subject.name === name);
}

/** Ends the process if the main thread makes no progress for too long, and prints the command that reproduces it. */
function watch(): { beat(driver: string, seed: number): void; stop(): void } {
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(
    `const { workerData: { shared, limits } } = require('node:worker_threads');
     const fs = require('node:fs');
     let last = -1, since = 0, used = 0;
     setInterval(() => {
       const now = Atomics.load(shared, 0);
       const { user, system } = process.cpuUsage();
       const cpu = (user + system) / 1000;
       if (now !== last) {
         last = now;
         since = performance.now();
         used = cpu;
       } else if (cpu - used > limits.cpu || performance.now() - since > limits.ms) {
         fs.writeSync(2, '\\nseed ' + (Atomics.load(shared, 1) >>> 0) + ' hangs: replay it with --seed and --steps 1\\n');
         process.kill(process.pid, 'SIGKILL');
       }
     }, 1000);`,
    { eval: true, workerData: { shared, limits: { cpu: HANGS_CPU_MS, ms: HANGS_MS } } },
  );
  worker.unref();
  return {
    beat: (_driver, seed) => {
      shared[0] = (shared[0] ?? 0) + 1;
      shared[1] = seed;
    },
    stop: () => void worker.terminate(),
  };
}

/** The processor time of this process in milliseconds: a busy machine does not make a step longer. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function summary(counts: FuzzCounts): string {
  const { steps, lives, inside, moments, accesses, checks, ends } = counts;
  const number = (value: number): string => value.toLocaleString('en');
  return (
    `${number(steps)} steps clean in ${number(lives)} lives; ${number(inside)} calls from inside, ${number(moments)} acts of the ` +
    `device in the middle of the driver, ${number(accesses)} accesses checked, ${number(checks)} checks for losses\n  ` +
    Object.entries(ends)
      .sort(([, a], [, b]) => b - a)
      .map(([name, count]) => `${name} ${number(count)}`)
      .join(', ')
  );
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options === undefined) {
    console.error('Unknown or invalid arguments; see npm run fuzz -- --help.');
    process.exitCode = 2;
    return;
  }
  process.on('unhandledRejection', (error) => {
    if (error instanceof Error && error.message === LISTENER_ERROR) return;
    console.error('\nAn unhandled rejection:', error);
    process.exitCode = 1;
  });
  const subjects = await findSubjects(options.driver);
  if (subjects.length === 0) {
    console.error(`There is no driver ${options.driver ?? ''} with a test/contract-subject.ts.`);
    process.exitCode = 2;
    return;
  }
  const watchdog = watch();
  let total = 0;
  for (const subject of subjects) {
    const counts = emptyFuzzCounts();
    const deadline = Date.now() + (options.minutes * 60_000) / subjects.length;
    let seed = options.seed ?? Date.now() >>> 0;
    let reported = Date.now();
    while (counts.steps < options.steps && Date.now() < deadline) {
      watchdog.beat(subject.name, seed);
      const { lives } = counts;
      try {
        await fuzzDriver(subject, {
          seed,
          steps: Math.min(SOME, options.steps),
          counts,
          throwing: true,
          clock: processorMs,
        });
      } catch (error) {
        if (!(error instanceof FuzzFinding)) throw error;
        console.error(`\n${error.message}`);
        console.error(`Replay: npm run fuzz -- --driver '${subject.name}' --seed ${error.seed} --steps 1`);
        process.exitCode = 1;
        break;
      }
      seed = (seed + counts.lives - lives) >>> 0;
      // Unhandled rejections are reported between two turns.
      await new Promise((resolve) => setImmediate(resolve));
      if (Date.now() - reported > 30_000) {
        reported = Date.now();
        console.log(`${subject.name}: ${counts.steps.toLocaleString('en')} steps, next seed ${seed}`);
      }
    }
    total += counts.steps;
    console.log(`${subject.name}: ${summary(counts)}`);
  }
  watchdog.stop();
  console.log(
    `${total.toLocaleString('en')} steps in all${process.exitCode === 1 ? ', with findings' : ', without a finding'}`,
  );
}

await main();
