/** `virtio input`: shows events of keyboards, mice, tablets. */
import { DeviceType } from '@virtio/core';
import type { Command } from 'commander';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { parseCount } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';

interface WatchOptions extends DeviceOptions {
  readonly count?: number;
  readonly syn?: boolean;
}

/** Adds the commands. */
export function addInput(program: Command, host: Host): void {
  const input = program.command('input').description('keyboards, mice, tablets');
  addDeviceOptions(
    input
      .command('watch')
      .description('show events as they arrive, until SIGINT')
      .argument('<device>', 'the address of the device')
      .option('--count <n>', 'end after this number of events', parseCount)
      .option('--syn', 'also show EV_SYN, the ends of updates'),
  ).action(async (device: string, options: WatchOptions) => {
    const printer = new Printer(host, options);
    const { eventCodeName, eventTypeName, VirtioInput } = await import('@virtio/input');
    using opened = await openWith(host, device, options, DeviceType.Input, VirtioInput);
    const { driver } = opened;
    printer.note(`${driver.name()}: waiting for events`);
    let count = 0;
    while (count < (options.count ?? Infinity)) {
      const event = await until(host.signal, () => driver.nextEvent({ signal: host.signal }));
      if (event === undefined) return;
      const { type, code, value } = event;
      const typeName = eventTypeName(type);
      if (typeName === 'EV_SYN' && options.syn !== true) continue;
      const codeName = eventCodeName(type, code);
      count += 1;
      printer.record({ type: typeName, code: codeName, value });
      printer.line(`${typeName.padEnd(6)} ${codeName.padEnd(20)} ${wordFor(typeName, value)}`);
      await printer.settle();
    }
  });
}

/** The result of `wait`, or `undefined` if the signal is aborted. */
export async function until<T>(signal: AbortSignal, wait: () => Promise<T>): Promise<T | undefined> {
  try {
    return await wait();
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

function wordFor(type: string, value: number): string {
  const word = type === 'EV_KEY' ? ['up', 'down', 'repeat'][value] : undefined;
  return word ?? String(value);
}
