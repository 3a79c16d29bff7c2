/**
 * The constants and structures of the specification: feature bits, configuration space, control requests, events and I/O messages.
 * Numbers and tables only.
 */
import { type FeatureSet, FeatureTable, Layout } from '@virtio/core';

/**
 * The feature bits of sound devices, by number.
 *
 * @see VIRTIO 1.4, 5.14.3
 */
export const SoundFeature = {
  /** The device has control elements: volumes, switches. */
  CTLS: 0,
} as const;

/** The name of a feature of sound devices. */
export type SoundFeatureName = keyof typeof SoundFeature;

/** The features of sound devices with their names. */
export const SoundFeatures = new FeatureTable<SoundFeatureName>('SoundFeatures', SoundFeature);

/** A set of features of a sound device. */
export type SoundFeatureSet = FeatureSet<SoundFeatureName>;

/**
 * The queues, by index.
 *
 * @see VIRTIO 1.4, 5.14.2
 */
export const SoundQueue = {
  CONTROL: 0,
  EVENT: 1,
  TX: 2,
  RX: 3,
} as const;

/**
 * The configuration space; `controls` only exists with CTLS.
 *
 * @see VIRTIO 1.4, 5.14.4
 */
export const SoundConfigLayout = new Layout('virtio_snd_config', {
  jacks: 'u32 read-only',
  streams: 'u32 read-only',
  chmaps: 'u32 read-only',
  controls: 'u32 read-only',
});

/**
 * The types of control requests.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export const SoundRequest = {
  JACK_INFO: 0x0001,
  JACK_REMAP: 0x0002,
  PCM_INFO: 0x0100,
  PCM_SET_PARAMS: 0x0101,
  PCM_PREPARE: 0x0102,
  PCM_RELEASE: 0x0103,
  PCM_START: 0x0104,
  PCM_STOP: 0x0105,
  CHMAP_INFO: 0x0200,
  CTL_INFO: 0x0300,
  CTL_ENUM_ITEMS: 0x0301,
  CTL_READ: 0x0302,
  CTL_WRITE: 0x0303,
  CTL_TLV_READ: 0x0304,
  CTL_TLV_WRITE: 0x0305,
  CTL_TLV_COMMAND: 0x0306,
} as const;

/** The name of a type of control request. */
export type SoundRequestName = keyof typeof SoundRequest;

/**
 * The status of a control request or an I/O message.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export const SoundStatus = {
  OK: 0x8000,
  BAD_MSG: 0x8001,
  NOT_SUPP: 0x8002,
  IO_ERR: 0x8003,
} as const;

/**
 * The types of events.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export const SoundEvent = {
  JACK_CONNECTED: 0x1000,
  JACK_DISCONNECTED: 0x1001,
  PCM_PERIOD_ELAPSED: 0x1100,
  PCM_XRUN: 0x1101,
  CTL_NOTIFY: 0x1200,
} as const;

/**
 * The changes of a control element in a `CTL_NOTIFY` event, by bit.
 *
 * @see VIRTIO 1.4, 5.14.6.10.4
 */
export const ControlEventMask = { VALUE: 0, INFO: 1, TLV: 2 } as const;

/**
 * The directions of audio.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export const Direction = { OUTPUT: 0, INPUT: 1 } as const;

/**
 * The features of a jack, by bit.
 *
 * @see VIRTIO 1.4, 5.14.6.4.1
 */
export const JackFeature = {
  /** Its association and sequence can be changed. */
  REMAP: 0,
} as const;

/**
 * The features of a PCM stream, by bit.
 *
 * @see VIRTIO 1.4, 5.14.6.6.2
 */
export const PcmFeature = {
  /** Shared memory of the host: a placeholder that must not be selected. */
  SHMEM_HOST: 0,
  /** Shared memory of the guest: a placeholder that must not be selected. */
  SHMEM_GUEST: 1,
  /** The device polls the tx and rx queues and wants no notifications. */
  MSG_POLLING: 2,
  /** Events for each period with shared memory; useless without it. */
  EVT_SHMEM_PERIODS: 3,
  /** Events for underruns and overruns. */
  EVT_XRUNS: 4,
} as const;

/** The name of a feature of PCM streams. */
export type PcmFeatureName = keyof typeof PcmFeature;

/**
 * The positions of channels.
 *
 * @see VIRTIO 1.4, 5.14.6.9.1
 */
export const ChannelPosition = {
  /** Undefined. */
  NONE: 0,
  /** Silent. */
  NA: 1,
  MONO: 2,
  /** Front left, front right. */
  FL: 3,
  FR: 4,
  /** Rear left, rear right. */
  RL: 5,
  RR: 6,
  /** Front center. */
  FC: 7,
  /** Low frequency. */
  LFE: 8,
  /** Side left, side right. */
  SL: 9,
  SR: 10,
  /** Rear center. */
  RC: 11,
  FLC: 12,
  FRC: 13,
  RLC: 14,
  RRC: 15,
  /** Front left wide, front right wide. */
  FLW: 16,
  FRW: 17,
  /** Front left, center, right high. */
  FLH: 18,
  FCH: 19,
  FRH: 20,
  /** Top center. */
  TC: 21,
  TFL: 22,
  TFR: 23,
  TFC: 24,
  TRL: 25,
  TRR: 26,
  TRC: 27,
  TFLC: 28,
  TFRC: 29,
  TSL: 30,
  TSR: 31,
  /** Left LFE, right LFE. */
  LLFE: 32,
  RLFE: 33,
  /** Bottom center, left center, right center. */
  BC: 34,
  BLC: 35,
  BRC: 36,
} as const;

/** The name of a channel's position. */
export type ChannelPositionName = keyof typeof ChannelPosition;

/** The largest number of channels in a channel map. */
export const CHMAP_MAX_SIZE = 18;

/**
 * The roles of control elements.
 *
 * @see VIRTIO 1.4, 5.14.6.10.1
 */
export const ControlRole = { UNDEFINED: 0, VOLUME: 1, MUTE: 2, GAIN: 3 } as const;

/** The name of a role of control elements. */
export type ControlRoleName = keyof typeof ControlRole;

/**
 * The types of control elements.
 *
 * @see VIRTIO 1.4, 5.14.6.10.1
 */
export const ControlType = {
  BOOLEAN: 0,
  INTEGER: 1,
  INTEGER64: 2,
  ENUMERATED: 3,
  BYTES: 4,
  IEC958: 5,
} as const;

/** The name of a type of control elements. */
export type ControlTypeName = keyof typeof ControlType;

/** The largest number of values of an element of each type. */
export const CONTROL_MAX_COUNT: Readonly<Record<ControlTypeName, number>> = {
  BOOLEAN: 128,
  INTEGER: 128,
  INTEGER64: 64,
  ENUMERATED: 128,
  BYTES: 512,
  IEC958: 1,
};

/**
 * The access rights of a control element, by bit.
 *
 * @see VIRTIO 1.4, 5.14.6.10.1
 */
export const ControlAccess = {
  READ: 0,
  WRITE: 1,
  /** The value may change without an event. */
  VOLATILE: 2,
  /** The element has no effect now, but can be changed. */
  INACTIVE: 3,
  TLV_READ: 4,
  TLV_WRITE: 5,
  TLV_COMMAND: 6,
} as const;

/** The name of an access right of a control element. */
export type ControlAccessName = keyof typeof ControlAccess;

/** The header of every request, answer and event. */
export const SoundHeader = new Layout('virtio_snd_hdr', { code: 'u32' });

/** An event. For `CTL_NOTIFY`, `data` is the element's id in its lower half and the mask in its upper one. */
export const SoundEventLayout = new Layout('virtio_snd_event', { code: 'u32', data: 'u32' });

/** A query of items. */
export const QueryInfo = new Layout('virtio_snd_query_info', {
  code: 'u32',
  startId: 'u32',
  count: 'u32',
  size: 'u32',
});

/** Requests for one jack, stream or control element. */
export const ItemRequest = new Layout('virtio_snd_pcm_hdr', { code: 'u32', id: 'u32' });

/** A jack. */
export const JackInfoLayout = new Layout('virtio_snd_jack_info', {
  hdaFnNid: 'u32',
  features: 'u32',
  hdaRegDefconf: 'u32',
  hdaRegCaps: 'u32',
  connected: 'u8',
  padding: 'bytes7',
});

/** The request that changes a jack's association and sequence. */
export const JackRemap = new Layout('virtio_snd_jack_remap', {
  code: 'u32',
  jackId: 'u32',
  association: 'u32',
  sequence: 'u32',
});

/** A PCM stream. */
export const PcmInfoLayout = new Layout('virtio_snd_pcm_info', {
  hdaFnNid: 'u32',
  features: 'u32',
  formats: 'u64',
  rates: 'u64',
  direction: 'u8',
  channelsMin: 'u8',
  channelsMax: 'u8',
  padding: 'bytes5',
});

/** The request that sets a stream's parameters. */
export const PcmSetParams = new Layout('virtio_snd_pcm_set_params', {
  code: 'u32',
  streamId: 'u32',
  bufferBytes: 'u32',
  periodBytes: 'u32',
  features: 'u32',
  channels: 'u8',
  format: 'u8',
  rate: 'u8',
  padding: 'u8',
});

/** The header of an I/O message. */
export const PcmXfer = new Layout('virtio_snd_pcm_xfer', { streamId: 'u32' });

/** The status of an I/O message. */
export const PcmStatus = new Layout('virtio_snd_pcm_status', { status: 'u32', latencyBytes: 'u32' });

/** A channel map. */
export const ChannelMapInfoLayout = new Layout('virtio_snd_chmap_info', {
  hdaFnNid: 'u32',
  direction: 'u8',
  channels: 'u8',
  positions: 'bytes18',
});

/** A control element. The meaning of `value` depends on the type. */
export const ControlInfoLayout = new Layout('virtio_snd_ctl_info', {
  hdaFnNid: 'u32',
  role: 'u32',
  type: 'u32',
  access: 'u32',
  count: 'u32',
  index: 'u32',
  name: 'bytes44',
  value: 'bytes24',
});

/** The size of the name of an enumerated element's item, in bytes. */
export const ENUM_ITEM_SIZE = 64;

/** The size of a control element's value in bytes, for every type. */
export const CONTROL_VALUE_SIZE = 512;

/** The parts of an IEC958 value in bytes. */
export const Iec958Layout = new Layout('virtio_snd_ctl_iec958', {
  status: 'bytes24',
  subcode: 'bytes147',
  pad: 'u8',
  digSubframe: 'bytes4',
});

/** The header of metadata; 4-byte words follow. */
export const TlvHeader = new Layout('virtio_snd_ctl_tlv', { type: 'u32', length: 'u32' });

/** The largest size of metadata after {@link TlvHeader}, in bytes. */
export const TLV_MAX_SIZE = 65_536;

/** The name of a request in messages: `PCM_START`. */
export function requestName(code: number): string {
  const entry = Object.entries(SoundRequest).find(([, value]) => value === code);
  return entry?.[0] ?? `request 0x${code.toString(16)}`;
}

/** The name of a status in messages. */
export function statusName(status: number): string {
  const entry = Object.entries(SoundStatus).find(([, value]) => value === status);
  return entry?.[0] ?? `status 0x${status.toString(16)}`;
}

/** The names of a table of bits that are set. */
export function bitNames<Name extends string>(
  table: Readonly<Record<Name, number>>,
  bits: number | bigint,
): Name[] {
  const wide = BigInt(bits);
  return (Object.entries<number>(table) as [Name, number][])
    .filter(([, bit]) => ((wide >> BigInt(bit)) & 1n) !== 0n)
    .map(([name]) => name);
}

/** The name of a value in a table of numbers. */
export function valueName<Name extends string>(
  table: Readonly<Record<Name, number>>,
  value: number,
): Name | undefined {
  return (Object.entries<number>(table) as [Name, number][]).find(([, number]) => number === value)?.[0];
}
