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
        .argument('<device>', 'the address of the device')
        .option('-o, --output <file>', 'write the data to this file')
        .option('--hex', 'print a dump even if the output is not a terminal')
        .addOption(new Option('--raw', 'write the data as it is, even to a terminal').conflicts('hex')),
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
        .argument('<device>', 'the address of the device')
        .argument('[file]', 'the file to write; - is standard input', '-')
        .option('--yes', 'confirm that data on the disk is overwritten'),
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
        .argument('<device>', 'the address of the device')
        .argument('[file]', 'the file to compare with; - is standard input', '-'),
    ),
  ).action(async (device: string, file: string, options: RangeOptions) => {
    const { verify } = await import('./blk-transfer.ts');
    await verify(host, device, file, options);
  });

  addDeviceOptions(
    addRange(
      blk
        .command('bench')
        .description('measure a disk: requests and bytes per second, latencies')
        .argument('<device>', 'the address of the device')
        .option('--block <size>', 'the size of a request in bytes', parseSize, 4096)
        .option('--depth <n>', 'requests in flight', parseCount, 32)
        .option('--seconds <n>', 'for how long', parseSeconds, 5)
        .addOption(
          new Option('--pattern <how>', 'the order of the blocks')
            .choices(['random', 'sequential'])
            .default('random'),
        )
        .option('--write', 'write instead of reading, which destroys data on the disk; needs --yes')
        .option('--yes', 'confirm that data on the disk is overwritten'),
    ),
  ).action(async (device: string, options: BenchOptions) => {
    const { bench } = await import('./blk-bench.ts');
    await bench(host, device, options);
  });
}
