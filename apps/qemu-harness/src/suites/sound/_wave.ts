/**
 * A picture of a recording: what was played above, what was expected below; for each column, the lowest and the highest sample.
 */

const WIDTH = 960;
const BAND = 72;
const LABEL = 18;
const AXIS = 22;
const COLOURS = ['#2a6fb0', '#3a8f4d'] as const;

/** The rows of a picture: a title, and interleaved stereo samples. */
export interface Wave {
  readonly title: string;
  readonly samples: Int16Array;
}

/**
 * Draws waves as an SVG image, two bands each, left above right, over one axis of seconds: what belongs together is in one column.
 */
export function drawWaves(waves: readonly Wave[], rate: number): Uint8Array {
  const frames = Math.max(1, ...waves.map(({ samples }) => samples.length >> 1));
  const height = 2 * waves.length * (BAND + LABEL) + AXIS;
  const seconds = frames / rate;
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30].find((one) => seconds / one <= 20) ?? 60;
  const axis: string[] = [];
  for (let n = 0; n * step <= seconds; n += 1) {
    const x = Number(((n * step * WIDTH) / seconds).toFixed(1));
    const anchor = n === 0 ? 'start' : x > WIDTH - 20 ? 'end' : 'middle';
    axis.push(
      `<path class="grid" d="M${x} 0V${height - AXIS}"/>` +
        `<text x="${x}" y="${height - 6}" text-anchor="${anchor}">${Number((n * step).toFixed(1))} s</text>`,
    );
  }
  const rows = waves.flatMap(({ title, samples }, number) =>
    [0, 1].map((channel) => {
      const top = (2 * number + channel) * (BAND + LABEL);
      const middle = top + LABEL + BAND / 2;
      return (
        `<path class="grid" d="M0 ${middle}H${WIDTH}"/>` +
        `<path stroke="${COLOURS[channel] ?? ''}" d="${envelope(samples, channel, top + LABEL, frames)}"/>` +
        `<text x="4" y="${top + 13}">${title}, ${channel === 0 ? 'left' : 'right'}: ${(samples.length >> 1).toLocaleString('en')} frames</text>`
      );
    }),
  );
  return new TextEncoder().encode(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
      '<style>text{font:12px sans-serif;fill:#444}path{fill:none}.grid{stroke:#d5d9de}</style>' +
      `<rect width="100%" height="100%" fill="#fff"/>${axis.join('')}${rows.join('')}</svg>`,
  );
}

/** A vertical line for each column, from its lowest to its highest sample. */
function envelope(samples: Int16Array, channel: number, top: number, frames: number): string {
  const y = (sample: number): string => (top + BAND / 2 - (sample * BAND) / 65_536).toFixed(1);
  const lines: string[] = [];
  for (let column = 0; column < WIDTH; column += 1) {
    const from = Math.floor((column * frames) / WIDTH);
    const to = Math.max(from + 1, Math.floor(((column + 1) * frames) / WIDTH));
    if (2 * from >= samples.length) break;
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
