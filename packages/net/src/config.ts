/**
 * The configuration space of a network device. Which fields are read depends on the features. A value that makes no sense is not used:
 * an address that no station can have, an MTU below that of IP.
 */
import type { Transport } from '@virtio/core';
import type { NetFeatureSet } from './features.ts';
import { isStation, formatMac } from './mac.ts';
import {
  DEFAULT_MTU,
  HashType,
  MTU_MIN,
  NetConfigLayout,
  NetStatus,
  QUEUE_PAIRS,
  TunnelType,
} from './protocol.ts';

const { fields } = NetConfigLayout;

/** The state of the link. */
export interface LinkState {
  /** Whether the link is up; true if the device does not report it. */
  readonly up: boolean;
  /** The speed in Mbit/s, or `undefined` if unknown. */
  readonly speed: number | undefined;
  readonly duplex: 'half' | 'full' | undefined;
}

/** The device's limits for hashes of packets. All zero without `RSS` and `HASH_REPORT`. */
export interface HashLimits {
  /** The length of the longest key, in bytes. */
  readonly maxKeySize: number;
  /** The length of the longest indirection table, in entries; 0 without `RSS`. */
  readonly maxIndirectionTableLength: number;
  /** The supported hash types: bits of `HashType`. */
  readonly hashTypes: number;
  /** The supported tunnels: bits of `TunnelType`; 0 without `HASH_TUNNEL`. */
  readonly tunnelTypes: number;
}

const bitsOf = (table: Readonly<Record<string, number>>): number =>
  Object.values(table).reduce((sum, bit) => sum | bit, 0);

const HASH_TYPES = bitsOf(HashType);
const TUNNEL_TYPES = bitsOf(TunnelType);

/** Reads the configuration space of one device. */
export class NetConfig {
  readonly #transport: Transport;
  readonly #features: NetFeatureSet;
  readonly #quirk: (message: string) => void;

  /** @param quirk is called for each value that makes no sense */
  constructor(transport: Transport, features: NetFeatureSet, quirk: (message: string) => void) {
    this.#transport = transport;
    this.#features = features;
    this.#quirk = quirk;
  }

  /** The device's address, or `undefined` without the feature, or if no station can have it. */
  readMac(): Uint8Array<ArrayBuffer> | undefined {
    if (!this.#features.has('MAC')) return undefined;
    const mac = Uint8Array.from(this.#transport.readConfigSpace(fields.mac));
    if (isStation(mac)) return mac;
    this.#quirk(`its MAC address is ${formatMac(mac)}, which no station can have; a random one is used`);
    return undefined;
  }

  /** The largest MTU; without the feature, that of Ethernet. */
  readMtu(): number {
    if (!this.#features.has('MTU')) return DEFAULT_MTU;
    const mtu = this.#transport.readConfigSpace(fields.mtu);
    if (mtu >= MTU_MIN) return mtu;
    this.#quirk(`its MTU is ${mtu}, below ${MTU_MIN} [5.1.4.1]; ${DEFAULT_MTU} is used`);
    return DEFAULT_MTU;
  }

  /** The bits of `status`. Without the feature, the link is up. */
  readStatus(): number {
    return this.#features.has('STATUS') ? this.#transport.readConfigSpace(fields.status) : NetStatus.LINK_UP;
  }

  /** The state of the link. */
  readLink(status: number): LinkState {
    const up = (status & NetStatus.LINK_UP) !== 0;
    if (!this.#features.has('SPEED_DUPLEX')) return { up, speed: undefined, duplex: undefined };
    const speed = this.#transport.readConfigSpace(fields.speed);
    const duplex = this.#transport.readConfigSpace(fields.duplex);
    return {
      up,
      speed: speed > 0x7fffffff ? undefined : speed,
      // 5.1.4: 1 is full. (The device's requirements in 5.1.4.1 have it the other way round; devices go by 5.1.4.)
      duplex: duplex === 1 ? 'full' : duplex === 0 ? 'half' : undefined,
    };
  }

  /**
   * How many pairs of queues the device can use.
   *
   * @param several whether it offers `MQ` or `RSS`
   */
  readMaxQueuePairs(several: boolean): number {
    if (!several) return 1;
    const pairs = this.#transport.readConfigSpace(fields.maxVirtqueuePairs);
    if (pairs >= QUEUE_PAIRS.MIN && pairs <= QUEUE_PAIRS.MAX) return pairs;
    this.#quirk(`it reports ${pairs} pairs of queues, which is not possible; one is used [5.1.4.1]`);
    return 1;
  }

  /** The limits for hashes. */
  readHashLimits(): HashLimits {
    const rss = this.#features.has('RSS');
    if (!rss && !this.#features.has('HASH_REPORT')) {
      return { maxKeySize: 0, maxIndirectionTableLength: 0, hashTypes: 0, tunnelTypes: 0 };
    }
    const read = (field: keyof typeof fields): number =>
      Number(this.#transport.readConfigSpace(fields[field]));
    return {
      maxKeySize: read('rssMaxKeySize'),
      maxIndirectionTableLength: rss ? read('rssMaxIndirectionTableLength') : 0,
      hashTypes: read('supportedHashTypes') & HASH_TYPES,
      // 5.1.9.4.4.5: bits that are not documented are ignored.
      tunnelTypes: this.#features.has('HASH_TUNNEL') ? read('supportedTunnelTypes') & TUNNEL_TYPES : 0,
    };
  }
}
