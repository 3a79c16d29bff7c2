/** `virtio rng`: prints random bytes from the host. */
import { DeviceType } from '@virtio/core';
import { type Command, Option } from 'commander';
import { usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { parseSize } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';

interface RngOptions extends DeviceOptions {
  readonly length: number;
  readonly format?: 'hex' | 'base64' | 'raw';
}

const CHUNK = 64 * 1024;
/** The largest number of bytes to print as JSON. */
const MOST_JSON = 1 << 20;

/** Adds the command. */
export function addRng(program: Command, host: Host): void {
  addDeviceOptions(
    program
      .command('rng')
      .description('print random bytes from an entropy device')
      .argument('<device>', 'the address of the device')
      .option('-n, --length <size>', 'how many bytes', parseSize, 32)
      .addOption(
        new Option(
          '--format <how>',
          'the format of the output (default: hex on a terminal, else raw)',
        ).choices(['hex', 'base64', 'raw']),
      ),
  ).action(async (device: string, options: RngOptions) => {
    const printer = new Printer(host, options);
    const { length } = options;
    if (printer.json && length > MOST_JSON) {
      throw usage(`with --json, --length can be at most ${MOST_JSON} bytes`);
    }
    const format = options.format ?? (host.stdout.isTTY === true ? 'hex' : 'raw');
    const { VirtioRng } = await import('@virtio/rng');
    using opened = await openWith(host, device, options, DeviceType.EntropySource, VirtioRng);
    using bar = showProgress(host, printer.json || format !== 'raw', 'gathering', length);
    const all: Buffer[] = [];
    for (let done = 0; done < length;) {
      const wanted = new Uint8Array(Math.min(length - done, CHUNK));
      const bytes = await opened.driver.fill(wanted, { signal: host.signal });
      done += bytes.length;
      if (format === 'raw' && !printer.json) await printer.bytes(bytes);
      else all.push(Buffer.from(bytes));
      bar.update(done);
    }
    const bytes = Buffer.concat(all);
    printer.result({ length, hex: bytes.toString('hex') });
    if (format !== 'raw') printer.line(bytes.toString(format));
  });
}
