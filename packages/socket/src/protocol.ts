/** The features, the configuration space and the packets of a socket device, as they lie in memory. */
import { FeatureTable, Layout } from '@virtio/core';

/** The features of a socket device, by bit number. @see VIRTIO 1.4, 5.10.3 */
const VSOCK_FEATURES = {
  /** Stream sockets are supported. */
  STREAM: 0,
  /** Seqpacket sockets are supported. */
  SEQPACKET: 1,
  /** Stream sockets are not implied by `SEQPACKET`. */
  NO_IMPLIED_STREAM: 2,
} as const;

/** The name of a feature of a socket device. */
export type VsockFeatureName = keyof typeof VSOCK_FEATURES;

/** The features of a socket device. @see VIRTIO 1.4, 5.10.3 */
export const VsockFeatures: FeatureTable<VsockFeatureName> = new FeatureTable<VsockFeatureName>(
  'VsockFeatures',
  VSOCK_FEATURES,
);

/** The configuration space; the upper half of the CID is reserved and zero. @see VIRTIO 1.4, 5.10.4 */
export const VsockConfig = new Layout('virtio_vsock_config', {
  guest_cid: 'u32 read-only',
  guest_cid_high: 'u32 read-only',
});

/** The header of a packet; the upper halves of both CIDs are reserved and zero. @see VIRTIO 1.4, 5.10.6 */
export const VsockHdr = new Layout('virtio_vsock_hdr', {
  src_cid: 'u32',
  src_cid_high: 'u32',
  dst_cid: 'u32',
  dst_cid_high: 'u32',
  src_port: 'u32',
  dst_port: 'u32',
  len: 'u32',
  type: 'u16',
  op: 'u16',
  flags: 'u32',
  buf_alloc: 'u32',
  fwd_cnt: 'u32',
});

/** An event of the device. @see VIRTIO 1.4, 5.10.6.7 */
export const VsockEventLayout = new Layout('virtio_vsock_event', { id: 'u32' });

/** The operations of packets. @see VIRTIO 1.4, 5.10.6 */
export const VsockOp = {
  INVALID: 0,
  /** Asks for a connection. */
  REQUEST: 1,
  /** Accepts a connection. */
  RESPONSE: 2,
  /** Refuses or ends a connection. */
  RST: 3,
  /** The sender will not receive, or not send, any more. */
  SHUTDOWN: 4,
  /** Carries data. */
  RW: 5,
  /** Reports the sender's buffer space. */
  CREDIT_UPDATE: 6,
  /** Asks for a `CREDIT_UPDATE`. */
  CREDIT_REQUEST: 7,
} as const;

/** The type of a socket. @see VIRTIO 1.4, 5.10.6.2 */
export const VsockType = {
  /** Bytes in order, without boundaries. */
  STREAM: 1,
  /** Messages in order, and records of messages. */
  SEQPACKET: 2,
} as const;

/** The flags of a `SHUTDOWN` packet. They add up over the life of a connection. @see VIRTIO 1.4, 5.10.6.5 */
export const VsockShutdown = {
  /** The sender will not receive any more. */
  RECEIVE: 1,
  /** The sender will not send any more. */
  SEND: 2,
  /** Both. */
  BOTH: 3,
} as const;

/** The flags of an `RW` packet of a seqpacket socket. @see VIRTIO 1.4, 5.10.6.6 */
export const VsockSeqFlags = {
  /** The packet ends a message. */
  EOM: 1,
  /** The message ends a record. */
  EOR: 2,
} as const;

/** The ids of events. @see VIRTIO 1.4, 5.10.6.7 */
export const VsockEventId = {
  /** Communication was interrupted, e.g. by a migration: connections are lost, and the CID may have changed. */
  TRANSPORT_RESET: 0,
} as const;

/** Well-known CIDs. @see VIRTIO 1.4, 5.10.4 */
export const VsockCid = {
  /** The host. */
  HOST: 2,
} as const;

/** The index of the rx queue: packets from the device. */
export const RX_QUEUE = 0;
/** The index of the tx queue: packets to the device. */
export const TX_QUEUE = 1;
/** The index of the event queue. */
export const EVENT_QUEUE = 2;

const AT = VsockHdr.offset;

/** The size of a packet's header, in bytes. */
export const HEADER_SIZE: number = VsockHdr.size;

/**
 * The header of a packet, as numbers. One object is reused for many packets, so that none is allocated for each.
 *
 * @see VIRTIO 1.4, 5.10.6
 */
export class VsockHeader {
  /** The sender's CID. */
  srcCid = 0;
  /** The receiver's CID. */
  dstCid = 0;
  /** The sender's port. */
  srcPort = 0;
  /** The receiver's port. */
  dstPort = 0;
  /** Bytes of data after the header. */
  len = 0;
  /** One of {@link VsockType}. */
  type = 0;
  /** One of {@link VsockOp}. */
  op = 0;
  /** {@link VsockShutdown} or {@link VsockSeqFlags}, by `op`. */
  flags = 0;
  /** The sender's buffer space for this connection, in bytes. */
  bufAlloc = 0;
  /** Bytes that were read from the sender's buffer, modulo 2^32. */
  fwdCnt = 0;

  /**
   * Reads a header.
   *
   * @param view at least {@link HEADER_SIZE} bytes
   * @returns whether the upper halves of the CIDs are zero; otherwise its sender or receiver cannot exist
   */
  decode(view: DataView): boolean {
    this.srcCid = view.getUint32(AT.src_cid, true);
    this.dstCid = view.getUint32(AT.dst_cid, true);
    this.srcPort = view.getUint32(AT.src_port, true);
    this.dstPort = view.getUint32(AT.dst_port, true);
    this.len = view.getUint32(AT.len, true);
    this.type = view.getUint16(AT.type, true);
    this.op = view.getUint16(AT.op, true);
    this.flags = view.getUint32(AT.flags, true);
    this.bufAlloc = view.getUint32(AT.buf_alloc, true);
    this.fwdCnt = view.getUint32(AT.fwd_cnt, true);
    return view.getUint32(AT.src_cid_high, true) === 0 && view.getUint32(AT.dst_cid_high, true) === 0;
  }

  /** Writes the header to at least {@link HEADER_SIZE} bytes. Numbers are taken modulo the size of their field. */
  encode(view: DataView): void {
    view.setUint32(AT.src_cid, this.srcCid, true);
    view.setUint32(AT.src_cid_high, 0, true);
    view.setUint32(AT.dst_cid, this.dstCid, true);
    view.setUint32(AT.dst_cid_high, 0, true);
    view.setUint32(AT.src_port, this.srcPort, true);
    view.setUint32(AT.dst_port, this.dstPort, true);
    view.setUint32(AT.len, this.len, true);
    view.setUint16(AT.type, this.type, true);
    view.setUint16(AT.op, this.op, true);
    view.setUint32(AT.flags, this.flags, true);
    view.setUint32(AT.buf_alloc, this.bufAlloc, true);
    view.setUint32(AT.fwd_cnt, this.fwdCnt, true);
  }
}
