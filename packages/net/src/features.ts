/**
 * The feature bits of network devices, and which of them need which: a driver may not accept a feature whose requirement it does
 * not accept, whatever the device offers.
 */
import { type FeatureSet, FeatureTable } from '@virtio/core';

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
  /** The receive offloads can be switched while the device is live. */
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
  /** `status` tells of the link. */
  STATUS: 16,
  /** There is a control queue. */
  CTRL_VQ: 17,
  /** What is received can be filtered. */
  CTRL_RX: 18,
  /** VLANs can be filtered: all tagged packets are, until they are added. */
  CTRL_VLAN: 19,
  /** There are more filters than those of `CTRL_RX`. */
  CTRL_RX_EXTRA: 20,
  /** The device may ask the driver to announce itself. */
  GUEST_ANNOUNCE: 21,
  /** There are several pairs of queues, and the device chooses where a flow is received. */
  MQ: 22,
  /** The MAC address can be set through the control queue. */
  CTRL_MAC_ADDR: 23,
  /** Legacy: a kind of RSC for one driver of another system. Not accepted. */
  GUEST_RSC4: 41,
  /** Legacy: the same for IPv6. Not accepted. */
  GUEST_RSC6: 42,
  /** The device has statistics. */
  DEVICE_STATS: 50,
  /** The hash can be that of the inner header of tunnels. */
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
  /** The driver chooses by a hash where a flow is received. */
  RSS: 60,
  /** Coalesced packets tell of how many segments and duplicate ACKs they were made. */
  RSC_EXT: 61,
  /** The device stands by for a primary one with the same address. Not accepted: there is no such pair here. */
  STANDBY: 62,
  /** `speed` and `duplex` tell of the link. */
  SPEED_DUPLEX: 63,
  /** There are further sets of RSS parameters, for flow filters. Not accepted: there are no flow filters here. */
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

/** What the drivers of this package implement, receive offloads and mergeable buffers apart. */
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
 * What each feature needs: of each of the lists at least one.
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

/**
 * The largest part of a set in which no feature lacks what it needs.
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
