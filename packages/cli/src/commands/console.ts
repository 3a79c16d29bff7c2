/** `virtio console`: connects a terminal, or pipes, to a port. */
import { DeviceType, VirtioError } from '@virtio/core';
import type { Command } from 'commander';
import { CliError, ExitStatus, usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { converse } from '../interactive.ts';
import { Printer } from '../output.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';

interface ConsoleOptions extends DeviceOptions {
  readonly port?: string;
  readonly list?: boolean;
  readonly multiport: boolean;
  readonly follow?: boolean;
}

/** How long a device may take to announce its ports, in milliseconds. */
const PATIENCE_MS = 2000;

/** Adds the command. */
export function addConsole(program: Command, host: Host): void {
  addDeviceOptions(
    program
      .command('console')
      .description('talk to the host through a port of a console device; Ctrl-] ends it on a terminal')
      .argument('<device>', 'the address of the device')
      .option('--port <name or number>', 'the port (default: the first console)')
      .option('--list', 'show the ports')
      .option('--no-multiport', 'use port 0 only')
      .option('--follow', 'continue after the end of standard input, until SIGINT'),
  ).action(async (device: string, options: ConsoleOptions) => {
    const printer = new Printer(host, options);
    if (printer.json && options.list !== true) {
      throw usage('the data of a port cannot be printed as JSON', 'leave --json out, or add --list');
    }
    const { VirtioConsole } = await import('@virtio/console');
    const { multiport } = options;
    using opened = await openWith(host, device, options, DeviceType.Console, VirtioConsole, { multiport });
    const { driver } = opened;
    const { signal } = host;
    if (options.list === true) {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS / 2)]);
      await driver.waitForPort(() => false, { signal: patience }).catch(() => undefined);
      signal.throwIfAborted();
      const ports = driver.ports.map(({ id, name, isConsole, hostOpen }) => ({
        id,
        name,
        isConsole,
        hostOpen,
      }));
      printer.result(ports);
      printer.table(
        ['PORT', 'NAME', 'CONSOLE', 'OPEN ON THE HOST'],
        ports.map(({ id, name, isConsole, hostOpen }) => [
          String(id),
          name ?? '-',
          isConsole ? 'yes' : 'no',
          hostOpen ? 'yes' : 'no',
        ]),
      );
      return;
    }
    const { port: wanted } = options;
    const query =
      wanted === undefined
        ? multiport && driver.maxPorts > 1
          ? (port: { isConsole: boolean }): boolean => port.isConsole
          : 0
        : /^\d+$/.test(wanted)
          ? Number(wanted)
          : wanted;
    const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
    const port = await driver.waitForPort(query, { signal: patience }).catch((error: unknown) => {
      if (signal.aborted || !VirtioError.is(error, 'ABORTED')) throw error;
      throw new CliError(
        ExitStatus.FAILED,
        wanted === undefined
          ? `the device at ${device} has announced no console within ${PATIENCE_MS / 1000} s`
          : `the device at ${device} has no port ${JSON.stringify(wanted)}`,
        'add --list to see its ports',
      );
    });
    if (!port.isConsole) port.open();
    if (host.stdin.isTTY === true) printer.note('connected; Ctrl-] ends it');
    await converse(host, { raw: true, signal, endsWithInput: options.follow !== true }, (over) => ({
      incoming: untilEnd(port.chunks({ signal: over }), over),
      write: (bytes) => port.write(bytes, { signal: over }),
      endWriting: () => port.flush({ signal: over }),
    }));
  });
}

/** Yields chunks until the signal is aborted, which is not an error. */
export async function* untilEnd(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, undefined> {
  try {
    for await (const chunk of chunks) yield chunk;
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return undefined;
}
