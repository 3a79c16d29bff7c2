/** `virtio net`: captures and sends the frames of a network device. */
import { DeviceType } from '@virtio/core';
import type { Command } from 'commander';
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { usage } from '../errors.ts';
import { closeOutput, openOutput } from '../files.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { parseCount, parseSeconds } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';
import { until } from './input.ts';

interface DumpOptions extends DeviceOptions {
  readonly write?: string;
  readonly count?: number;
  readonly seconds?: number;
  readonly promiscuous: boolean;
}

interface InjectOptions extends DeviceOptions {
  readonly repeat: number;
  readonly timing?: boolean;
}

const ETHERTYPES: Readonly<Record<number, string>> = {
  0x0800: 'IPv4',
  0x0806: 'ARP',
  0x86dd: 'IPv6',
  0x8100: 'VLAN',
  0x88cc: 'LLDP',
};

/** Adds the commands. */
export function addNet(program: Command, host: Host): void {
  const net = program.command('net').description('network cards: capture frames, send them');

  addDeviceOptions(
    net
      .command('dump')
      .description('show frames as they arrive, or write them as pcap, until SIGINT')
      .argument('<device>', 'the address of the device')
      .option('-w, --write <file>', 'write pcap to this file; - is standard output')
      .option('--count <n>', 'end after this number of frames', parseCount)
      .option('--seconds <n>', 'end after this time', parseSeconds)
      .option('--no-promiscuous', 'receive only frames for this card'),
  ).action((device: string, options: DumpOptions) => dump(host, device, options));

  addDeviceOptions(
    net
      .command('inject')
      .description('send the frames of a pcap file')
      .argument('<device>', 'the address of the device')
      .argument('<file>', 'the capture')
      .option('--repeat <n>', 'how often to send them', parseCount, 1)
      .option('--timing', 'keep the times between the frames'),
  ).action((device: string, file: string, options: InjectOptions) => inject(host, device, file, options));
}

async function dump(host: Host, device: string, options: DumpOptions): Promise<void> {
  const { write } = options;
  const printer = new Printer(host, options);
  if (write === '-' && printer.json) throw usage('pcap and JSON cannot both go to standard output');
  const { formatMac, NetControl, PcapWriter, VirtioNet } = await import('@virtio/net');
  using opened = await openWith(host, device, options, DeviceType.Network, VirtioNet);
  const { driver } = opened;
  const { features } = driver;
  const clock = options.seconds === undefined ? [] : [AbortSignal.timeout(options.seconds * 1000)];
  const signal = AbortSignal.any([host.signal, ...clock]);
  if (features.has('CTRL_RX')) {
    await driver.control(NetControl.setPromiscuous(options.promiscuous), { signal });
  }
  const file = write === undefined || write === '-' ? undefined : await openOutput(write);
  const out = file ?? host.stdout;
  const writer = write === undefined ? undefined : new PcapWriter((bytes) => void out.write(bytes));
  printer.note(`${formatMac(driver.macAddress)}, MTU ${driver.mtu}: waiting for frames`);
  let frames = 0;
  let bytes = 0;
  try {
    while (frames < (options.count ?? Infinity)) {
      const packet = await until(signal, () => driver.receive({ signal }));
      if (packet === undefined) break;
      using received = packet;
      const frame = received.copy();
      const timestamp = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
      frames += 1;
      bytes += frame.length;
      writer?.write(frame, timestamp);
      if (write !== '-') {
        const seen = describeFrame(frame, formatMac);
        const time = new Date(Number(timestamp / 1_000_000n)).toISOString();
        printer.record({ time, ...seen, ...(write === undefined && { frame }) });
        if (write === undefined) {
          printer.line(
            `${time.slice(11, 23)} ${seen.source} > ${seen.destination} ${seen.protocol} ${frame.length} bytes`,
          );
        }
      }
      if (out.writableNeedDrain) await until(signal, () => once(out, 'drain', { signal }));
    }
  } finally {
    if (file !== undefined) await closeOutput(file);
  }
  const dropped = driver.dropped === 0 ? '' : `, ${driver.dropped} dropped`;
  printer.note(`${frames} frames, ${bytes} bytes${dropped}`);
}

function describeFrame(
  frame: Uint8Array,
  formatMac: (mac: Uint8Array) => string,
): { source: string; destination: string; protocol: string; length: number } {
  const type = (frame[12] ?? 0) * 256 + (frame[13] ?? 0);
  return {
    source: frame.length >= 12 ? formatMac(frame.subarray(6, 12)) : '?',
    destination: frame.length >= 6 ? formatMac(frame.subarray(0, 6)) : '?',
    protocol: ETHERTYPES[type] ?? (type < 1536 ? 'LLC' : `0x${type.toString(16).padStart(4, '0')}`),
    length: frame.length,
  };
}

async function inject(host: Host, device: string, file: string, options: InjectOptions): Promise<void> {
  const printer = new Printer(host, options);
  const { readPcap, VirtioNet } = await import('@virtio/net');
  const frames = [...readPcap(new Uint8Array(await readFile(file)))];
  if (frames.length === 0) throw usage(`${file} has no frames to send`);
  const cut = frames.findIndex(({ frame, originalLength }) => frame.length !== originalLength);
  if (cut >= 0) {
    throw usage(`frame ${cut + 1} of ${file} was truncated when it was captured`, 'capture whole frames');
  }
  using opened = await openWith(host, device, options, DeviceType.Network, VirtioNet);
  const { driver } = opened;
  const { signal } = host;
  const total = frames.length * options.repeat;
  using bar = showProgress(host, printer.json, 'sending', total, (frames) => `${frames} frames`);
  let sent = 0;
  let bytes = 0;
  for (let round = 0; round < options.repeat; round += 1) {
    const began = performance.now();
    const first = frames[0]?.timestamp ?? 0n;
    for (const { frame, timestamp } of frames) {
      signal.throwIfAborted();
      if (options.timing === true) {
        const wait = Number(timestamp - first) / 1e6 - (performance.now() - began);
        if (wait > 1) await pause(wait, signal);
      }
      await driver.send(frame, { signal });
      sent += 1;
      bytes += frame.length;
      bar.update(sent);
    }
  }
  await driver.flush({ signal });
  printer.result({ frames: sent, bytes });
  printer.line(`${sent} frames sent, ${bytes} bytes`);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { setTimeout: delay } = await import('node:timers/promises');
  await delay(ms, undefined, { signal });
}
