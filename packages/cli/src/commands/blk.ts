/** `virtio blk`: reads, writes, compares and measures disks. */
import { type Command, Option } from 'commander';
import type { Host } from '../host.ts';
import { parseCount, parseSeconds, parseSize } from '../quantities.ts';
import { addDeviceOptions } from '../session.ts';
import type { BenchOptions, RangeOptions, ReadOptions, WriteOptions } from './blk-options.ts';

function addRange(command: Command): Command {
  return command
    .addOption(
      new Option('--sector <n>', 'where to begin, in sectors of 512 bytes')
        .argParser(parseCount)
        .conflicts('offset'),
    )
    .option('--offset <size>', 'where to begin, in bytes: 1M', parseSize)
    .addOption(
      new Option('--count <n>', 'how many sectors of 512 bytes').argParser(parseCount).conflicts('length'),
    )
    .option('--length <size>', 'how many bytes: 64K', parseSize);
}

/** Adds the commands. */
export function addBlk(program: Command, host: Host): void {
  const blk = program.command('blk').description('disks: read, write, compare, measure');

  addDeviceOptions(
    addRange(
      blk
        .command('read')
        .description('read a part of a disk: to a file, a pipe, or as a dump on a terminal')
        .argument('<device>', 'its address')
        .option('-o, --output <file>', 'write the bytes here')
        .option('--hex', 'show a dump even where this is not a terminal')
        .addOption(new Option('--raw', 'write bytes even to a terminal').conflicts('hex')),
    ),
  ).action(async (device: string, options: ReadOptions) => {
    const { read } = await import('./blk-transfer.ts');
    await read(host, device, options);
  });

  addDeviceOptions(
    addRange(
      blk
        .command('write')
        .description('write a file, or standard input, to a disk; needs --yes')
        .argument('<device>', 'its address')
        .argument('[file]', 'what to write (default: standard input)', '-')
        .option('--yes', 'overwrite what is there'),
    ),
  ).action(async (device: string, file: string, options: WriteOptions) => {
    const { write } = await import('./blk-transfer.ts');
    await write(host, device, file, options);
  });

  addDeviceOptions(
    addRange(
      blk
        .command('verify')
        .description('compare a disk with a file, or standard input; fails at the first byte that differs')
        .argument('<device>', 'its address')
        .argument('[file]', 'what to compare it with (default: standard input)', '-'),
    ),
  ).action(async (device: string, file: string, options: RangeOptions) => {
    const { verify } = await import('./blk-transfer.ts');
    await verify(host, device, file, options);
  });

  addDeviceOptions(
    addRange(
      blk
        .command('bench')
        .description('measure a disk: requests a second, bytes a second, latencies')
        .argument('<device>', 'its address')
        .option('--block <size>', 'bytes of a request', parseSize, 4096)
        .option('--depth <n>', 'requests in flight', parseCount, 32)
        .option('--seconds <n>', 'for how long', parseSeconds, 5)
        .addOption(
          new Option('--pattern <how>', 'where requests go')
            .choices(['random', 'sequential'])
            .default('random'),
        )
        .option('--write', 'write instead of reading: what is there is lost; needs --yes')
        .option('--yes', 'overwrite what is there'),
    ),
  ).action(async (device: string, options: BenchOptions) => {
    const { bench } = await import('./blk-bench.ts');
    await bench(host, device, options);
  });
}
