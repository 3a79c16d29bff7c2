/**
 * The EDID of a display that exists in memory only: a base block of EDID 1.4 with one detailed timing, whose blanking is that of
 * reduced-blanking displays at 60 Hz.
 */

const BLOCK = 128;
const HEADER = [0, 255, 255, 255, 255, 255, 255, 0];
const NAME = 'Virtual';
/** The blanking in pixels and lines, and where the sync pulse is in it. */
const H_BLANK = 160;
const V_BLANK = 45;
const H_FRONT = 48;
const H_SYNC = 32;
const V_FRONT = 3;
const V_SYNC = 5;
/** A timing has 12 bits for each side; a larger display gets no timing. */
const LARGEST = 4095;

/** Makes the EDID of a display of `width` by `height` pixels. */
export function edidOf(width: number, height: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  const view = new DataView(bytes.buffer);
  bytes.set(HEADER, 0);
  // The manufacturer in five bits a letter (VIO); product and serial number 0; made in 2026.
  view.setUint16(8, ((22 << 10) | (9 << 5) | 15) & 0x7fff);
  bytes.set([1, 36, 1, 4], 16);
  // A digital input with 8 bits per colour, no physical size, sRGB; the first timing is the preferred one.
  bytes.set([0xa0, 0, 0, 120, 0x06], 20);
  // Chromaticity of sRGB, no established timings, and unused standard timings.
  bytes.set([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54], 25);
  bytes.fill(1, 38, 54);
  if (width <= LARGEST && height <= LARGEST) writeTiming(bytes, view, width, height);
  else writeDescriptor(bytes, 54, 0x10, []);
  // The display's name, and two dummy descriptors.
  writeDescriptor(bytes, 72, 0xfc, new TextEncoder().encode(`${NAME}\n`));
  writeDescriptor(bytes, 90, 0x10, []);
  writeDescriptor(bytes, 108, 0x10, []);
  bytes[BLOCK - 1] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return bytes;
}

function writeTiming(bytes: Uint8Array, view: DataView, width: number, height: number): void {
  const clock = Math.round(((width + H_BLANK) * (height + V_BLANK) * 60) / 10_000);
  view.setUint16(54, Math.min(clock, 0xffff), true);
  const high = (active: number, blank: number): number => ((active >> 8) << 4) | (blank >> 8);
  bytes.set([width & 0xff, H_BLANK, high(width, H_BLANK)], 56);
  bytes.set([height & 0xff, V_BLANK, high(height, V_BLANK)], 59);
  bytes.set([H_FRONT, H_SYNC, (V_FRONT << 4) | V_SYNC, 0], 62);
  // Digital separate synchronization.
  bytes[71] = 0x18;
}

function writeDescriptor(bytes: Uint8Array, at: number, tag: number, text: ArrayLike<number>): void {
  bytes.set([0, 0, 0, tag, 0], at);
  if (text.length > 0) bytes.fill(0x20, at + 5, at + 18).set(text, at + 5);
}
