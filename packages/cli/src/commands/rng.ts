/** `virtio rng`: prints random bytes from the host. */
import { DeviceType } from '@virtio/core';
import { type Command, Option } from 'commander';
import { parseAddress } from '../address.ts';
import { CliError, ExitStatus, usage } from '../errors.ts';
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
/**
 * When a back end that has given no byte yet is remarked upon, and when it is given up: a rate limit of vhost-device-rng makes it wait for
 * 66 seconds at most.
 */
const REMARK_MS = 5_000;
const LONGEST_MS = 70_000;
const WRONG_TYPE =
  'vhost-user does not give the type of a device: check that the back end at this socket is an entropy device';
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
    const typeless = parseAddress(device).kind === 'vhost-user';
    const { VirtioRng } = await import('@virtio/rng');
    using opened = await openWith(host, device, options, DeviceType.EntropySource, VirtioRng);
    using bar = showProgress(host, printer.json || format !== 'raw', 'gathering', length);
    const all: Buffer[] = [];
    for (let done = 0; done < length;) {
      const wanted = new Uint8Array(Math.min(length - done, CHUNK));
      const ask = (signal: AbortSignal): Promise<number> => opened.driver.requestEntropy(wanted, { signal });
      const count = await (done === 0 && typeless ? beginning(host, printer, ask) : ask(host.signal));
      const bytes = wanted.subarray(0, count);
      done += count;
      if (format === 'raw' && !printer.json) await printer.bytes(bytes);
      else all.push(Buffer.from(bytes));
      bar.update(done);
    }
    const bytes = Buffer.concat(all);
    printer.result({ length, hex: bytes.toString('hex') });
    if (format !== 'raw') printer.line(bytes.toString(format));
  });
}

/** The first request to a back end, which never answers it if it serves another type of device. */
async function beginning(
  host: Host,
  printer: Printer,
  ask: (signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const limit = new AbortController();
  const remark = setTimeout(() => {
    printer.note(`virtio: no random bytes yet\nhint: ${WRONG_TYPE}`);
  }, REMARK_MS);
  const end = setTimeout(() => {
    limit.abort();
  }, LONGEST_MS);
  try {
    return await ask(AbortSignal.any([host.signal, limit.signal]));
  } catch (error) {
    if (!limit.signal.aborted) throw error;
    throw new CliError(
      ExitStatus.FAILED,
      `the device gave no random byte within ${LONGEST_MS / 1000} seconds`,
      WRONG_TYPE,
    );
  } finally {
    clearTimeout(remark);
    clearTimeout(end);
  }
}
