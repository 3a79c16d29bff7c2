/** What the tests of displays share: opening the driver, and what QEMU shows, as the host sees it. */
import { VirtioGpu, type GpuOptions } from '@virtio/gpu';
import { decode, encode } from 'fast-png';
import { equal } from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { OpenOptions, SomeTransport } from '@virtio/linux';
import type { DeviceSpec, GuestContext, HostEnv, Properties } from '../../framework/define.ts';
import { expectRing, open } from '../_open.ts';
import { makePicture, type PictureSpec } from './_picture.ts';

/** An open GPU. */
export interface OpenGpu extends Disposable {
  readonly gpu: VirtioGpu;
  readonly device: SomeTransport;
}

export function openGpu(
  context: Pick<GuestContext, 'cell' | 'device'>,
  options: GpuOptions = {},
  how: OpenOptions = {},
): OpenGpu {
  using stack = new DisposableStack();
  const device = stack.use(open(context, 'gpu', how));
  const gpu = stack.use(new VirtioGpu(device.transport, device.hal, options));
  expectRing(gpu.features, context.cell);
  const kept = stack.move();
  return { gpu, device, [Symbol.dispose]: () => kept.dispose() };
}

export const gpuDevice = (properties: Properties = {}, more: Partial<DeviceSpec> = {}): DeviceSpec => ({
  model: 'virtio-gpu',
  properties,
  ...more,
});

/** What a display shows, compared with what it should. */
export interface Comparison {
  readonly width: number;
  readonly height: number;
  /** How many pixels differ. */
  readonly different: number;
  /** The first one that does. */
  readonly first?: string;
}

/** A question to the host. */
export interface Shown {
  readonly expected: PictureSpec;
  readonly head?: number;
  /** The title in the report, if what is shown is to be there. */
  readonly title?: string;
}

/** What a head of the display shows, as bytes R, G, B. */
async function screendump(
  env: HostEnv,
  head: number,
): Promise<{ width: number; height: number; rgb: Uint8Array; png: Uint8Array }> {
  const filename = join(env.directory, `head-${head}.png`);
  await env.qmp('screendump', { filename, device: env.deviceId('gpu'), head, format: 'png' });
  const png = readFileSync(filename);
  rmSync(filename);
  const { width, height, data, channels, depth } = decode(png);
  if (channels !== 3 || depth !== 8) throw new Error(`QEMU wrote ${channels} channels of ${depth} bits.`);
  return { width, height, rgb: Uint8Array.from(data), png };
}

function compare(rgb: Uint8Array, wanted: Uint8Array): Pick<Comparison, 'different' | 'first'> {
  let different = 0;
  let first: string | undefined;
  for (let i = 0; 3 * i < rgb.length; i++) {
    const got = [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]];
    const right = [wanted[4 * i], wanted[4 * i + 1], wanted[4 * i + 2]];
    if (got.every((value, part) => value === right[part])) continue;
    different += 1;
    first ??= `pixel ${i}: ${got.join(' ')} in place of ${right.join(' ')}`;
  }
  return { different, ...(first === undefined ? {} : { first }) };
}

const count = (pixels: number): string => `${pixels === 0 ? 'no' : pixels.toLocaleString('en')} pixels`;

/** The host's half. */
export const host = {
  /** Compares what QEMU shows with a picture, pixel by pixel. */
  shown: async ({ expected, head = 0, title }: Shown, env: HostEnv): Promise<Comparison> => {
    const { width, height, rgb, png } = await screendump(env, head);
    const { data } = makePicture(expected);
    const found =
      width === expected.width && height === expected.height
        ? compare(rgb, data)
        : { different: width * height, first: 'the size' };
    if (title !== undefined) {
      env.picture(`${title}, as QEMU shows it: ${count(found.different)} differ`, 'image/png', png);
      const drawn = encode({ width: expected.width, height: expected.height, channels: 4, data });
      env.picture(`${title}, as the guest drew it`, 'image/png', drawn);
    }
    return { width, height, ...found };
  },
  /** The size of what QEMU shows. */
  size: async ({ head = 0 }: { head?: number }, env: HostEnv): Promise<readonly [number, number]> => {
    const { width, height } = await screendump(env, head);
    return [width, height];
  },
};

/** Fails unless a display shows a picture, pixel for pixel. */
export async function expectShown(
  context: GuestContext<Pick<typeof host, 'shown'>>,
  shown: Shown,
): Promise<void> {
  const { different, first = '', width, height } = await context.host('shown', shown);
  const { expected } = shown;
  equal(`${width}x${height}`, `${expected.width}x${expected.height}`, 'the size of what is shown');
  equal(different, 0, `${different} pixels differ from the picture, the first is ${first}`);
}
