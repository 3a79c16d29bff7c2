/**
 * The file that QEMU's `wav` back end writes. While QEMU runs its head has no lengths yet, which libraries for such files do not take;
 * then the samples go to the end of the file. Of the format there is only PCM with 16 bits.
 */
import { readFileSync } from 'node:fs';

/** What a file holds. */
export interface WavFile {
  readonly rate: number;
  readonly channels: number;
  /** Interleaved. */
  readonly samples: Int16Array;
  /** Whether the lengths in its head fit the file: it was closed in good order. */
  readonly complete: boolean;
}

/** Reads a file of PCM with 16 bits. */
export function readWav(path: string): WavFile {
  const bytes = readFileSync(path);
  const tag = (at: number): string => bytes.toString('latin1', at, at + 4);
  if (tag(0) !== 'RIFF' || tag(8) !== 'WAVE') throw new Error(`${path} is no WAV file`);
  let format: { readonly rate: number; readonly channels: number } | undefined;
  for (let at = 12; at + 8 <= bytes.length;) {
    const size = bytes.readUInt32LE(at + 4);
    if (tag(at) === 'fmt ') {
      if (bytes.readUInt16LE(at + 8) !== 1 || bytes.readUInt16LE(at + 22) !== 16) {
        throw new Error(`${path} holds something else than PCM with 16 bits`);
      }
      format = { channels: bytes.readUInt16LE(at + 10), rate: bytes.readUInt32LE(at + 12) };
    }
    if (tag(at) === 'data' && format !== undefined) {
      const open = size === 0;
      const end = open ? bytes.length : Math.min(bytes.length, at + 8 + size);
      const data = bytes.subarray(at + 8, end - ((end - at) % 2));
      const samples = new Int16Array(data.length >> 1);
      for (let n = 0; n < samples.length; n += 1) samples[n] = data.readInt16LE(2 * n);
      return { ...format, samples, complete: !open && at + 8 + size === bytes.length };
    }
    at += 8 + size + (size % 2);
  }
  throw new Error(`${path} has no samples`);
}
