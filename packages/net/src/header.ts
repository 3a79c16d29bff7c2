/**
 * The header before each packet, by names. It is read and written as bytes: without a `DataView`, and without an object unless a caller
 * asks for one, as most packets have a header of zeros.
 *
 * A device may write anything into a header. What was not negotiated is ignored; an offset beyond the packet makes the packet bad.
 */
import { VirtioError } from '@virtio/core';
import type { NetFeatureSet } from './features.ts';
import { GSO_ECN, GsoType, HashReport, HeaderFlag, NetHeaderLayout } from './protocol.ts';

const { offset } = NetHeaderLayout;

/** How a large packet is segmented: the name of its `gso_type`. */
export type Segmentation = Exclude<keyof typeof GsoType, 'NONE'>;

/** The kind of hash that a device reports. */
export type HashReportName = keyof typeof HashReport;

/** A partial checksum, to be completed over the bytes from `start` to the end of the packet. */
export interface PartialChecksum {
  /** Where the summed bytes start, in bytes from the start of the packet. */
  readonly start: number;
  /** Where the 16-bit checksum is stored, in bytes from `start`. */
  readonly offset: number;
}

/** How a large packet is, or is to be, segmented. */
export interface GsoInfo {
  readonly type: Segmentation;
  /** The largest payload of each segment in bytes (the MSS). */
  readonly size: number;
  /** The length of all headers in bytes, the transport header included. In a received packet this is only a hint. */
  readonly headerLength: number;
  /** Whether the TCP packet has ECN set. */
  readonly ecn?: boolean;
}

/** The offloads that a sender asks for, for one packet. @see VIRTIO 1.4, 5.1.9.2 */
export interface TransmitHeader {
  /** Completes a checksum; its field holds the sum of the pseudo header. Needs `CSUM`. */
  readonly checksum?: PartialChecksum;
  /** Segments the packet. Needs `checksum`, and the feature of its type. */
  readonly gso?: GsoInfo;
}

/** What the device reports about a received packet. @see VIRTIO 1.4, 5.1.9.4 */
export interface ReceiveHeader {
  /** Whether the device has validated the checksum. If this is false and there is no `checksum`, the receiver has to check it. */
  readonly dataValid: boolean;
  /** The checksum is partial; the packet comes from a sender that is as trustworthy as the device. */
  readonly checksum?: PartialChecksum;
  /** The packet is larger than those on the wire. */
  readonly gso?: GsoInfo;
  /** How many segments were coalesced, and how many duplicate ACKs were among them. Needs `RSC_EXT`. */
  readonly coalesced?: { readonly segments: number; readonly duplicateAcks: number };
  /** The packet's hash. Needs `HASH_REPORT`, and `NetControl.setHash` or `setRss`. */
  readonly hash?: { readonly value: number; readonly report: HashReportName };
}

const GSO_NAMES = new Map<number, Segmentation>(
  Object.entries(GsoType)
    .filter(([name]) => name !== 'NONE')
    .map(([name, value]) => [value, name as Segmentation]),
);
const HASH_NAMES = Object.keys(HashReport) as HashReportName[];

/** The transmit feature that each kind of segmentation needs. */
const TRANSMIT_FEATURE = {
  TCPV4: 'HOST_TSO4',
  TCPV6: 'HOST_TSO6',
  UDP: 'HOST_UFO',
  UDP_L4: 'HOST_USO',
} as const satisfies Record<Segmentation, string>;

/**
 * The size of a header in bytes: 20 with `HASH_REPORT`, else 12; 10 on a legacy device without mergeable buffers.
 *
 * @see VIRTIO 1.4, 5.1.9 and 5.1.9.1
 */
export function headerSize(features: NetFeatureSet): number {
  if (features.has('HASH_REPORT')) return NetHeaderLayout.size;
  return features.has('VERSION_1') || features.has('MRG_RXBUF') ? offset.hashValue : offset.numBuffers;
}

const u16 = (bytes: Uint8Array, at: number): number =>
  (bytes[at] as number) | ((bytes[at + 1] as number) << 8);

const u32 = (bytes: Uint8Array, at: number): number => (u16(bytes, at) | (u16(bytes, at + 2) << 16)) >>> 0;

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 0xff;
  bytes[at + 1] = value >>> 8;
}

/** Reads and writes the headers of one device. */
export class HeaderCodec {
  /** The size of a header, in bytes. */
  readonly size: number;
  readonly #features: NetFeatureSet;
  readonly #flags: number;
  readonly #merges: boolean;
  readonly #hashes: boolean;
  readonly #exactLength: boolean;
  /** By `gso_type` without the bit for ECN: whether the device may send such packets. */
  readonly #receivable = new Uint8Array(GSO_ECN);

  constructor(features: NetFeatureSet) {
    this.size = headerSize(features);
    this.#features = features;
    this.#merges = features.has('MRG_RXBUF');
    this.#hashes = features.has('HASH_REPORT');
    this.#exactLength = features.has('GUEST_HDRLEN');
    this.#flags =
      (features.has('GUEST_CSUM') ? HeaderFlag.NEEDS_CSUM | HeaderFlag.DATA_VALID : 0) |
      (features.has('RSC_EXT') ? HeaderFlag.RSC_INFO : 0);
    this.#receivable[GsoType.NONE] = 1;
    if (features.has('GUEST_TSO4')) this.#receivable[GsoType.TCPV4] = 1;
    if (features.has('GUEST_TSO6')) this.#receivable[GsoType.TCPV6] = 1;
    if (features.has('GUEST_UFO')) this.#receivable[GsoType.UDP] = 1;
    if (features.has('GUEST_USO4') || features.has('GUEST_USO6')) this.#receivable[GsoType.UDP_L4] = 1;
  }

  /** The number of buffers that a received packet is spread over: 1 without mergeable buffers, whatever the device wrote. */
  numBuffers(bytes: Uint8Array): number {
    return this.#merges ? u16(bytes, offset.numBuffers) : 1;
  }

  /** Writes a header of zeros: the packet needs no offload. */
  clear(bytes: Uint8Array): void {
    for (let i = 0; i < this.size; i += 1) bytes[i] = 0;
  }

  /**
   * Writes a header.
   *
   * @param length the length of the packet after it, in bytes
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED` if a feature is lacking
   */
  write(bytes: Uint8Array, { checksum, gso }: TransmitHeader, length: number): void {
    this.#check(checksum, gso, length);
    this.clear(bytes);
    if (checksum === undefined) return;
    bytes[offset.flags] = HeaderFlag.NEEDS_CSUM;
    put16(bytes, offset.csumStart, checksum.start);
    put16(bytes, offset.csumOffset, checksum.offset);
    if (gso === undefined) return;
    bytes[offset.gsoType] = GsoType[gso.type] | (gso.ecn === true ? GSO_ECN : 0);
    put16(bytes, offset.gsoSize, gso.size);
    put16(bytes, offset.hdrLen, gso.headerLength);
  }

  #check(checksum: PartialChecksum | undefined, gso: GsoInfo | undefined, length: number): void {
    if (checksum === undefined) {
      // 5.1.9.2.1: NEEDS_CSUM must be set with any segmentation.
      if (gso !== undefined) throw invalid('a packet to be segmented (`gso`) needs `checksum`, too');
      return;
    }
    this.#need('CSUM', 'complete checksums');
    const { start, offset: at } = checksum;
    if (!isU16(start) || !isU16(at) || start + at + 2 > length) {
      throw invalid(`the checksum at ${start} + ${at} is outside of the packet of ${length} bytes`);
    }
    if (gso === undefined) return;
    const feature = Object.hasOwn(TRANSMIT_FEATURE, gso.type) ? TRANSMIT_FEATURE[gso.type] : undefined;
    if (feature === undefined) {
      throw invalid(`there is no gso.type '${gso.type}'; use TCPV4, TCPV6, UDP or UDP_L4`);
    }
    this.#need(feature, `segment packets as ${gso.type}`);
    if (gso.ecn === true) {
      if (gso.type !== 'TCPV4' && gso.type !== 'TCPV6') {
        throw invalid(`gso.ecn is for TCP, and gso.type is ${gso.type}`);
      }
      this.#need('HOST_ECN', 'segment packets with ECN');
    }
    if (!isU16(gso.size) || gso.size === 0) throw invalid(`gso.size must be 1 to 65,535, not ${gso.size}`);
    const least = this.#exactLength ? start + 1 : 0;
    if (!isU16(gso.headerLength) || gso.headerLength > length || gso.headerLength < least) {
      throw invalid(`gso.headerLength must be ${least} to ${length} here, not ${gso.headerLength}`);
    }
  }

  /**
   * Judges the header of a received packet.
   *
   * @param length the length of the packet after it, in bytes
   * @returns what is wrong with it, or `undefined`
   */
  fault(bytes: Uint8Array, length: number): string | undefined {
    const type = bytes[offset.gsoType] as number;
    const flags = (bytes[offset.flags] as number) & this.#flags;
    if ((type | flags) === 0) return undefined;
    if (this.#receivable[type & ~GSO_ECN] !== 1) return `gso_type ${type} was not negotiated`;
    if (type !== GsoType.NONE && u16(bytes, offset.gsoSize) === 0) return `gso_type ${type} with gso_size 0`;
    // With RSC_INFO the fields have another meaning.
    if ((flags & (HeaderFlag.NEEDS_CSUM | HeaderFlag.RSC_INFO)) !== HeaderFlag.NEEDS_CSUM) return undefined;
    const start = u16(bytes, offset.csumStart);
    const at = u16(bytes, offset.csumOffset);
    return start + at + 2 > length
      ? `its checksum at ${start} + ${at} is outside of its ${length} bytes`
      : undefined;
  }

  /**
   * Reads the header of a received packet in which {@link HeaderCodec.fault} found nothing. If the device has changed it since,
   * fields that are bad now are left out.
   *
   * @param length the length of the packet after it, in bytes
   */
  read(bytes: Uint8Array, length: number): ReceiveHeader {
    const flags = (bytes[offset.flags] as number) & this.#flags;
    const type = bytes[offset.gsoType] as number;
    const start = u16(bytes, offset.csumStart);
    const at = u16(bytes, offset.csumOffset);
    const rsc = (flags & HeaderFlag.RSC_INFO) !== 0;
    const partial = (flags & HeaderFlag.NEEDS_CSUM) !== 0 && !rsc && start + at + 2 <= length;
    const size = u16(bytes, offset.gsoSize);
    const kind = type & ~GSO_ECN;
    const name = this.#receivable[kind] === 1 && size !== 0 ? GSO_NAMES.get(kind) : undefined;
    return {
      dataValid: (flags & HeaderFlag.DATA_VALID) !== 0,
      ...(partial && { checksum: { start, offset: at } }),
      ...(name !== undefined && {
        gso: {
          type: name,
          size,
          // 5.1.9.4.2: not to be relied on, so at least it does not lead beyond the packet.
          headerLength: Math.min(u16(bytes, offset.hdrLen), length),
          ecn: (type & GSO_ECN) !== 0,
        },
      }),
      ...(rsc && { coalesced: { segments: start, duplicateAcks: at } }),
      ...(this.#hashes && this.#hash(bytes)),
    };
  }

  #hash(bytes: Uint8Array): Pick<ReceiveHeader, 'hash'> {
    const report = HASH_NAMES[u16(bytes, offset.hashReport)];
    if (report === undefined || report === 'NONE') return {};
    return { hash: { value: u32(bytes, offset.hashValue), report } };
  }

  #need(feature: Parameters<NetFeatureSet['has']>[0], what: string): void {
    if (this.#features.has(feature)) return;
    throw new VirtioError('UNSUPPORTED', `the device cannot ${what}, as ${feature} was not negotiated`);
  }
}

const isU16 = (value: number): boolean => Number.isInteger(value) && value >= 0 && value <= 0xffff;

const invalid = (what: string): VirtioError =>
  new VirtioError('INVALID_PARAM', `the header of a packet: ${what}`);
