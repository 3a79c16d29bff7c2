/** Reads, writes and compares disks. */
import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { Disk } from '../disk.ts';
import { CliError, ExitStatus, usage } from '../errors.ts';
import { contents } from '../files.ts';
import { HexDump } from '../hexdump.ts';
import type { Host } from '../host.ts';
import { interruptible } from '../interrupt.ts';
import { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { formatSize } from '../quantities.ts';
import { openWith } from '../session.ts';
import type { RangeOptions, ReadOptions, WriteOptions } from './blk-options.ts';

/** The default length of a dump on a terminal, in bytes. */
const DUMP_BYTES = 512;

/** `blk read`. */
export async function read(host: Host, device: string, options: ReadOptions): Promise<void> {
  const printer = new Printer(host, options);
  const { output, hex = false, raw = false } = options;
  if (printer.json && output === undefined) {
    throw usage('the data and the JSON cannot both go to standard output', 'add --output <file>');
  }
  const dump = output === undefined && !raw && (hex || host.stdout.isTTY === true);
  using opened = await openWith(host, device, options, DeviceType.Block, VirtioBlk);
  const disk = new Disk(opened.driver, host.signal);
  const whole = options.count === undefined && options.length === undefined;
  const range = disk.range(options, dump && whole ? Math.min(DUMP_BYTES, disk.size) : undefined);
  using bar = showProgress(host, printer.json || dump, 'reading', range.length);
  const file = output === undefined ? undefined : await open(output, 'w');
  const hash = createHash('sha256');
  let done = 0;
  try {
    const lines = new HexDump();
    for await (const piece of disk.read(range)) {
      if (file !== undefined) {
        await file.writeFile(piece);
      } else if (dump) {
        for (const line of lines.lines(piece, range.start + done)) printer.line(line);
        await printer.settle();
      } else {
        // The buffer is used again, and a stream may keep the one that it gets.
        await printer.bytes(piece.slice());
      }
      if (file !== undefined) hash.update(piece);
      done += piece.length;
      bar.update(done);
    }
  } finally {
    await file?.close();
  }
  if (file !== undefined) {
    const sha256 = hash.digest('hex');
    printer.result({ bytes: done, offset: range.start, output, sha256 });
    printer.note(
      `${formatSize(done)} from byte ${range.start} on copied to ${output ?? ''} (SHA-256 ${sha256})`,
    );
  }
}

/** A file or standard input, with its length if that is known. */
async function openSource(
  { stdin, signal }: Host,
  file: string,
): Promise<{ readonly length: number | undefined; readonly bytes: AsyncIterable<Uint8Array> }> {
  if (file === '-') {
    if (stdin.isTTY === true) {
      throw usage('standard input is a terminal', 'give a file, or pipe data to the command');
    }
    return { length: undefined, bytes: interruptible(stdin, signal) };
  }
  const info = await stat(file);
  if (info.isDirectory()) throw usage(`${file} is a directory`);
  return {
    length: info.isFile() ? info.size : undefined,
    bytes: interruptible(contents(file), signal),
  };
}

/** `blk write`. */
export async function write(host: Host, device: string, file: string, options: WriteOptions): Promise<void> {
  const printer = new Printer(host, options);
  const source = await openSource(host, file);
  using opened = await openWith(host, device, options, DeviceType.Block, VirtioBlk);
  const { driver } = opened;
  const disk = new Disk(driver, host.signal);
  const range = disk.range(options, source.length);
  const lengths = [source.length, options.length, options.count].some((length) => length !== undefined);
  const what = lengths ? formatSize(range.length) : `up to ${formatSize(range.length)}`;
  if (driver.readOnly) throw new CliError(ExitStatus.REFUSED, `the disk at ${device} is read-only`);
  if (source.length !== undefined && source.length > range.length) {
    throw usage(`${file} has ${source.length} bytes, more than the ${range.length} that were asked for`);
  }
  const target = await describeTarget(disk, device, host.signal);
  if (options.yes !== true) {
    throw new CliError(
      ExitStatus.REFUSED,
      `nothing was written: ${what} from byte ${range.start} on of ${target} would be overwritten`,
      'add --yes if that is what you want',
    );
  }
  printer.note(`overwriting ${what} from byte ${range.start} on of ${target}`);
  using bar = showProgress(host, printer.json, 'writing', source.length ?? range.length);
  const bytes = await disk.write(range.start, range.length, source.bytes, (done) => {
    bar.update(done);
  });
  printer.result({ bytes, offset: range.start });
  printer.note(`${formatSize(bytes)} written and flushed`);
}

/** Describes the disk in a line, for the warning before it is overwritten. */
export async function describeTarget(disk: Disk, device: string, signal: AbortSignal): Promise<string> {
  const serial = await disk.blk.deviceId({ signal }).catch(() => '');
  const name = serial === '' ? device : `${device} "${serial}"`;
  return `${name} (${formatSize(disk.size)}, ${await disk.describeContents()})`;
}

/** `blk verify`. */
export async function verify(host: Host, device: string, file: string, options: RangeOptions): Promise<void> {
  const printer = new Printer(host, options);
  const source = await openSource(host, file);
  using opened = await openWith(host, device, options, DeviceType.Block, VirtioBlk);
  const disk = new Disk(opened.driver, host.signal);
  const range = disk.range(options, source.length);
  using bar = showProgress(host, printer.json, 'comparing', range.length);
  const hash = createHash('sha256');
  const pieces = disk.read(range);
  let piece: Uint8Array = new Uint8Array(0);
  let done = 0;
  const explicit = options.length !== undefined || options.count !== undefined;
  const fail = (position: number, disk: number | undefined, wanted: number | undefined): never => {
    printer.result({ equal: false, firstDifference: position, disk, wanted });
    const show = (byte: number | undefined): string =>
      byte === undefined ? 'nothing' : `0x${byte.toString(16).padStart(2, '0')}`;
    throw new CliError(
      ExitStatus.FAILED,
      `they differ at byte ${position}: the disk has ${show(disk)}, ${file === '-' ? 'the input' : file} has ${show(wanted)}`,
    );
  };
  compare: for await (const given of source.bytes) {
    for (let at = 0; at < given.length;) {
      if (piece.length === 0) {
        const next = await pieces.next();
        if (next.done === true) {
          if (explicit) break compare;
          fail(range.start + done, undefined, given[at]);
        } else {
          piece = next.value;
        }
      }
      const length = Math.min(piece.length, given.length - at);
      const mine = piece.subarray(0, length);
      const theirs = given.subarray(at, at + length);
      if (Buffer.compare(mine, theirs) !== 0) {
        const place = mine.findIndex((byte, index) => byte !== theirs[index]);
        fail(range.start + done + place, mine[place], theirs[place]);
      }
      hash.update(mine);
      piece = piece.subarray(length);
      at += length;
      done += length;
      bar.update(done);
    }
  }
  if (explicit && done < range.length) fail(range.start + done, piece[0], undefined);
  const sha256 = hash.digest('hex');
  printer.result({ equal: true, bytes: done, offset: range.start, sha256 });
  printer.line(`${formatSize(done)} from byte ${range.start} on are equal (SHA-256 ${sha256})`);
}
