/** The information that a sound device gives about its jacks, streams, channel maps and control elements, as plain values. */
import { decodeUtf8, VirtioError } from '@virtio/core';
import { PcmFormat, type PcmFormatName, type PcmRate, ratesOf } from './formats.ts';
import {
  bitNames,
  ChannelMapInfoLayout,
  ChannelPosition,
  type ChannelPositionName,
  CHMAP_MAX_SIZE,
  CONTROL_MAX_COUNT,
  ControlAccess,
  type ControlAccessName,
  ControlInfoLayout,
  ControlRole,
  type ControlRoleName,
  ControlType,
  type ControlTypeName,
  Direction,
  ENUM_ITEM_SIZE,
  JackFeature,
  JackInfoLayout,
  PcmFeature,
  type PcmFeatureName,
  PcmInfoLayout,
  valueName,
} from './protocol.ts';

/** The direction of audio: `output` is played, `input` is captured. */
export type AudioDirection = 'output' | 'input';

/** The properties of all items. */
export interface ItemInfo {
  /** Its number, which requests use. */
  readonly id: number;
  /** The High Definition Audio function group node (NID) that it belongs to; links streams, jacks and channel maps. */
  readonly hdaFnNid: number;
}

/**
 * A jack.
 *
 * @see VIRTIO 1.4, 5.14.6.4.1
 */
export interface JackInfo extends ItemInfo {
  /** Whether its association and sequence can be changed. */
  readonly remappable: boolean;
  /** Whether something is plugged in. */
  readonly connected: boolean;
  /** The pin's default configuration (High Definition Audio, 7.3.3.31). */
  readonly defaultConfiguration: number;
  /** The pin's capabilities (High Definition Audio, 7.3.4.9). */
  readonly capabilities: number;
}

/**
 * A PCM stream and what it can do.
 *
 * @see VIRTIO 1.4, 5.14.6.6.2
 */
export interface StreamInfo extends ItemInfo {
  readonly direction: AudioDirection;
  /** The sample formats that it supports. */
  readonly formats: readonly PcmFormatName[];
  /** The frame rates that it supports, in Hz, in ascending order. */
  readonly rates: readonly PcmRate[];
  readonly channelsMin: number;
  readonly channelsMax: number;
  readonly features: readonly PcmFeatureName[];
}

/**
 * A channel map: the positions of the channels, for streams of its direction and function group.
 *
 * @see VIRTIO 1.4, 5.14.6.9.1
 */
export interface ChannelMapInfo extends ItemInfo {
  readonly direction: AudioDirection;
  /** A position for each channel; `NONE` for one that the specification does not define. */
  readonly positions: readonly ChannelPositionName[];
}

/** The bounds of a control element of integers. */
export interface ControlRange<N extends number | bigint> {
  readonly min: N;
  readonly max: N;
  /** The distance between possible values; 0 if it varies. */
  readonly step: N;
}

/**
 * A control element: a volume, a switch, a choice.
 *
 * @see VIRTIO 1.4, 5.14.6.10.1
 */
export interface ControlInfo extends ItemInfo {
  readonly name: string;
  /** Distinguishes elements with the same name. */
  readonly index: number;
  /** `UNDEFINED` also for one that the specification does not define. */
  readonly role: ControlRoleName;
  /** The direction whose volume, mute or gain it is; `undefined` without such a role. */
  readonly direction: AudioDirection | undefined;
  readonly type: ControlTypeName;
  readonly access: readonly ControlAccessName[];
  /** How many values it has. */
  readonly count: number;
  /**
   * The bounds of an element of the types `INTEGER` and `BOOLEAN`. The specification does not say whether integers are signed: they are
   * read as signed, unless `min` would then be above `max`.
   */
  readonly range: ControlRange<number> | undefined;
  /** The bounds of an element of type `INTEGER64`. */
  readonly range64: ControlRange<bigint> | undefined;
  /** The number of items of an element of type `ENUMERATED`. */
  readonly items: number | undefined;
}

const misbehaved = (what: string): VirtioError =>
  new VirtioError(
    'DEVICE_MISBEHAVED',
    `${what}, which the specification does not allow; the device may need an update`,
  );

function directionOf(item: string, value: number): AudioDirection {
  if (value === Direction.OUTPUT) return 'output';
  if (value === Direction.INPUT) return 'input';
  throw misbehaved(`${item} has direction ${value}`);
}

/** Parses a jack. */
export function parseJack(view: DataView, at: number, id: number): JackInfo {
  const { hdaFnNid, features, hdaRegDefconf, hdaRegCaps, connected } = JackInfoLayout.read(view, at);
  return {
    id,
    hdaFnNid,
    remappable: ((features >> JackFeature.REMAP) & 1) === 1,
    connected: connected !== 0,
    defaultConfiguration: hdaRegDefconf,
    capabilities: hdaRegCaps,
  };
}

/** Parses a stream. Unknown bits are left out. */
export function parseStream(view: DataView, at: number, id: number): StreamInfo {
  const info = PcmInfoLayout.read(view, at);
  return {
    id,
    hdaFnNid: info.hdaFnNid,
    direction: directionOf(`stream ${id}`, info.direction),
    formats: bitNames(PcmFormat, info.formats),
    rates: ratesOf(info.rates),
    channelsMin: info.channelsMin,
    channelsMax: info.channelsMax,
    features: bitNames(PcmFeature, info.features),
  };
}

/** Parses a channel map. */
export function parseChannelMap(view: DataView, at: number, id: number): ChannelMapInfo {
  const { hdaFnNid, direction, channels, positions } = ChannelMapInfoLayout.read(view, at);
  if (channels > CHMAP_MAX_SIZE) throw misbehaved(`channel map ${id} has ${channels} channels`);
  return {
    id,
    hdaFnNid,
    direction: directionOf(`channel map ${id}`, direction),
    positions: Array.from(
      positions.subarray(0, channels),
      (value) => valueName(ChannelPosition, value) ?? 'NONE',
    ),
  };
}

/** Text that ends with a zero byte, or with its field. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Parses a control element. */
export function parseControl(view: DataView, at: number, id: number): ControlInfo {
  const info = ControlInfoLayout.read(view, at);
  const type = valueName(ControlType, info.type);
  // One that is not known is no reason to do without all elements: Linux does not look at it.
  const role = valueName(ControlRole, info.role >>> 1) ?? 'UNDEFINED';
  if (type === undefined) throw misbehaved(`control element ${id} is of type ${info.type}`);
  if (info.count === 0 || info.count > CONTROL_MAX_COUNT[type]) {
    throw misbehaved(`control element ${id} has ${info.count} values of type ${type}`);
  }
  const value = new DataView(info.value.buffer, info.value.byteOffset, info.value.byteLength);
  return {
    id,
    hdaFnNid: info.hdaFnNid,
    name: text(info.name),
    index: info.index,
    role,
    direction: role === 'UNDEFINED' ? undefined : (info.role & 1) === 0 ? 'output' : 'input',
    type,
    access: bitNames(ControlAccess, info.access),
    count: info.count,
    range: type === 'BOOLEAN' ? { min: 0, max: 1, step: 1 } : type === 'INTEGER' ? rangeOf(value) : undefined,
    range64: type === 'INTEGER64' ? range64Of(value) : undefined,
    items: type === 'ENUMERATED' ? value.getUint32(0, true) : undefined,
  };
}

function rangeOf(view: DataView): ControlRange<number> {
  const step = view.getUint32(8, true);
  const signed = { min: view.getInt32(0, true), max: view.getInt32(4, true), step };
  return signed.min <= signed.max
    ? signed
    : { min: view.getUint32(0, true), max: view.getUint32(4, true), step };
}

function range64Of(view: DataView): ControlRange<bigint> {
  const step = view.getBigUint64(16, true);
  const signed = { min: view.getBigInt64(0, true), max: view.getBigInt64(8, true), step };
  return signed.min <= signed.max
    ? signed
    : { min: view.getBigUint64(0, true), max: view.getBigUint64(8, true), step };
}

/** Parses the name of an item of an enumerated element. */
export function parseEnumItem(view: DataView, at: number): string {
  return text(new Uint8Array(view.buffer, view.byteOffset + at, ENUM_ITEM_SIZE));
}
