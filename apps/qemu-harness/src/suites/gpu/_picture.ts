/**
 * A picture that one likes to look at, and that shows errors: an evening by a lake. Each pixel differs from its neighbours in its lowest
 * bits, lines of one pixel run along all edges, each corner has a colour of its own, there is text in three sizes, and much was blended
 * with alpha. Guest and host both make it from a few numbers, so that none has to travel.
 */
import { Canvas, type Colour, hash, mix } from './_canvas.ts';

/** A picture as bytes R, G, B, A. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** What a picture is made of. */
export interface PictureSpec {
  readonly width: number;
  readonly height: number;
  /** Makes pictures differ. */
  readonly seed: number;
  /** Rectangles that are drawn over it, one after the other. */
  readonly rects?: readonly ColouredRect[];
}

/** A rectangle of one colour. */
export interface ColouredRect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly colour: Colour;
}

/** Down the sky. */
const SKY: readonly (readonly [part: number, colour: Colour])[] = [
  [0, [18, 22, 68]],
  [0.45, [88, 48, 122]],
  [0.78, [232, 110, 92]],
  [1, [255, 204, 120]],
];
const SUN: Colour = [255, 240, 184];
/** Ranges of hills from far to near: how high they are, of the picture's height, and how wide, of its width. */
const HILLS = [
  { high: 0.3, wide: 0.19, colour: [150, 92, 138] },
  { high: 0.2, wide: 0.11, colour: [88, 56, 108] },
  { high: 0.11, wide: 0.06, colour: [34, 24, 58] },
] as const satisfies readonly { high: number; wide: number; colour: Colour }[];
const [NEAR_WATER, FAR_WATER]: readonly [Colour, Colour] = [
  [22, 26, 72],
  [238, 150, 112],
];

/** The colour of the sky at a part of its height. */
function skyAt(part: number): Colour {
  const next = Math.max(
    1,
    SKY.findIndex(([at]) => at >= part),
  );
  const [[from, above], [to, below]] = [SKY[next - 1] ?? SKY[0], SKY[next] ?? SKY[0]] as [
    (typeof SKY)[number],
    (typeof SKY)[number],
  ];
  return mix(above, below, (part - from) / (to - from));
}

/** A line of hills, from 0 to 1: peaks at random, joined by curves, and smaller ones on them. */
function ridge(x: number, wide: number, seed: number): number {
  let height = 0;
  for (const [octave, share] of [0.6, 0.28, 0.12].entries()) {
    const at = (x * 2 ** octave) / wide;
    const peak = Math.floor(at);
    const part = at - peak;
    const [left, right] = [hash(peak, octave, seed) / 65_535, hash(peak + 1, octave, seed) / 65_535];
    height += share * (left + (right - left) * part * part * (3 - 2 * part));
  }
  return height;
}

/** Makes a picture. */
export function makePicture({ width, height, seed, rects = [] }: PictureSpec): Picture {
  const canvas = new Canvas(width, height);
  const small = Math.min(width, height);
  const shore = Math.floor(height * 0.7);
  for (let y = 0; y < shore; y++) canvas.fill(0, y, width, 1, skyAt(y / shore));
  for (let n = 0; n < (width * height) >> 12; n++) {
    const [x, y] = [hash(n, 1, seed) % width, hash(n, 2, seed) % Math.max(1, shore >> 1)];
    canvas.blend(x, y, 80 + (hash(n, 3, seed) % 170), [255, 255, 255]);
  }
  const sun = { x: Math.floor(width * (0.5 + (hash(7, 7, seed) % 25) / 100)), y: Math.floor(height * 0.52) };
  canvas.glow(sun.x, sun.y, Math.floor(small / 3), 150, [255, 180, 110]);
  canvas.disc(sun.x, sun.y, Math.floor(small / 13), 235, SUN);
  for (const [n, { high, wide, colour }] of HILLS.entries()) {
    for (let x = 0; x < width; x++) {
      const top = shore - Math.floor(high * height * ridge(x / width, wide, seed + 31 * n));
      canvas.column(x, top, shore, colour);
    }
  }
  for (let y = shore; y < height; y++) {
    const part = (y - shore) / Math.max(1, height - shore);
    canvas.fill(0, y, width, 1, mix(FAR_WATER, NEAR_WATER, Math.sqrt(part)));
    // The way of the sun on the water: short waves, the wider the nearer.
    const reach = Math.floor(small * (0.06 + 0.16 * part));
    for (let wave = 0; wave < 2; wave++) {
      const random = hash(y >> 1, wave, seed);
      const from = sun.x - reach + (random % Math.max(1, reach));
      const long = Math.floor((reach * (random >> 8)) / 200);
      for (let x = from; x < from + long; x++) canvas.blend(x, y, 110 - Math.floor(60 * part), SUN);
    }
  }
  // Three discs that are half see-through, as paints of light are shown.
  const [x, y, radius] = [Math.floor(0.87 * width), Math.floor(0.17 * height), Math.floor(small / 16)];
  const away = Math.floor(radius * 0.6);
  canvas.disc(x, y - away, radius, 120, [255, 0, 0]);
  canvas.disc(x - away, y + away, radius, 120, [0, 255, 0]);
  canvas.disc(x + away, y + away, radius, 120, [0, 0, 255]);
  canvas.text('VIRTIO GPU', 24, 24, 6);
  canvas.text(`${width}X${height}`, 24, 66, 3);
  canvas.text(`NO ${seed}`, 24, 90, 1);
  canvas.grain(seed);
  frame(canvas);
  for (const { x: left, y: top, width: wide, height: high, colour } of rects) {
    canvas.fill(left, top, wide, high, colour);
  }
  return { width, height, data: canvas.data };
}

/** Lines along all edges, and a colour for each corner. */
function frame(canvas: Canvas): void {
  const { width, height } = canvas;
  canvas.fill(0, 0, width, 1, [255, 255, 255]);
  canvas.fill(0, height - 1, width, 1, [255, 255, 0]);
  canvas.fill(0, 0, 1, height, [0, 255, 255]);
  canvas.fill(width - 1, 0, 1, height, [255, 0, 255]);
  const corner = Math.max(1, Math.min(8, Math.floor(Math.min(width, height) / 4)));
  canvas.fill(0, 0, corner, corner, [255, 0, 0]);
  canvas.fill(width - corner, 0, corner, corner, [0, 255, 0]);
  canvas.fill(0, height - corner, corner, corner, [0, 0, 255]);
  canvas.fill(width - corner, height - corner, corner, corner, [255, 128, 0]);
}
