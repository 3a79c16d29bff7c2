/**
 * What driver and device exchange, as the specification lays it out: configuration space, headers of packets, control commands.
 * Numbers and tables only.
 */
import { Layout } from '@virtio/core';

/** Bytes of a MAC address. */
export const MAC_SIZE = 6;
/** Bytes of an Ethernet header without a VLAN tag. */
export const ETHERNET_HEADER_SIZE = 14;
/** Bytes of a VLAN tag. */
export const VLAN_TAG_SIZE = 4;
/** The MTU of Ethernet, used if the device reports none. */
export const DEFAULT_MTU = 1500;
/** The smallest `mtu`. @see VIRTIO 1.4, 5.1.4.1 */
export const MTU_MIN = 68;
/** The largest packet with an offload: Ethernet and IPv6 headers and 65,535 bytes. @see VIRTIO 1.4, 5.1.9.3 */
export const MAX_OFFLOAD_FRAME = 65_589;

/**
 * The configuration space. Which fields exist depends on the features.
 *
 * @see VIRTIO 1.4, 5.1.4
 */
export const NetConfigLayout = new Layout('virtio_net_config', {
  mac: 'bytes6 read-only',
  status: 'u16 read-only',
  maxVirtqueuePairs: 'u16 read-only',
  mtu: 'u16 read-only',
  speed: 'u32 read-only',
  duplex: 'u8 read-only',
  rssMaxKeySize: 'u8 read-only',
  rssMaxIndirectionTableLength: 'u16 read-only',
  supportedHashTypes: 'u32 read-only',
  supportedTunnelTypes: 'u32 read-only',
});

/** The bits of `status`. @see VIRTIO 1.4, 5.1.4 */
export const NetStatus = { LINK_UP: 1, ANNOUNCE: 2 } as const;

/** The most descriptors that a queue can have. @see VIRTIO 1.4, 2.7 and 2.8.10.1 */
export const MAX_QUEUE_SIZE = 0x8000;

/** The bounds of `max_virtqueue_pairs`. @see VIRTIO 1.4, 5.1.4.1 */
export const QUEUE_PAIRS = { MIN: 1, MAX: 0x8000 } as const;

/**
 * The header before each packet. Its length depends on the features: see `headerSize`.
 *
 * @see VIRTIO 1.4, 5.1.9
 */
export const NetHeaderLayout = new Layout('virtio_net_hdr', {
  flags: 'u8',
  gsoType: 'u8',
  hdrLen: 'u16',
  gsoSize: 'u16',
  csumStart: 'u16',
  csumOffset: 'u16',
  numBuffers: 'u16',
  hashValue: 'u32',
  hashReport: 'u16',
  paddingReserved: 'u16',
});

/** The bits of a header's `flags`. @see VIRTIO 1.4, 5.1.9 */
export const HeaderFlag = { NEEDS_CSUM: 1, DATA_VALID: 2, RSC_INFO: 4 } as const;

/** The values of a header's `gso_type`, without the bit for ECN. @see VIRTIO 1.4, 5.1.9 */
export const GsoType = { NONE: 0, TCPV4: 1, UDP: 3, TCPV6: 4, UDP_L4: 5 } as const;

/** The bit of `gso_type` that says that the TCP packet has ECN set. */
export const GSO_ECN = 0x80;

/** The values of a header's `hash_report`. @see VIRTIO 1.4, 5.1.9.4.5 */
export const HashReport = {
  NONE: 0,
  IPv4: 1,
  TCPv4: 2,
  UDPv4: 3,
  IPv6: 4,
  TCPv6: 5,
  UDPv6: 6,
  IPv6_EX: 7,
  TCPv6_EX: 8,
  UDPv6_EX: 9,
} as const;

/** The hash types, as bits. @see VIRTIO 1.4, 5.1.9.4.3.1 */
export const HashType = {
  IPv4: 1 << 0,
  TCPv4: 1 << 1,
  UDPv4: 1 << 2,
  IPv6: 1 << 3,
  TCPv6: 1 << 4,
  UDPv6: 1 << 5,
  IP_EX: 1 << 6,
  TCP_EX: 1 << 7,
  UDP_EX: 1 << 8,
} as const;

/** Tunnels whose inner header can be hashed, as bits. @see VIRTIO 1.4, 5.1.9.4.4 */
export const TunnelType = {
  GRE_2784: 1 << 0,
  GRE_2890: 1 << 1,
  GRE_7676: 1 << 2,
  GRE_UDP: 1 << 3,
  VXLAN: 1 << 4,
  VXLAN_GPE: 1 << 5,
  GENEVE: 1 << 6,
  IPIP: 1 << 7,
  NVGRE: 1 << 8,
} as const;

/** The `class` of a control command. @see VIRTIO 1.4, 5.1.9.5 */
export const ControlClass = {
  RX: 0,
  MAC: 1,
  VLAN: 2,
  ANNOUNCE: 3,
  MQ: 4,
  GUEST_OFFLOADS: 5,
  NOTF_COAL: 6,
  HASH_TUNNEL: 7,
  STATS: 8,
} as const;

/** The commands of {@link ControlClass}.RX. Each takes a byte, 0 or 1. @see VIRTIO 1.4, 5.1.9.5.1 */
export const RxCommand = { PROMISC: 0, ALLMULTI: 1, ALLUNI: 2, NOMULTI: 3, NOUNI: 4, NOBCAST: 5 } as const;
/** The commands of {@link ControlClass}.MAC. @see VIRTIO 1.4, 5.1.9.5.2 */
export const MacCommand = { TABLE_SET: 0, ADDR_SET: 1 } as const;
/** The commands of {@link ControlClass}.VLAN. Each takes a 16-bit VLAN id. @see VIRTIO 1.4, 5.1.9.5.3 */
export const VlanCommand = { ADD: 0, DEL: 1 } as const;
/** The command of {@link ControlClass}.ANNOUNCE. @see VIRTIO 1.4, 5.1.9.5.4 */
export const AnnounceCommand = { ACK: 0 } as const;
/** The commands of {@link ControlClass}.MQ. @see VIRTIO 1.4, 5.1.9.5.5 */
export const MqCommand = { VQ_PAIRS_SET: 0, RSS_CONFIG: 1, HASH_CONFIG: 2 } as const;
/** The command of {@link ControlClass}.GUEST_OFFLOADS; it takes 64 bits. @see VIRTIO 1.4, 5.1.9.5.9 */
export const OffloadsCommand = { SET: 0 } as const;
/** The commands of {@link ControlClass}.NOTF_COAL. @see VIRTIO 1.4, 5.1.9.5.10 */
export const CoalesceCommand = { TX_SET: 0, RX_SET: 1, VQ_SET: 2, VQ_GET: 3 } as const;
/** The command of {@link ControlClass}.HASH_TUNNEL; it takes 32 bits. @see VIRTIO 1.4, 5.1.9.4.4 */
export const HashTunnelCommand = { SET: 0 } as const;
/** The commands of {@link ControlClass}.STATS. @see VIRTIO 1.4, 5.1.9.5.11 */
export const StatsCommand = { QUERY: 0, GET: 1 } as const;

/** What a device answers to a control command. @see VIRTIO 1.4, 5.1.9.5 */
export const ControlAck = { OK: 0, ERR: 1 } as const;

/** The parameters of coalescing. @see VIRTIO 1.4, 5.1.9.5.10 */
export const CoalesceLayout = new Layout('virtio_net_ctrl_coal', { maxPackets: 'u32', maxUsecs: 'u32' });

/** The parameters of coalescing for one queue. @see VIRTIO 1.4, 5.1.9.5.10 */
export const QueueCoalesceLayout = new Layout('virtio_net_ctrl_coal_vq', {
  vqIndex: 'u16',
  reserved: 'u16',
  maxPackets: 'u32',
  maxUsecs: 'u32',
});

/** The parameters of a hash, before its key. @see VIRTIO 1.4, 5.1.9.5.6.4 */
export const HashConfigLayout = new Layout('virtio_net_hash_config', {
  hashTypes: 'u32',
  reserved: 'bytes8',
  hashKeyLength: 'u8',
});

/** The parameters of RSS, before the indirection table. @see VIRTIO 1.4, 5.1.9.5.7.1 */
export const RssConfigLayout = new Layout('virtio_net_rss_config', {
  hashTypes: 'u32',
  indirectionTableMask: 'u16',
  unclassifiedQueue: 'u16',
});

/** The parameters of RSS between the indirection table and the key. @see VIRTIO 1.4, 5.1.9.5.7.1 */
export const RssTailLayout = new Layout('virtio_net_rss_config', { maxTxVq: 'u16', hashKeyLength: 'u8' });

/** A request for statistics of one queue. @see VIRTIO 1.4, 5.1.9.5.11.2 */
export const StatsRequestLayout = new Layout('virtio_net_ctrl_queue_stats', {
  vqIndex: 'u16',
  reserved: 'bytes6',
  typesBitmap: 'u64',
});

/** The header of each kind of statistics in an answer. @see VIRTIO 1.4, 5.1.9.5.11.2 */
export const StatsReplyLayout = new Layout('virtio_net_stats_reply_hdr', {
  type: 'u8',
  reserved: 'u8',
  vqIndex: 'u16',
  reserved1: 'u16',
  size: 'u16',
});

/**
 * The kinds of statistics: the number of their bit, and the names of their 64-bit counters in order.
 *
 * @see VIRTIO 1.4, 5.1.9.5.11
 */
export const StatsType = {
  rxBasic: { bit: 0, counters: ['notifications', 'packets', 'bytes', 'interrupts', 'drops', 'dropOverruns'] },
  rxCsum: { bit: 1, counters: ['csumValid', 'needsCsum', 'csumNone', 'csumBad'] },
  rxGso: { bit: 2, counters: ['gsoPackets', 'gsoBytes', 'gsoPacketsCoalesced', 'gsoBytesCoalesced'] },
  rxSpeed: { bit: 3, counters: ['packetsAllowanceExceeded', 'bytesAllowanceExceeded'] },
  txBasic: {
    bit: 16,
    counters: ['notifications', 'packets', 'bytes', 'interrupts', 'drops', 'dropMalformed'],
  },
  txCsum: { bit: 17, counters: ['csumNone', 'needsCsum'] },
  txGso: {
    bit: 18,
    counters: [
      'gsoPackets',
      'gsoBytes',
      'gsoSegments',
      'gsoSegmentsBytes',
      'gsoPacketsNoseg',
      'gsoBytesNoseg',
    ],
  },
  txSpeed: { bit: 19, counters: ['packetsAllowanceExceeded', 'bytesAllowanceExceeded'] },
  cvq: { bit: 32, counters: ['commandNum', 'okNum'] },
} as const;
