/** `virtio gpu`: pictures on displays. */
import { DeviceType } from '@virtio/core';
import type { RgbaImage } from '@virtio/gpu';
import { type Command, Option } from 'commander';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { parseCount, parseSeconds } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';
import { until } from './input.ts';

interface ShowOptions extends DeviceOptions {
  readonly scanout: number;
  readonly seconds?: number;
  readonly fit: 'center' | 'display' | 'image';
}

/** How long a command waits that runs until a signal, in milliseconds. */
const FOR_EVER_MS = 2 ** 31 - 1;

/** Adds the commands. */
export function addGpu(program: Command, host: Host): void {
  const gpu = program.command('gpu').description('displays');
  addDeviceOptions(
    gpu
      .command('show')
      .description('show a picture until SIGINT')
      .argument('<device>', 'the address of the device')
      .argument('<image>', 'a PNG file')
      .option('--scanout <n>', 'the number of the display', parseCount, 0)
      .option('--seconds <n>', 'end after this time', parseSeconds)
      .addOption(
        new Option('--fit <how>', 'center the image, put it in the corner, or resize the display to it')
          .choices(['center', 'display', 'image'])
          .default('center'),
      ),
  ).action(async (device: string, image: string, options: ShowOptions) => {
    const printer = new Printer(host, options);
    const picture = await readPng(image);
    const { VirtioGpu } = await import('@virtio/gpu');
    using opened = await openWith(host, device, options, DeviceType.Gpu, VirtioGpu);
    const { driver } = opened;
    const { signal } = host;
    const { scanout, fit } = options;
    if (scanout >= driver.scanouts) {
      throw usage(`--scanout is ${scanout}; the device has ${driver.scanouts}, the first is 0`);
    }
    const size = fit === 'image' ? { width: picture.width, height: picture.height } : {};
    const screen = await driver.setUpFramebuffer({ scanout, ...size }, { signal });
    const { width, height } = screen;
    const [x, y] = fit === 'center' ? [(width - picture.width) >> 1, (height - picture.height) >> 1] : [0, 0];
    screen.drawImage(picture, x, y);
    await screen.flush(undefined, { signal });
    printer.result({ scanout, width, height, image: { width: picture.width, height: picture.height, x, y } });
    printer.line(
      `${image} (${picture.width} × ${picture.height}) is on display ${scanout} (${width} × ${height})`,
    );
    const ms = options.seconds === undefined ? FOR_EVER_MS : options.seconds * 1000;
    if (options.seconds === undefined) printer.note('SIGINT ends it');
    await until(signal, () => delay(ms, undefined, { signal }));
    await driver.disableScanout(scanout);
  });
}

/** Reads a PNG file as bytes R, G, B, A. */
export async function readPng(file: string): Promise<RgbaImage> {
  const bytes = await readFile(file);
  const { convertIndexedToRgb, decode, hasPngSignature } = await import('fast-png');
  if (!hasPngSignature(bytes)) throw usage(`${file} is not a PNG file`, 'convert it first');
  const png = decode(bytes);
  const { width, height, depth } = png;
  const indexed = png.palette !== undefined;
  const source = indexed ? convertIndexedToRgb(png) : png.data;
  const channels = indexed ? (png.palette?.[0]?.length ?? 3) : png.channels;
  const gray = channels <= 2;
  const alpha = channels === 2 || channels === 4;
  const most = depth === 16 ? 65535 : 2 ** (indexed ? 8 : Math.min(depth, 8)) - 1;
  const scale = 255 / most;
  const data = new Uint8ClampedArray(width * height * 4);
  const get = indexed || depth >= 8 ? (at: number): number => source[at] ?? 0 : packed(source, width, depth);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    const from = pixel * channels;
    for (let color = 0; color < 3; color += 1) {
      data[pixel * 4 + color] = get(from + (gray ? 0 : color)) * scale;
    }
    data[pixel * 4 + 3] = alpha ? get(from + channels - 1) * scale : 255;
  }
  return { width, height, data };
}

/** Unpacks samples of less than a byte; each row starts at a whole byte. */
function packed(source: ArrayLike<number>, width: number, depth: number): (at: number) => number {
  const stride = Math.ceil((width * depth) / 8);
  return (at) => {
    const row = Math.floor(at / width);
    const bit = (at % width) * depth;
    const byte = source[row * stride + (bit >> 3)] ?? 0;
    return (byte >> (8 - depth - (bit & 7))) & (2 ** depth - 1);
  };
}
