/**
 * Pictures that show errors: each pixel of the background differs from its neighbours, lines of one pixel run along all edges, each
 * corner has a colour of its own, there is text, and there is what was blended with alpha. Guest and host both make them from a
 * few numbers, so that none has to travel.
 */

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
  readonly colour: readonly [red: number, green: number, blue: number];
}

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
  G: [7, 4, 5, 5, 7],
  P: [7, 5, 7, 4, 4],
  U: [5, 5, 5, 5, 7],
  X: [5, 5, 2, 5, 5],
};

/** Makes a picture. */
export function makePicture({ width, height, seed, rects = [] }: PictureSpec): Picture {
  const data = new Uint8Array(width * height * 4);
  const words = new Uint32Array(data.buffer);
  const put = (x: number, y: number, red: number, green: number, blue: number): void => {
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    words[y * width + x] = (red | (green << 8) | (blue << 16) | (255 << 24)) >>> 0;
  };
  const blend = (x: number, y: number, alpha: number, colour: readonly [number, number, number]): void => {
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const at = 4 * (y * width + x);
    for (let i = 0; i < 3; i++) {
      data[at + i] = Math.round(((colour[i] ?? 0) * alpha + (data[at + i] ?? 0) * (255 - alpha)) / 255);
    }
  };

  // Gradients, with bits that tell neighbours apart. Loops are plain, as an engine that interprets makes these pictures, too.
  const reds = Int32Array.from({ length: width }, (_, x) => Math.floor((x * 255) / width));
  for (let y = 0, at = 0; y < height; y++) {
    const rest = (Math.floor((y * 255) / height) << 8) | (255 << 24);
    const mix = (y * 13) ^ (seed * 37);
    for (let x = 0; x < width; x++, at++) {
      words[at] = (reds[x] as number) | ((((x * 7) ^ mix) & 255) << 16) | rest;
    }
  }
  // Three discs, each a little more transparent at its edge.
  const radius = Math.floor(Math.min(width, height) / 6);
  const discs: readonly (readonly [number, number, readonly [number, number, number]])[] = [
    [0.4, 0.4, [255, 0, 0]],
    [0.6, 0.4, [0, 255, 0]],
    [0.5, 0.6, [0, 0, 255]],
  ];
  for (const [cx, cy, colour] of discs) {
    const [left, top] = [Math.floor(cx * width) - radius, Math.floor(cy * height) - radius];
    for (let y = 0; y < 2 * radius; y++) {
      for (let x = 0; x < 2 * radius; x++) {
        const square = (x - radius) ** 2 + (y - radius) ** 2;
        if (square >= radius ** 2) continue;
        blend(left + x, top + y, Math.round(200 * (1 - Math.sqrt(square) / radius)), colour);
      }
    }
  }
  // Text, in several sizes.
  [1, 2, 4].reduce((top, scale) => {
    drawText(`VIRTIO GPU ${width}X${height} ${seed}`, 8, top, scale, put);
    return top + 6 * scale + 4;
  }, 8);
  // Lines at all edges.
  for (let x = 0; x < width; x++) {
    put(x, 0, 255, 255, 255);
    put(x, height - 1, 255, 255, 0);
  }
  for (let y = 0; y < height; y++) {
    put(0, y, 0, 255, 255);
    put(width - 1, y, 255, 0, 255);
  }
  // A colour for each corner.
  const corner = Math.max(1, Math.min(8, Math.floor(Math.min(width, height) / 4)));
  const fill = (
    x: number,
    y: number,
    w: number,
    h: number,
    colour: readonly [number, number, number],
  ): void => {
    for (let row = y; row < y + h; row++) {
      for (let column = x; column < x + w; column++) put(column, row, ...colour);
    }
  };
  fill(0, 0, corner, corner, [255, 0, 0]);
  fill(width - corner, 0, corner, corner, [0, 255, 0]);
  fill(0, height - corner, corner, corner, [0, 0, 255]);
  fill(width - corner, height - corner, corner, corner, [255, 128, 0]);
  for (const { x, y, width: w, height: h, colour } of rects) fill(x, y, w, h, colour);
  return { width, height, data };
}

function drawText(
  text: string,
  left: number,
  top: number,
  scale: number,
  put: (x: number, y: number, red: number, green: number, blue: number) => void,
): void {
  Array.from(text).forEach((letter, n) => {
    (FONT[letter] ?? []).forEach((row, y) => {
      for (let x = 0; x < 3; x++) {
        if ((row & (4 >> x)) === 0) continue;
        for (let dot = 0; dot < scale * scale; dot++) {
          put(
            left + (4 * n + x) * scale + (dot % scale),
            top + y * scale + Math.floor(dot / scale),
            255,
            255,
            255,
          );
        }
      }
    });
  });
}
