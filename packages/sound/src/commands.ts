/**
 * Control requests as plain values: the bytes to send, the size of the answer, and how to parse it. {@link SoundControl} has the queue
 * that sends them.
 */
import { formatNumber, rateNumber } from './formats.ts';
import type { PcmCommand } from './pcm-state.ts';
import {
  ItemRequest,
  JackRemap,
  PcmFeature,
  type PcmFeatureName,
  PcmSetParams,
  QueryInfo,
  SoundRequest,
} from './protocol.ts';

/** The parameters of a PCM stream. */
export interface PcmParameters {
  /** The sample format, by name, e.g. `S16`. */
  readonly format: string;
  /** The frame rate in Hz. */
  readonly rate: number;
  readonly channels: number;
  /** The size of a period in bytes: of each buffer that is transferred. */
  readonly periodBytes: number;
  /** The size of the whole buffer in bytes: a multiple of `periodBytes`. */
  readonly bufferBytes: number;
  /** The stream's features to use (default none). */
  readonly features?: readonly PcmFeatureName[];
}

/** A control request. */
export interface SoundCommand<T> {
  /** Its type, a number of {@link SoundRequest}. */
  readonly code: number;
  /** The bytes of the request. */
  readonly bytes: Uint8Array;
  /** The size of the answer after its status, in bytes. */
  readonly replyBytes: number;
  /** Parses the answer after its status: the `written` bytes of the device, then zeros. */
  readonly parse: (reply: DataView, written: number) => T;
  /** The stream whose state it changes. */
  readonly stream?: { readonly id: number; readonly command: PcmCommand };
}

const nothing = (): void => undefined;

function viewed(size: number): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(size);
  return { bytes, view: new DataView(bytes.buffer) };
}

/** A kind of items that can be queried. */
export interface Query<T> {
  readonly code: number;
  readonly size: number;
  readonly parse: (view: DataView, at: number, id: number) => T;
}

/** Queries `count` items from `start` on. */
export function queryCommand<T>(
  { code, size, parse }: Query<T>,
  start: number,
  count: number,
): SoundCommand<T[]> {
  const { bytes, view } = viewed(QueryInfo.size);
  QueryInfo.write(view, 0, { code, startId: start, count, size });
  return {
    code,
    bytes,
    replyBytes: count * size,
    parse: (reply) => Array.from({ length: count }, (_, item) => parse(reply, item * size, start + item)),
  };
}

/** Changes the association and sequence of a jack. */
export function remapCommand(jackId: number, association: number, sequence: number): SoundCommand<void> {
  const { bytes, view } = viewed(JackRemap.size);
  JackRemap.write(view, 0, { code: SoundRequest.JACK_REMAP, jackId, association, sequence });
  return { code: SoundRequest.JACK_REMAP, bytes, replyBytes: 0, parse: nothing };
}

/** Prepares, starts, stops or releases a stream. */
export function streamCommand(id: number, command: Exclude<PcmCommand, 'SET_PARAMS'>): SoundCommand<void> {
  const code = SoundRequest[`PCM_${command}`];
  const { bytes, view } = viewed(ItemRequest.size);
  ItemRequest.write(view, 0, { code, id });
  return { code, bytes, replyBytes: 0, parse: nothing, stream: { id, command } };
}

/** Sets the parameters of a stream. They are not checked here. */
export function parametersCommand(streamId: number, parameters: PcmParameters): SoundCommand<void> {
  const { format, rate, channels, periodBytes, bufferBytes, features = [] } = parameters;
  const { bytes, view } = viewed(PcmSetParams.size);
  PcmSetParams.write(view, 0, {
    code: SoundRequest.PCM_SET_PARAMS,
    streamId,
    bufferBytes,
    periodBytes,
    features: features.reduce((bits, name) => bits | (1 << PcmFeature[name]), 0) >>> 0,
    channels,
    format: formatNumber(format),
    rate: rateNumber(rate),
  });
  return {
    code: SoundRequest.PCM_SET_PARAMS,
    bytes,
    replyBytes: 0,
    parse: nothing,
    stream: { id: streamId, command: 'SET_PARAMS' },
  };
}

/** A request for a control element, with the bytes after its header. */
export function controlCommand<T>(
  name: 'CTL_ENUM_ITEMS' | 'CTL_READ' | 'CTL_WRITE' | 'CTL_TLV_READ' | 'CTL_TLV_WRITE' | 'CTL_TLV_COMMAND',
  id: number,
  replyBytes: number,
  parse: (reply: DataView, written: number) => T,
  payload: Uint8Array = new Uint8Array(0),
): SoundCommand<T> {
  const code = SoundRequest[name];
  const { bytes, view } = viewed(ItemRequest.size + payload.length);
  ItemRequest.write(view, 0, { code, id });
  bytes.set(payload, ItemRequest.size);
  return { code, bytes, replyBytes, parse };
}
