/** Checks of the data of streams, for `write` and `read` and for the chunks of Web Streams. */
import { VirtioError } from '@virtio/core';
import { type PcmFormatName, SAMPLE_BITS } from './formats.ts';
import { bytesOf, type PcmData } from './samples.ts';

/** The smallest number of bytes that are whole frames: two frames of IMA ADPCM with an odd number of channels, which have half a byte. */
export function wholeFrameBytes(frameBytes: number): number {
  return Number.isInteger(frameBytes) ? frameBytes : 2 * frameBytes;
}

/**
 * The bytes of data for a stream, without copying them.
 *
 * @param who the stream's name in messages
 * @throws {@link VirtioError} `INVALID_PARAM` for what is no typed array, or one whose elements are not those of the format, which would be
 * noise
 */
export function bytesFor(who: string, format: PcmFormatName, data: unknown): Uint8Array {
  if (!ArrayBuffer.isView(data) || data instanceof DataView) {
    throw new VirtioError('INVALID_PARAM', `${who}: samples must be given in a typed array`);
  }
  const { BYTES_PER_ELEMENT: size, [Symbol.toStringTag]: name } = data as Int16Array;
  const isFloat = (kind: string): boolean => kind.toUpperCase().startsWith('FLOAT');
  if (size > 1 && (8 * size !== SAMPLE_BITS[format] || isFloat(name) !== isFloat(format))) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${who}: the elements of a ${name as string} are no ${format} samples; convert them with encodeSamples, or give their bytes in a Uint8Array`,
    );
  }
  return bytesOf(data as PcmData);
}
