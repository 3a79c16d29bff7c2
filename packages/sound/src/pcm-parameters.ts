/** The parameters of PCM streams: those that a stream is opened with, and the check against what the stream can do. */
import { requireInteger, type Transport, VirtioError } from '@virtio/core';
import type { PcmParameters } from './commands.ts';
import { bytesOfFrames, formatNumber, isWholeFrames, type PcmFormatName, rateNumber } from './formats.ts';
import type { StreamInfo } from './info.ts';
import type { PcmFeatureName } from './protocol.ts';

/** The number of periods in a buffer, unless the caller says how large it is to be. */
const DEFAULT_PERIODS = 5;
/** The largest number of periods in a buffer: each costs some memory, and no use of it is known. */
const MAX_PERIODS = 65_536;

/** The features that are used if a stream has them. */
const PREFERRED: readonly PcmFeatureName[] = ['EVT_XRUNS', 'MSG_POLLING'];

/** The parameters for a stream that is opened: what the caller leaves out is completed. They are not checked. */
export function parametersOf(
  info: StreamInfo,
  options: Partial<Omit<PcmParameters, 'format'>> & { readonly format?: PcmFormatName },
): PcmParameters {
  const { format = 'S16', rate = 48_000, channels = 2 } = options;
  // 20 ms, in whole bytes whatever the format. What makes no sense is refused when parameters are checked.
  const frames = rateNumber(rate) >= 0 ? Math.max(2, 2 * Math.round(rate / 100)) : 2;
  const usable = Number.isInteger(channels) && channels > 0 && info.formats.includes(format);
  const { periodBytes = usable ? bytesOfFrames({ format, channels }, frames) : 1 } = options;
  const { bufferBytes = DEFAULT_PERIODS * periodBytes } = options;
  const { features = PREFERRED.filter((feature) => info.features.includes(feature)) } = options;
  // A copy of the array: its caller may change it before the stream is open.
  return { format, rate, channels, periodBytes, bufferBytes, features: [...features] };
}

/**
 * Refuses a buffer of too many periods.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function checkPeriods(who: string, { periodBytes, bufferBytes }: PcmParameters): void {
  const periods = Math.floor(bufferBytes / periodBytes);
  if (!(periodBytes > 0 && periods > MAX_PERIODS)) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${who}: bufferBytes ${bufferBytes} are ${periods} periods, and ${MAX_PERIODS} is the limit; use longer periods, or a smaller buffer`,
  );
}

/**
 * Refuses parameters that a stream does not have.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED`
 */
export function checkParameters(transport: Transport, info: StreamInfo, parameters: PcmParameters): void {
  const { format, rate, channels, periodBytes, bufferBytes, features = [] } = parameters;
  const refuse = (what: string, instead: string): VirtioError =>
    new VirtioError('INVALID_PARAM', `${transport.who()}: stream ${info.id} has no ${what}; use ${instead}`);
  // 5.14.6.6.3.2
  if (formatNumber(format) < 0 || !info.formats.includes(format as PcmFormatName)) {
    throw refuse(
      `format ${format}`,
      info.formats.length === 0 ? 'another stream' : `one of ${info.formats.join(', ')}`,
    );
  }
  if (rateNumber(rate) < 0 || !(info.rates as readonly number[]).includes(rate)) {
    throw refuse(
      `rate ${rate}`,
      info.rates.length === 0 ? 'another stream' : `one of ${info.rates.join(', ')} Hz`,
    );
  }
  requireInteger(transport, 'channels', channels, Math.max(1, info.channelsMin), info.channelsMax);
  requireInteger(transport, 'periodBytes', periodBytes, 1, 0x1000_0000);
  requireInteger(transport, 'bufferBytes', bufferBytes, periodBytes, 0xffff_ffff);
  if (bufferBytes % periodBytes !== 0) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: bufferBytes must be a multiple of periodBytes (${periodBytes}), not ${bufferBytes} [5.14.6.6.3.2]`,
    );
  }
  if (!isWholeFrames({ format: format as PcmFormatName, channels }, periodBytes)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: periodBytes must hold whole frames of ${channels} ${format} samples, which ${periodBytes} does not`,
    );
  }
  for (const feature of features) {
    if (feature === 'SHMEM_HOST' || feature === 'SHMEM_GUEST' || feature === 'EVT_SHMEM_PERIODS') {
      throw new VirtioError(
        'UNSUPPORTED',
        `${transport.who()}: ${feature} cannot be used, as shared memory is a placeholder in the specification [5.14.6.6.3]`,
      );
    }
    if (!info.features.includes(feature)) {
      throw refuse(
        `feature ${feature}`,
        info.features.length === 0 ? 'none' : `some of ${info.features.join(', ')}`,
      );
    }
  }
}
