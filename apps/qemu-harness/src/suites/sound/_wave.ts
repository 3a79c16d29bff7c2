/** A wave as a picture: what was played above, what was expected below; of each column the lowest and the highest sample. */

const WIDTH = 960;
const BAND = 72;
const LABEL = 16;

/** The rows of a picture: a title, and interleaved stereo samples. */
export interface Wave {
  readonly title: string;
  readonly samples: Int16Array;
}

/** Draws waves as an SVG image, two bands each, left above right. */
export function drawWaves(waves: readonly Wave[]): Uint8Array {
  const rows = waves.flatMap(({ title, samples }, number) =>
    [0, 1].map((channel) => {
      const top = (2 * number + channel) * (BAND + LABEL);
      return (
        `<text x="0" y="${top + 12}">${title}, ${channel === 0 ? 'left' : 'right'}</text>` +
        `<path d="${envelope(samples, channel, top + LABEL)}"/>`
      );
    }),
  );
  const height = rows.length * (BAND + LABEL);
  return new TextEncoder().encode(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
      '<style>text{font:12px sans-serif;fill:#666}path{stroke:#2a6fb0;fill:none}</style>' +
      `${rows.join('')}</svg>`,
  );
}

/** A vertical line for each column, from its lowest to its highest sample. */
function envelope(samples: Int16Array, channel: number, top: number): string {
  const frames = samples.length >> 1;
  const y = (sample: number): string => (top + BAND / 2 - (sample * BAND) / 65_536).toFixed(1);
  const lines: string[] = [];
  for (let column = 0; column < WIDTH; column += 1) {
    const from = Math.floor((column * frames) / WIDTH);
    const to = Math.max(from + 1, Math.floor(((column + 1) * frames) / WIDTH));
    let low = 32_767;
    let high = -32_768;
    for (let frame = from; frame < to; frame += 1) {
      const sample = samples[2 * frame + channel] ?? 0;
      if (sample < low) low = sample;
      if (sample > high) high = sample;
    }
    lines.push(`M${column} ${y(high)}V${y(low - 1)}`);
  }
  return lines.join('');
}
