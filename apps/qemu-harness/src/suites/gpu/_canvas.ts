/** What pictures are painted with. Whole numbers and square roots only, so that guest and host paint the same. */

/** Red, green, blue. */
export type Colour = readonly [red: number, green: number, blue: number];

/** Letters of 3 by 5 pixels, a row an octal digit. */
const FONT: Readonly<Record<string, readonly number[]>> = {
  0: [7, 5, 5, 5, 7],
  1: [2, 6, 2, 2, 7],
  2: [7, 1, 7, 4, 7],
  3: [7, 1, 7, 1, 7],
  4: [5, 5, 7, 1, 1],
  5: [7, 4, 7, 1, 7],
  6: [7, 4, 7, 5, 7],
  7: [7, 1, 1, 1, 1],
  8: [7, 5, 7, 5, 7],
  9: [7, 5, 7, 1, 7],
  V: [5, 5, 5, 5, 2],
  I: [7, 2, 2, 2, 7],
  R: [6, 5, 6, 5, 5],
  T: [7, 2, 2, 2, 2],
  O: [7, 5, 5, 5, 7],
  N: [7, 5, 5, 5, 5],
  G: [7, 4, 5, 5, 7],
  P: [7, 5, 7, 4, 4],
  U: [5, 5, 5, 5, 7],
  X: [5, 5, 2, 5, 5],
};

const WHITE: Colour = [255, 255, 255];
const SHADOW: Colour = [16, 12, 40];

/** A number that looks random, of 16 bits, for each three numbers. */
export function hash(x: number, y: number, seed: number): number {
  let bits = Math.imul(x, 0x27d4eb2d) ^ Math.imul(y, 0x165667b1) ^ Math.imul(seed + 1, 0x9e3779b1);
  bits = Math.imul(bits ^ (bits >>> 15), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) & 0xffff;
}

/** The colour between two, `part` of the way. */
export function mix(from: Colour, to: Colour, part: number): Colour {
  const of = (a: number, b: number): number => Math.floor(a + (b - a) * part);
  return [of(from[0], to[0]), of(from[1], to[1]), of(from[2], to[2])];
}

/** Pixels of R, G, B, A. What lies outside is not painted. */
export class Canvas {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
  readonly #words: Uint32Array;

  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height * 4);
    this.#words = new Uint32Array(this.data.buffer);
  }

  put(x: number, y: number, colour: Colour): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    this.#words[y * this.width + x] = wordOf(colour);
  }

  /** @param alpha 0 to 255 */
  blend(x: number, y: number, alpha: number, colour: Colour): void {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const at = 4 * (y * this.width + x);
    for (let i = 0; i < 3; i++) {
      const below = this.data[at + i] ?? 0;
      this.data[at + i] = Math.round(((colour[i] ?? 0) * alpha + below * (255 - alpha)) / 255);
    }
  }

  fill(x: number, y: number, width: number, height: number, colour: Colour): void {
    const [left, right] = [Math.max(0, x), Math.min(this.width, x + width)];
    const word = wordOf(colour);
    for (let row = Math.max(0, y); row < Math.min(this.height, y + height) && left < right; row++) {
      this.#words.fill(word, row * this.width + left, row * this.width + right);
    }
  }

  /** From `top` to the lower edge, one column. */
  column(x: number, top: number, bottom: number, colour: Colour): void {
    const word = wordOf(colour);
    for (let y = Math.max(0, top); y < bottom; y++) this.#words[y * this.width + x] = word;
  }

  /** A disc, `alpha` in its middle and less towards its edge. */
  glow(x: number, y: number, radius: number, alpha: number, colour: Colour): void {
    for (let row = -radius; row < radius; row++) {
      for (let column = -radius; column < radius; column++) {
        const square = row * row + column * column;
        if (square >= radius * radius) continue;
        this.blend(x + column, y + row, Math.round(alpha * (1 - Math.sqrt(square) / radius)), colour);
      }
    }
  }

  /** A disc of one colour, see-through or not. */
  disc(x: number, y: number, radius: number, alpha: number, colour: Colour): void {
    for (let row = -radius; row <= radius; row++) {
      for (let column = -radius; column <= radius; column++) {
        if (row * row + column * column <= radius * radius) this.blend(x + column, y + row, alpha, colour);
      }
    }
  }

  /** White letters, with a shadow. */
  text(text: string, left: number, top: number, scale: number): void {
    const below = Math.max(1, scale >> 1);
    for (const [away, colour] of [
      [below, SHADOW],
      [0, WHITE],
    ] as const) {
      Array.from(text).forEach((letter, n) => {
        (FONT[letter] ?? []).forEach((bits, y) => {
          for (let x = 0; x < 3; x++) {
            if ((bits & (4 >> x)) === 0) continue;
            this.fill(left + (4 * n + x) * scale + away, top + y * scale + away, scale, scale, colour);
          }
        });
      });
    }
  }

  /** Changes the lowest bits of each pixel so that it differs from its neighbours. Nobody sees it. */
  grain(seed: number): void {
    for (let y = 0, at = 0; y < this.height; y++) {
      for (let x = 0; x < this.width; x++, at++) {
        const bits = (x * 5) ^ (y * 3) ^ seed;
        this.#words[at] =
          ((this.#words[at] ?? 0) ^ ((bits & 7) << 16) ^ (((bits >> 3) & 3) << 8) ^ ((bits >> 5) & 3)) >>> 0;
      }
    }
  }
}

function wordOf([red, green, blue]: Colour): number {
  return (red | (green << 8) | (blue << 16) | (255 << 24)) >>> 0;
}
