/**
 * Measures what one operation of a hot path costs: nanoseconds and bytes of the JavaScript heap.
 *
 * An operation of 100 ns is far below what a clock call costs, so each sample is a loop of many; the libraries for
 * benchmarks time single calls and cannot see the heap of one. Nothing is asserted: machines are noisy, so compare
 * within one run.
 */
import v8 from 'node:v8';

const SAMPLES = 15;
const WARM_UP_MS = 300;

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

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}

/**
 * Runs `loop`, which does `operations` operations, until it is compiled, then samples it.
 *
 * @param name what a person reads
 * @param operations how many operations a call of `loop` does: enough to take about a millisecond or more
 * @param loop may be asynchronous
 */
export async function measure(name: string, operations: number, loop: () => unknown): Promise<Measurement> {
  const warm = performance.now() + WARM_UP_MS;
  do await loop();
  while (performance.now() < warm);
  const times: number[] = [];
  const bytes: number[] = [];
  for (let sample = 0; sample < SAMPLES; sample += 1) {
    globalThis.gc?.();
    const heap = heapUsed();
    const start = performance.now();
    const result = loop();
    // Awaiting what is no promise would be measured, too.
    if (result instanceof Promise) await result;
    const end = performance.now();
    bytes.push((heapUsed() - heap) / operations);
    times.push(((end - start) * 1e6) / operations);
  }
  return {
    name,
    median: median(times),
    min: Math.min(...times),
    max: Math.max(...times),
    bytes: median(bytes),
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
