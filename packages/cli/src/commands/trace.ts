/** `virtio trace`: runs another command, and shows every register access and chain of its device. */
import { formatTraceEvent, type TraceEvent, traceTransport } from '@virtio/core';
import type { Command } from 'commander';
import { featureNames } from '../catalog.ts';
import { usage } from '../errors.ts';
import { closeOutput, openOutput } from '../files.ts';
import type { Host, Output } from '../host.ts';
import { toJson, wantsColor } from '../output.ts';
import { parseCount } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions } from '../session.ts';
import pc from 'picocolors';

interface TraceOptions extends DeviceOptions {
  readonly bytes: number;
  readonly output?: string;
  readonly registers?: boolean;
  readonly chains?: boolean;
}

/** Adds the command. `run` runs a command line. */
export function addTrace(
  program: Command,
  host: Host,
  run: (argv: readonly string[], host: Host) => Promise<void>,
): void {
  addDeviceOptions(
    program
      .command('trace')
      .description('run a command on a device, and show every register access and chain (default: probe)')
      .argument('<device>', 'the address of the device')
      .argument('[command...]', 'the command, after --, without its device, such as: blk read --count 1')
      .option('--bytes <n>', 'also show this number of bytes of each buffer', parseCount, 0)
      .option(
        '-o, --output <file>',
        'write the trace to this file (default: standard error; for the default probe, standard output)',
      )
      .option('--no-registers', 'do not show registers')
      .option('--no-chains', 'do not show chains'),
    { anyType: true },
  ).action(async (device: string, words: string[], options: TraceOptions) => {
    const alone = words.length === 0;
    const argv = alone ? ['probe', device] : insertDevice(program, words, device);
    if (argv[0] === 'trace') throw usage('a trace cannot be traced');
    argv.push(...deviceArguments(options, words));
    const file = options.output === undefined ? undefined : await openOutput(options.output);
    const to: Output = file ?? (alone ? host.stdout : host.stderr);
    try {
      await run(argv, tracing(host, to, options, alone));
    } finally {
      if (file !== undefined) await closeOutput(file);
    }
  });
}

/** A host whose devices are traced. The output of the default probe is discarded. */
function tracing(host: Host, to: Output, options: TraceOptions, alone: boolean): Host {
  const began = performance.now();
  const colors = pc.createColors(options.json !== true && wantsColor(to, host.env, options.color));
  const shades = new Map<string, (text: string) => string>([
    ['register', colors.dim],
    ['published', colors.green],
    ['used', colors.cyan],
  ]);
  const tell = (event: TraceEvent): void => {
    const register = event.kind === 'register';
    if (register ? options.registers === false : options.chains === false) return;
    const seconds = (performance.now() - began) / 1000;
    if (options.json === true) {
      to.write(`${toJson({ seconds: Number(seconds.toFixed(6)), ...event })}\n`);
      return;
    }
    const color = shades.get(event.kind);
    const line = formatTraceEvent(event);
    to.write(`${seconds.toFixed(6).padStart(11)}  ${color?.(line) ?? line}\n`);
  };
  const nowhere: Partial<Host> = alone ? { stdout: silence(host.stdout) } : {};
  const { system } = host;
  return {
    ...host,
    ...nowhere,
    system: {
      listDevices: () => system.listDevices(),
      kernelFeatures: (address) => system.kernelFeatures(address),
      kernelDisks: (address) => system.kernelDisks(address),
      bind: (...args) => {
        system.bind(...args);
      },
      unbind: (address) => {
        system.unbind(address);
      },
      openDevice: async (address, how) => {
        using stack = new DisposableStack();
        const open = stack.use(await system.openDevice(address, how));
        const features = await featureNames(open.transport.deviceType);
        const { bytes } = options;
        const { transport, hal } = traceTransport(open.transport, open.hal, tell, { features, bytes });
        const kept = stack.move();
        return {
          transport,
          hal,
          [Symbol.dispose]: () => {
            kept.dispose();
          },
        };
      },
    },
  };
}

/** An output that discards everything. */
function silence(stdout: Output): Output {
  return Object.create(stdout, {
    write: { value: () => true },
    isTTY: { value: false },
  }) as Output;
}

/** Inserts the device after the words that name a command. */
function insertDevice(program: Command, words: readonly string[], device: string): string[] {
  let command: Command | undefined = program;
  let at = 0;
  for (; at < words.length; at += 1) {
    const next: Command | undefined = command.commands.find(
      (each) => each.name() === words[at] || each.aliases().includes(words[at] ?? ''),
    );
    if (next === undefined) break;
    command = next;
  }
  if (at === 0 || command.commands.length > 0) {
    const unknown = words.slice(0, at + 1).join(' ');
    throw usage(`"${unknown}" is not a command`, 'virtio trace <device> -- blk read --count 1');
  }
  return [...words.slice(0, at), device, ...words.slice(at)];
}

/** The options with which the command opens the device. */
function deviceArguments(options: TraceOptions, words: readonly string[]): string[] {
  const { unsafePhysicalMemory, takeOver, interrupts, without, type } = options;
  const args: string[] = [];
  if (unsafePhysicalMemory === true) args.push('--unsafe-physical-memory');
  if (takeOver === true) args.push('--take-over');
  if (interrupts !== undefined) args.push('--interrupts', interrupts);
  if (without !== undefined && without.length > 0) args.push('--without', without.join(','));
  if (type !== undefined && (words.length === 0 || words[0] === 'probe')) args.push('--type', type);
  return args;
}
