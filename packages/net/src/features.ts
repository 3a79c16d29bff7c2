/**
 * The feature bits of network devices, and their requirements: a driver may not accept a feature without the features that it
 * requires, whatever the device offers.
 */
import { type FeatureSet, FeatureTable, type Transport, VirtioError } from '@virtio/core';

/**
 * The feature bits of network devices, by number.
 *
 * @see VIRTIO 1.4, 5.1.3
 */
export const NetFeature = {
  /** The device completes partial checksums. */
  CSUM: 0,
  /** The driver takes packets with partial checksums. */
  GUEST_CSUM: 1,
  /** The receive offloads can be changed while the device is live. */
  CTRL_GUEST_OFFLOADS: 2,
  /** `mtu` is the largest MTU. */
  MTU: 3,
  /** `mac` is the device's address. */
  MAC: 5,
  /** Legacy: packets of any GSO type. Not accepted; QEMU leaves the bit set where no offload works. */
  GSO: 6,
  /** The driver takes large TCP packets over IPv4. */
  GUEST_TSO4: 7,
  /** The driver takes large TCP packets over IPv6. */
  GUEST_TSO6: 8,
  /** The driver takes large TCP packets with ECN. */
  GUEST_ECN: 9,
  /** The driver takes UDP packets that are to be fragmented. */
  GUEST_UFO: 10,
  /** The device segments TCP over IPv4. */
  HOST_TSO4: 11,
  /** The device segments TCP over IPv6. */
  HOST_TSO6: 12,
  /** The device segments TCP with ECN. */
  HOST_ECN: 13,
  /** The device fragments UDP. */
  HOST_UFO: 14,
  /** A received packet may be spread over several buffers. */
  MRG_RXBUF: 15,
  /** `status` reports whether the link is up. */
  STATUS: 16,
  /** There is a control queue. */
  CTRL_VQ: 17,
  /** Received packets can be filtered. */
  CTRL_RX: 18,
  /** VLANs can be filtered: tagged packets are dropped until their VLAN is added. */
  CTRL_VLAN: 19,
  /** There are more filters than those of `CTRL_RX`. */
  CTRL_RX_EXTRA: 20,
  /** The device may ask the driver to announce itself. */
  GUEST_ANNOUNCE: 21,
  /** There are several pairs of queues, and the device chooses the pair on which it delivers a flow. */
  MQ: 22,
  /** The MAC address can be set through the control queue. */
  CTRL_MAC_ADDR: 23,
  /** Legacy: coalesced TCP over IPv4 (RSC), used by the Windows driver only. Not accepted. */
  GUEST_RSC4: 41,
  /** Legacy: the same for IPv6. Not accepted. */
  GUEST_RSC6: 42,
  /** The device has statistics. */
  DEVICE_STATS: 50,
  /** The hash can cover the inner header of a tunnel. */
  HASH_TUNNEL: 51,
  /** Notifications can be coalesced for each queue. */
  VQ_NOTF_COAL: 52,
  /** Notifications can be coalesced. */
  NOTF_COAL: 53,
  /** The driver takes large UDP packets over IPv4. */
  GUEST_USO4: 54,
  /** The driver takes large UDP packets over IPv6. */
  GUEST_USO6: 55,
  /** The device segments UDP. */
  HOST_USO: 56,
  /** Received packets carry their hash. */
  HASH_REPORT: 57,
  /** The driver gives the exact length of the headers of packets to be segmented. */
  GUEST_HDRLEN: 59,
  /** The driver chooses the pair on which a flow is received, by its hash. */
  RSS: 60,
  /** Coalesced packets report their numbers of segments and duplicate ACKs. */
  RSC_EXT: 61,
  /** The device is the standby for a primary device with the same address. Not accepted: this driver does not handle such a pair. */
  STANDBY: 62,
  /** `speed` and `duplex` describe the link. */
  SPEED_DUPLEX: 63,
  /** There are further sets of RSS parameters, for flow filters. Not accepted: this driver has no flow filters. */
  RSS_CONTEXT: 64,
  /** The driver takes large packets in UDP tunnels. Not accepted. */
  GUEST_UDP_TUNNEL_GSO: 65,
  /** The same with a partial checksum of the outer header. Not accepted. */
  GUEST_UDP_TUNNEL_GSO_CSUM: 66,
  /** The device segments packets in UDP tunnels. Not accepted. */
  HOST_UDP_TUNNEL_GSO: 67,
  /** The same with a partial checksum of the outer header. Not accepted. */
  HOST_UDP_TUNNEL_GSO_CSUM: 68,
  /** Headers carry the offset of the outer network header. Not accepted. */
  OUT_NET_HEADER: 69,
  /** The device does IPsec. Not accepted. */
  IPSEC: 70,
} as const;

/** The name of a feature of network devices. */
export type NetFeatureName = keyof typeof NetFeature;

/** The features of network devices with their names. */
export const NetFeatures = new FeatureTable<NetFeatureName>('NetFeatures', NetFeature);

/** A set of features of a network device. */
export type NetFeatureSet = FeatureSet<NetFeatureName>;

/** The features that change what is received, accepted only if the caller asks for them, in the order of their bits. */
export const RECEIVE_OFFLOADS = [
  'GUEST_CSUM',
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'GUEST_UFO',
  'GUEST_USO4',
  'GUEST_USO6',
] as const satisfies readonly NetFeatureName[];

/** The name of a receive offload. */
export type ReceiveOffload = (typeof RECEIVE_OFFLOADS)[number];

/** The features that both drivers of this package implement, besides receive offloads and mergeable buffers. */
export const BASE_FEATURES = [
  'CSUM',
  'MTU',
  'MAC',
  'HOST_TSO4',
  'HOST_TSO6',
  'HOST_ECN',
  'HOST_UFO',
  'STATUS',
  'CTRL_VQ',
  'CTRL_RX',
  'CTRL_VLAN',
  'CTRL_RX_EXTRA',
  'GUEST_ANNOUNCE',
  'MQ',
  'CTRL_MAC_ADDR',
  'DEVICE_STATS',
  'HASH_TUNNEL',
  'VQ_NOTF_COAL',
  'NOTF_COAL',
  'HOST_USO',
  'HASH_REPORT',
  'GUEST_HDRLEN',
  'RSS',
  'SPEED_DUPLEX',
] as const satisfies readonly NetFeatureName[];

/**
 * The requirements of each feature: at least one name of each list.
 *
 * @see VIRTIO 1.4, 5.1.3.1
 */
const REQUIREMENTS: Readonly<Partial<Record<NetFeatureName, readonly (readonly NetFeatureName[])[]>>> = {
  GUEST_TSO4: [['GUEST_CSUM']],
  GUEST_TSO6: [['GUEST_CSUM']],
  GUEST_ECN: [['GUEST_TSO4', 'GUEST_TSO6']],
  GUEST_UFO: [['GUEST_CSUM']],
  GUEST_USO4: [['GUEST_CSUM']],
  GUEST_USO6: [['GUEST_CSUM']],
  GUEST_UDP_TUNNEL_GSO: [['GUEST_TSO4'], ['GUEST_TSO6'], ['GUEST_USO4'], ['GUEST_USO6']],
  GUEST_UDP_TUNNEL_GSO_CSUM: [['GUEST_UDP_TUNNEL_GSO']],
  HOST_TSO4: [['CSUM']],
  HOST_TSO6: [['CSUM']],
  HOST_ECN: [['HOST_TSO4', 'HOST_TSO6']],
  HOST_UFO: [['CSUM']],
  HOST_USO: [['CSUM']],
  HOST_UDP_TUNNEL_GSO: [['HOST_TSO4'], ['HOST_TSO6'], ['HOST_USO']],
  HOST_UDP_TUNNEL_GSO_CSUM: [['HOST_UDP_TUNNEL_GSO']],
  CTRL_RX: [['CTRL_VQ']],
  CTRL_VLAN: [['CTRL_VQ']],
  CTRL_RX_EXTRA: [['CTRL_VQ']],
  CTRL_GUEST_OFFLOADS: [['CTRL_VQ']],
  GUEST_ANNOUNCE: [['CTRL_VQ'], ['STATUS']],
  MQ: [['CTRL_VQ']],
  CTRL_MAC_ADDR: [['CTRL_VQ']],
  NOTF_COAL: [['CTRL_VQ']],
  VQ_NOTF_COAL: [['CTRL_VQ']],
  RSC_EXT: [
    ['HOST_TSO4', 'HOST_TSO6'],
    ['GUEST_TSO4', 'GUEST_TSO6'],
  ],
  RSS: [['CTRL_VQ']],
  HASH_REPORT: [['CTRL_VQ']],
  HASH_TUNNEL: [['CTRL_VQ'], ['RSS', 'HASH_REPORT']],
  DEVICE_STATS: [['CTRL_VQ']],
  RSS_CONTEXT: [['CTRL_VQ'], ['RSS']],
};

/** The features for several pairs of queues. */
const SEVERAL_PAIRS = ['MQ', 'RSS'] as const satisfies readonly NetFeatureName[];

/** Whether there may be several pairs of queues. */
export function hasSeveralPairs(features: NetFeatureSet): boolean {
  return SEVERAL_PAIRS.some((name) => features.has(name));
}

/** The features without those for several pairs, and without what requires them. */
export function withOnePair(features: NetFeatureSet): NetFeatureSet {
  return withRequirements(NetFeatures.fromBits(features.bits & ~NetFeatures.set(...SEVERAL_PAIRS).bits));
}

/**
 * The largest subset in which every feature has the features that it requires.
 *
 * @see VIRTIO 1.4, 2.2.1 and 5.1.3.1
 */
export function withRequirements(features: NetFeatureSet): NetFeatureSet {
  let { bits } = features;
  for (let before = -1n; before !== bits;) {
    before = bits;
    for (const [name, all] of Object.entries(REQUIREMENTS)) {
      if (!all.every((any) => (bits & NetFeatures.set(...any).bits) !== 0n)) {
        bits &= ~NetFeatures.mask(name as NetFeatureName);
      }
    }
  }
  return NetFeatures.fromBits(bits);
}

/** The offloads that make packets larger than those on the wire. */
const LARGE = ['GUEST_TSO4', 'GUEST_TSO6', 'GUEST_UFO', 'GUEST_USO4', 'GUEST_USO6'] as const;

/** Whether the device may deliver packets that are larger than those on the wire. */
export function takesLarge(features: NetFeatureSet): boolean {
  return LARGE.some((name) => features.has(name));
}

/** The options of a driver that decide about its features. */
interface WantedOptions {
  readonly receiveOffloads?: boolean | readonly ReceiveOffload[];
  readonly threadPairs?: { readonly count: number };
}

/**
 * The names of the features to be accepted.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` for receive offloads that there are not
 */
export function wantedFeatures(
  transport: Transport,
  options: WantedOptions,
  extra: readonly NetFeatureName[],
): NetFeatureName[] {
  const { receiveOffloads = false } = options;
  if (typeof receiveOffloads !== 'boolean' && !Array.isArray(receiveOffloads)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: receiveOffloads is ${String(receiveOffloads)}; give a boolean, or an array of names of features`,
    );
  }
  const offloads: readonly ReceiveOffload[] =
    typeof receiveOffloads === 'boolean' ? (receiveOffloads ? RECEIVE_OFFLOADS : []) : receiveOffloads;
  const strange = offloads.find((name) => !RECEIVE_OFFLOADS.includes(name));
  if (strange !== undefined) {
    throw new VirtioError(
      'INVALID_PARAM',
      `there is no receive offload '${strange}'; use some of ${RECEIVE_OFFLOADS.join(', ')}`,
    );
  }
  // Only large packets have segments to report.
  const both: readonly NetFeatureName[] = offloads.length > 0 ? ['RSC_EXT', 'CTRL_GUEST_OFFLOADS'] : [];
  const all: readonly NetFeatureName[] = [...BASE_FEATURES, ...extra, ...offloads, ...both];
  const none: readonly string[] = (options.threadPairs?.count ?? 0) > 0 ? ['HASH_REPORT'] : [];
  return all.filter((name) => !none.includes(name));
}
