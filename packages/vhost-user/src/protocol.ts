/**
 * The vhost-user protocol as tables: requests, features and payloads.
 *
 * @see QEMU, docs/interop/vhost-user.rst
 */
import { type FieldTable, Layout, type Values } from '@virtio/core';

/** Requests of the front end to the back end. Those that are missing (migration, IOTLB, crypto, RARP) are not used. */
export const FrontendRequest = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
} as const;

/** The name of a request of the front end. */
export type FrontendRequestName = keyof typeof FrontendRequest;

/** Requests of the back end to the front end, on the channel of `SET_BACKEND_REQ_FD`. */
export const BackendRequest = {
  IOTLB_MSG: 1,
  CONFIG_CHANGE_MSG: 2,
  VRING_HOST_NOTIFIER_MSG: 3,
  VRING_CALL: 4,
  VRING_ERR: 5,
  SHARED_OBJECT_ADD: 6,
  SHARED_OBJECT_REMOVE: 7,
  SHARED_OBJECT_LOOKUP: 8,
} as const;

/** The protocol's features, by bit number. */
export const ProtocolFeature = {
  /** `GET_QUEUE_NUM`. */
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  /** Any request can be answered. */
  REPLY_ACK: 3,
  MTU: 4,
  /** The back end can send requests as well. */
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  /** The configuration space. */
  CONFIG: 9,
  /** Requests of the back end carry descriptors. */
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  /** The back end keeps a record of requests in flight in memory that outlives it. */
  INFLIGHT_SHMFD: 12,
  /** `RESET_DEVICE`. */
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  /** Regions of memory are added and removed one by one. */
  CONFIGURE_MEM_SLOTS: 15,
  /** The device status. */
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
} as const;

/** The name of a feature of the protocol. */
export type ProtocolFeatureName = keyof typeof ProtocolFeature;

/** The mask of features of the protocol. */
export function protocolMask(...names: readonly ProtocolFeatureName[]): bigint {
  return names.reduce((mask, name) => mask | (1n << BigInt(ProtocolFeature[name])), 0n);
}

/** The device feature bit by which the back end offers features of the protocol. */
export const PROTOCOL_FEATURES_BIT = 1n << 30n;

/** The header of each message. */
export const Header = new Layout('vhost_user_header', { request: 'u32', flags: 'u32', size: 'u32' });

/** Flags of the header. */
export const HeaderFlag = {
  /** The version of the protocol, in the lowest two bits. */
  VERSION: 1,
  VERSION_MASK: 3,
  /** The message is an answer. */
  REPLY: 4,
  /** The message is to be answered, with `REPLY_ACK`. */
  NEED_REPLY: 8,
} as const;

/** The longest payload that is accepted, in bytes. No answer to a request of this front end is longer than 268. */
export const MAX_PAYLOAD = 4096;

/**
 * The most descriptors that a message of the back end carries. Each byte could come with 253, and the program would have none left.
 */
export const MAX_DESCRIPTORS = 8;

/** The most bytes of the configuration space that a message carries. */
export const MAX_CONFIG = 256;

/** The most memory regions that `SET_MEM_TABLE` carries. */
export const MAX_TABLE_REGIONS = 8;

/** A vring's index is 8 bits wide in `SET_VRING_KICK`, `_CALL` and `_ERR`. */
export const MAX_VRINGS = 256;

/** A number. */
export const U64 = new Layout('u64', { value: 'u64' });

/** The state of a vring. */
export const VringState = new Layout('vring_state', { index: 'u32', num: 'u32' });

/** The user addresses of a vring. */
export const VringAddress = new Layout('vring_addr', {
  index: 'u32',
  flags: 'u32',
  descriptor: 'u64',
  used: 'u64',
  available: 'u64',
  log: 'u64',
});

/** A region of memory. */
export const MemoryRegion = new Layout('memory_region', {
  guestAddress: 'u64',
  size: 'u64',
  userAddress: 'u64',
  mmapOffset: 'u64',
});

/** The header before the regions of `SET_MEM_TABLE`. */
export const MemoryTable = new Layout('memory_table', { regions: 'u32', padding: 'u32' });

/** The region of `ADD_MEM_REG` and `REM_MEM_REG`. */
export const SingleRegion = new Layout('single_memory_region', {
  padding: 'u64',
  guestAddress: 'u64',
  size: 'u64',
  userAddress: 'u64',
  mmapOffset: 'u64',
});

/** The header before the bytes of `GET_CONFIG` and `SET_CONFIG`. */
export const ConfigAccess = new Layout('config_space', { offset: 'u32', size: 'u32', flags: 'u32' });

/** The record of requests in flight. */
export const Inflight = new Layout('inflight_description', {
  mmapSize: 'u64',
  mmapOffset: 'u64',
  queues: 'u16',
  queueSize: 'u16',
});

/** The head of a packed vring's part of the record of requests in flight. */
export const InflightPacked = new Layout('queue_region_packed', {
  features: 'u64',
  version: 'u16',
  descriptors: 'u16',
  freeHead: 'u16',
  oldFreeHead: 'u16',
  usedIndex: 'u16',
  oldUsedIndex: 'u16',
  usedWrapCounter: 'u8',
  oldUsedWrapCounter: 'u8',
});

/** The bytes of a structure with these values; fields that are not given are zero. */
export function encode<T extends FieldTable>(
  layout: Layout<T>,
  values: Partial<Values<T>>,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(layout.size);
  layout.write(new DataView(bytes.buffer), 0, values);
  return bytes;
}
