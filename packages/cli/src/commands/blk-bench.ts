/** Measures a disk. */
import { VirtioBlk } from '@virtio/blk';
import { DeviceType, PAGE_SIZE } from '@virtio/core';
import { Disk } from '../disk.ts';
import { CliError, ExitStatus, usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { orAborted } from '../interrupt.ts';
import { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { formatSize } from '../quantities.ts';
import { openWith } from '../session.ts';
import type { BenchOptions } from './blk-options.ts';
import { describeTarget } from './blk-transfer.ts';

const SECTOR = 512;
const MOST_DEPTH = 1024;
const MOST_SAMPLES = 1_000_000;

/** `blk bench`. */
export async function bench(host: Host, device: string, options: BenchOptions): Promise<void> {
  const printer = new Printer(host, options);
  const { block, depth, seconds, pattern, write = false } = options;
  if (block < SECTOR || block % SECTOR !== 0) {
    throw usage(`--block is ${block}; give a multiple of 512 bytes`);
  }
  if (depth < 1 || depth > MOST_DEPTH) throw usage(`--depth is ${depth}; give 1 to ${MOST_DEPTH}`);
  using opened = await openWith(host, device, options, DeviceType.Block, VirtioBlk);
  const { driver } = opened;
  const disk = new Disk(driver, host.signal);
  const range = disk.range(options);
  const blocks = Math.floor(range.length / block);
  if (blocks < 1) {
    throw usage(`the part to measure has ${range.length} bytes, less than one block of ${block}`);
  }
  if (write) {
    if (driver.readOnly) throw new CliError(ExitStatus.REFUSED, `the disk at ${device} is read-only`);
    const target = await describeTarget(disk, device, host.signal);
    if (options.yes !== true) {
      throw new CliError(
        ExitStatus.REFUSED,
        `nothing was written: ${formatSize(range.length)} from byte ${range.start} on of ${target} would be overwritten`,
        'add --yes if that is what you want',
      );
    }
    printer.note(`overwriting ${formatSize(range.length)} from byte ${range.start} on of ${target}`);
  }

  printer.note(`${write ? 'writing' : 'reading'} for ${seconds} s`);
  const platform = driver.features.has('ACCESS_PLATFORM');
  const pages = Math.ceil(block / PAGE_SIZE);
  const region = driver.hal.dmaAlloc(pages * depth, 'both', platform);
  const latencies = new Float64Array(MOST_SAMPLES);
  let requests = 0;
  let position = 0;
  let over = false;
  const began = performance.now();
  const until = began + seconds * 1000;
  using bar = showProgress(host, printer.json, 'measuring', seconds, (value) => `${value.toFixed(1)} s`);
  const work = async (lane: number): Promise<void> => {
    const at = lane * pages * PAGE_SIZE;
    const buffer = region.bytes.subarray(at, at + block);
    if (write) for (let index = 0; index < block; index += 1) buffer[index] = (index * 31 + lane) & 0xff;
    for (let now = performance.now(); now < until && !over;) {
      const n = pattern === 'random' ? Math.floor(Math.random() * blocks) : position++ % blocks;
      const sector = (range.start + n * block) / SECTOR;
      await (write ? driver.write(sector, buffer) : driver.read(sector, buffer));
      const after = performance.now();
      latencies[requests % MOST_SAMPLES] = after - now;
      requests += 1;
      now = after;
      if (requests % 1024 === 0) bar.update(Math.min(seconds, (now - began) / 1000));
    }
  };
  try {
    const lanes = Array.from({ length: depth }, (_, lane) => work(lane));
    // Requests have no signal of their own, which would take part of the time that is measured.
    await orAborted(Promise.all(lanes), host.signal);
    if (write) await driver.flush({ signal: host.signal });
  } catch (error) {
    // The device has requests of other lanes, or the one that failed: it is reset before the memory is released.
    over = true;
    driver.transport.reset();
    throw error;
  } finally {
    driver.hal.dmaDealloc(region, platform);
  }
  const elapsed = (performance.now() - began) / 1000;
  const sorted = latencies.subarray(0, Math.min(requests, MOST_SAMPLES)).sort();
  const percentile = (part: number): number =>
    Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 1000);
  const result = {
    operation: write ? 'write' : 'read',
    pattern,
    block,
    depth,
    seconds: Number(elapsed.toFixed(3)),
    requests,
    iops: Math.round(requests / elapsed),
    bytesPerSecond: Math.round((requests * block) / elapsed),
    latencyMicroseconds: {
      p50: percentile(0.5),
      p90: percentile(0.9),
      p99: percentile(0.99),
      p999: percentile(0.999),
    },
  };
  printer.result(result);
  const { p50, p90, p99, p999 } = result.latencyMicroseconds;
  printer.line(
    `${pattern} ${result.operation}s of ${formatSize(block)}, ${depth} in flight, ${elapsed.toFixed(1)} s`,
  );
  printer.line(`  ${result.iops} requests per second, ${formatSize(result.bytesPerSecond)} per second`);
  printer.line(`  latency: 50 % within ${p50} µs, 90 % ${p90} µs, 99 % ${p99} µs, 99.9 % ${p999} µs`);
}
