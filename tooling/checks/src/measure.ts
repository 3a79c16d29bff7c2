/**
 * Measures what one operation of a hot path costs: nanoseconds and bytes of the JavaScript heap.
 *
 * An operation of 100 ns is far below what a clock call costs, so each sample is a loop of many; the libraries for
 * benchmarks time single calls and cannot see the heap of one. What is timed is the processor time of this thread, which
 * others on the machine take less part in than in the time of day. Nothing is asserted: machines are noisy all the same, so
 * compare within one run.
 */
import v8 from 'node:v8';

const SAMPLES = 11;
const WARM_UP_US = 100_000;
const SAMPLE_US = 30_000;

/**
 * One row of a table: what a person reads, how many operations a call of the loop does (so many that they take a millisecond or
 * so), and the loop, which may be asynchronous.
 */
export type Row = readonly [name: string, operations: number, loop: () => unknown];

/** What {@link measure} found. */
export interface Measurement {
  readonly name: string;
  /** Nanoseconds an operation, of the median sample. */
  readonly median: number;
  /** The same of the fastest and the slowest sample. */
  readonly min: number;
  readonly max: number;
  /** Bytes of the JavaScript heap an operation, of the median sample. */
  readonly bytes: number;
}

function heapUsed(): number {
  return v8.getHeapStatistics().used_heap_size;
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}

/** Microseconds of processor time that this thread has taken. */
function cpu(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

/** Measures rows twice and keeps the second time, as in the first the code is compiled anew whenever a row takes another way. */
export async function measureAll(rows: readonly Row[]): Promise<Measurement[]> {
  const found: Measurement[] = [];
  for (const row of rows) await measure(row);
  for (const row of rows) found.push(await measure(row));
  return found;
}

/** One sample: nanoseconds and bytes of the heap an operation. */
export interface Sample {
  readonly ns: number;
  readonly bytes: number;
}

/** Runs `loop` until it is compiled. What is returned takes a sample, long enough for a clock that moves in steps of a millisecond. */
export async function sampler([, operations, loop]: Row): Promise<() => Promise<Sample>> {
  const warm = cpu() + WARM_UP_US;
  let repeats = 0;
  do {
    await loop();
    repeats += 1;
  } while (cpu() < warm);
  repeats = Math.ceil((repeats * SAMPLE_US) / WARM_UP_US);
  return async () => {
    // One call for the heap, as a collection in between would hide what was allocated; then enough calls for the clock.
    globalThis.gc?.();
    const heap = heapUsed();
    const first = loop();
    // Awaiting what is no promise would be measured, too.
    if (first instanceof Promise) await first;
    const bytes = (heapUsed() - heap) / operations;
    const start = cpu();
    for (let n = 0; n < repeats; n += 1) {
      const result = loop();
      if (result instanceof Promise) await result;
    }
    return { bytes, ns: ((cpu() - start) * 1000) / operations / repeats };
  };
}

async function measure(row: Row): Promise<Measurement> {
  const sample = await sampler(row);
  const samples: Sample[] = [];
  while (samples.length < SAMPLES) samples.push(await sample());
  const times = samples.map(({ ns }) => ns);
  return {
    name: row[0],
    median: median(times),
    min: Math.min(...times),
    max: Math.max(...times),
    bytes: median(samples.map(({ bytes }) => bytes)),
  };
}

/** Prints measurements as a table. */
export function printMeasurements(title: string, rows: readonly Measurement[]): void {
  const width = Math.max(...rows.map(({ name }) => name.length), title.length);
  const number = (value: number, digits: number) => value.toFixed(digits).padStart(10);
  console.log(
    `\n${title.padEnd(width)}  ${'ns'.padStart(10)}${'fastest'.padStart(10)}${'slowest'.padStart(10)}${'heap bytes'.padStart(12)}`,
  );
  for (const row of rows) {
    console.log(
      `${row.name.padEnd(width)}  ${number(row.median, 1)}${number(row.min, 1)}${number(row.max, 1)}${number(Math.max(0, row.bytes), 1).padStart(12)}`,
    );
  }
}
