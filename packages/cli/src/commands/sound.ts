/** `virtio sound`: plays and records WAV files. */
import { DeviceType } from '@virtio/core';
import type { PcmFormatName } from '@virtio/sound';
import { type Command, Option } from 'commander';
import { open, readFile } from 'node:fs/promises';
import { usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { formatSize, parseCount, parseSeconds } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';
import { until } from './input.ts';

interface SoundOptions extends DeviceOptions {
  readonly stream?: number;
}

interface RecordOptions extends SoundOptions {
  readonly rate: number;
  readonly channels: number;
  readonly format: 'S16' | 'S32' | 'U8';
  readonly seconds?: number;
}

/** Bit depths of WAV files, by the names of the library, and the PCM formats for the device. */
const FORMATS: Readonly<Record<string, PcmFormatName>> = {
  '8': 'U8',
  '16': 'S16',
  '32': 'S32',
  '32f': 'FLOAT',
  '64': 'FLOAT64',
};

/** Adds the commands. */
export function addSound(program: Command, host: Host): void {
  const sound = program.command('sound').description('sound: play and record WAV files');

  addDeviceOptions(
    sound
      .command('play')
      .description('play a WAV file')
      .argument('<device>', 'the address of the device')
      .argument('<file>', 'the file')
      .option('--stream <n>', 'the stream (default: the first one for playback)', parseCount),
  ).action((device: string, file: string, options: SoundOptions) => play(host, device, file, options));

  addDeviceOptions(
    sound
      .command('record')
      .description('record a WAV file until SIGINT')
      .argument('<device>', 'the address of the device')
      .argument('<file>', 'the file')
      .option('--stream <n>', 'the stream (default: the first one for capture)', parseCount)
      .option('--rate <hertz>', 'frames per second', parseCount, 48_000)
      .option('--channels <n>', 'the number of channels', parseCount, 2)
      .option('--seconds <n>', 'the length of the recording', parseSeconds)
      .addOption(
        new Option('--format <name>', 'the format of samples').choices(['S16', 'S32', 'U8']).default('S16'),
      ),
  ).action((device: string, file: string, options: RecordOptions) => record(host, device, file, options));
}

async function play(host: Host, device: string, file: string, options: SoundOptions): Promise<void> {
  const printer = new Printer(host, options);
  const { WaveFile } = (await import('wavefile')).default;
  let wave;
  try {
    wave = new WaveFile(await readFile(file));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== undefined) throw error;
    throw usage(`${file} is not a WAV file: ${(error as Error).message}`);
  }
  // Samples of three bytes become four: every device supports these.
  if (wave.bitDepth === '24') wave.toBitDepth('32');
  if (['4', '8a', '8m'].includes(wave.bitDepth)) decompress(wave);
  const format = FORMATS[wave.bitDepth];
  if (format === undefined) {
    throw usage(`${file} has samples of ${wave.bitDepth} bits, which are not supported`);
  }
  const { numChannels: channels, sampleRate: rate } = wave.fmt as { numChannels: number; sampleRate: number };
  const { samples } = wave.data as { samples: Uint8Array };
  const { VirtioSound } = await import('@virtio/sound');
  using opened = await openWith(host, device, options, DeviceType.Sound, VirtioSound);
  const { signal } = host;
  const { stream: id } = options;
  await using stream = await opened.driver.openPlayback(
    { format, rate, channels, ...(id !== undefined && { stream: id }) },
    { signal },
  );
  using bar = showProgress(host, printer.json, 'playing', samples.length);
  const frame = channels * (Number.parseInt(wave.bitDepth, 10) / 8);
  const piece = Math.max(1, Math.floor(rate / 10)) * frame;
  const whole = samples.length - (samples.length % frame);
  try {
    for (let at = 0; at < whole; at += piece) {
      await stream.write(samples.subarray(at, Math.min(whole, at + piece)), { signal });
      bar.update(Math.min(whole, at + piece));
    }
    await stream.drain({ signal });
  } catch (error) {
    // After an interruption, the rest is not played.
    if (signal.aborted) await stream.stop().catch(() => undefined);
    throw error;
  }
  const seconds = Number((whole / frame / rate).toFixed(3));
  printer.result({ format, rate, channels, seconds, underruns: stream.underruns });
  const gaps = stream.underruns === 0 ? '' : `, ${stream.underruns} gaps`;
  printer.line(`${seconds} s played: ${format}, ${rate} Hz, ${channels} channels${gaps}`);
}

/** Decompresses samples to 16 bits. */
function decompress(wave: {
  bitDepth: string;
  fromIMAADPCM(): void;
  fromALaw(): void;
  fromMuLaw(): void;
}): void {
  if (wave.bitDepth === '4') wave.fromIMAADPCM();
  else if (wave.bitDepth === '8a') wave.fromALaw();
  else wave.fromMuLaw();
}

async function record(host: Host, device: string, file: string, options: RecordOptions): Promise<void> {
  const printer = new Printer(host, options);
  const { rate, channels, format, stream: id } = options;
  const { WaveFile } = (await import('wavefile')).default;
  const { VirtioSound } = await import('@virtio/sound');
  using opened = await openWith(host, device, options, DeviceType.Sound, VirtioSound);
  const { signal } = host;
  // First of all, so that no recording is lost because it cannot be saved.
  await using target = await open(file, 'w');
  const width = { U8: 1, S16: 2, S32: 4 }[format];
  const wanted =
    options.seconds === undefined ? Infinity : Math.round(options.seconds * rate) * channels * width;
  const pieces: Buffer[] = [];
  let total = 0;
  let overruns: number;
  {
    await using stream = await opened.driver.openCapture(
      { format, rate, channels, ...(id !== undefined && { stream: id }) },
      { signal },
    );
    if (wanted === Infinity) printer.note('recording until SIGINT');
    using bar = showProgress(host, printer.json, 'recording', Number.isFinite(wanted) ? wanted : 0);
    while (total < wanted) {
      const buffer = Buffer.alloc(Math.min(wanted - total, Math.ceil(rate / 10) * channels * width));
      const count = await until(signal, () => stream.read(buffer, { signal }));
      if (count === undefined || count === 0) break;
      pieces.push(buffer.subarray(0, count));
      total += count;
      bar.update(total);
    }
    ({ overruns } = stream);
  }
  const bytes = Buffer.concat(pieces);
  const wave = new WaveFile();
  wave.fromScratch(channels, rate, String(width * 8), samplesOf(bytes, format));
  await target.writeFile(wave.toBuffer());
  const seconds = Number((total / width / channels / rate).toFixed(3));
  printer.result({ file, format, rate, channels, seconds, overruns });
  printer.note(
    `${seconds} s (${formatSize(total)}) recorded to ${file}${overruns === 0 ? '' : `, with ${overruns} gaps`}`,
  );
}

function samplesOf(bytes: Buffer, format: RecordOptions['format']): Uint8Array | Int16Array | Int32Array {
  const { buffer } = new Uint8Array(bytes);
  if (format === 'U8') return new Uint8Array(buffer);
  return format === 'S16' ? new Int16Array(buffer) : new Int32Array(buffer);
}
