/**
 * Control commands as values: each has its class and number, the features that it needs, the layout of its data and the meaning of the
 * device's answer. The driver sends them in any of its three forms; a new command is one more function here.
 */
import { requireInteger, VirtioError } from '@virtio/core';
import {
  type NetFeatureName,
  type NetFeatureSet,
  RECEIVE_OFFLOADS,
  type ReceiveOffload,
} from './features.ts';
import { NetFeature } from './features.ts';
import type { HashLimits } from './config.ts';
import { isMulticast, isStation, parseMac } from './mac.ts';
import {
  AnnounceCommand,
  CoalesceCommand,
  CoalesceLayout,
  ControlClass,
  HashConfigLayout,
  HashTunnelCommand,
  HashType,
  MAC_SIZE,
  MacCommand,
  MqCommand,
  OffloadsCommand,
  QueueCoalesceLayout,
  RssConfigLayout,
  RssTailLayout,
  RxCommand,
  TunnelType,
  VlanCommand,
} from './protocol.ts';

/** What a command reads of the device, and what it changes in the driver. */
export interface ControlTarget {
  readonly features: NetFeatureSet;
  readonly maxQueuePairs: number;
  /** The pairs of queues that the driver has set up. */
  readonly queuePairs: number;
  /** The pairs that packets may be sent on. */
  activePairs: number;
  /** The pairs that packets are received on. */
  receivingPairs: number;
  /** The last command that was sent for the pairs in use: only its answer counts, as tokens are completed in any order. */
  steering: object | undefined;
  readonly hashLimits: HashLimits;
  /** The device's current address. */
  macAddress: Uint8Array;
  /** The kinds of statistics that the device has, as bits; `undefined` before `NetStats.query` was answered. */
  statsTypes: bigint | undefined;
}

/** A command for the control queue. @see VIRTIO 1.4, 5.1.9.5 */
export interface NetCommand<T = void> {
  /** Its name in the specification, without `VIRTIO_NET_CTRL_`. */
  readonly name: string;
  readonly class: number;
  readonly command: number;
  /** All features that it needs. */
  readonly features: readonly NetFeatureName[];
  /**
   * Makes the command's data: one piece, or the pieces that need their own descriptors on some devices [5.1.9.8].
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED`
   */
  data(target: ControlTarget): Uint8Array | readonly Uint8Array[];
  /** Called when the device is about to see the command. */
  sent?(target: ControlTarget): void;
  /** The largest size of its result in bytes, which follows the device's `ack`; 0 for most commands. */
  resultSize?(target: ControlTarget): number;
  /** Makes the command's value from the answer to a command that succeeded. @param result the bytes that the device wrote */
  value(result: Uint8Array, target: ControlTarget): T;
}

/** A receive or transmit queue. */
export interface PacketQueue {
  /** The pair that it belongs to, from 0. */
  readonly pair: number;
  readonly direction: 'receive' | 'transmit';
}

/** When the device sends a notification: after `maxPackets` packets, or `maxUsecs` after the first of them. 0 means at once. */
export interface Coalescing {
  readonly maxPackets: number;
  /** The longest delay, in microseconds. */
  readonly maxUsecs: number;
}

/** The name of a hash type: the fields that a hash covers. */
export type HashTypeName = keyof typeof HashType;
/** The name of a tunnel whose inner header can be hashed. */
export type TunnelTypeName = keyof typeof TunnelType;

/** What is hashed, and with which key. */
export interface HashConfig {
  readonly types: readonly HashTypeName[];
  /** The Toeplitz key; most devices take 40 bytes. */
  readonly key: Uint8Array;
}

/** The parameters of receive-side scaling (RSS): which pair receives a packet, by its hash. */
export interface RssConfig extends HashConfig {
  /** The pair for each value of the hash, modulo the table's length, which is a power of two. */
  readonly indirectionTable: readonly number[];
  /** The pair for packets without a hash (default 0). */
  readonly unclassifiedPair?: number;
  /** The number of pairs that packets may be sent on (default: all that the driver has). */
  readonly transmitPairs?: number;
}

const NOTHING = new Uint8Array(0);

const invalid = (name: string, what: string): VirtioError =>
  new VirtioError('INVALID_PARAM', `${name}: ${what}`);

/** Checks what a command is given as an object. */
export function requireObject(command: string, what: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) throw invalid(command, `${what} must be an object`);
}

/** Checks what a command is given as an array. */
export function requireArray(command: string, what: string, value: unknown): void {
  if (!Array.isArray(value)) throw invalid(command, `${what} must be an array`);
}

/** The index of a queue [5.1.2]. */
export function queueIndex({ pair, direction }: PacketQueue): number {
  return 2 * pair + (direction === 'transmit' ? 1 : 0);
}

/** Checks that the driver has a queue, and returns its index. */
export function requireQueue(command: string, queue: PacketQueue, target: ControlTarget): number {
  requireObject(command, 'the queue', queue);
  const { direction }: { readonly direction: string } = queue;
  if (direction !== 'receive' && direction !== 'transmit') {
    throw invalid(command, `direction must be 'receive' or 'transmit', not '${direction}'`);
  }
  const pairs = direction === 'receive' ? target.receivingPairs : target.activePairs;
  requireInteger(command, 'pair', queue.pair, 0, pairs - 1);
  return queueIndex(queue);
}

/** Bytes of fixed size by a function on a view of them. */
function bytes(size: number, fill: (view: DataView<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(size));
  fill(view);
  return new Uint8Array(view.buffer);
}

/** Puts bytes together. */
export function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The bits of named flags, of which the device must support each. */
function bitsOf<N extends string>(
  command: string,
  table: Readonly<Record<N, number>>,
  names: readonly N[],
  supported: number,
): number {
  requireArray(command, 'the types', names);
  let bits = 0;
  for (const name of names) {
    if (!Object.hasOwn(table, name)) {
      throw invalid(command, `there is no '${name}'; use one of ${Object.keys(table).join(', ')}`);
    }
    if ((table[name] & supported) === 0) {
      throw new VirtioError('UNSUPPORTED', `${command}: the device does not support ${name}`);
    }
    bits |= table[name];
  }
  return bits;
}

function requireKey(command: string, key: Uint8Array, { maxKeySize }: HashLimits): Uint8Array {
  if (!(key instanceof Uint8Array)) throw invalid(command, 'the key must be a Uint8Array');
  requireInteger(command, "the key's length", key.length, 0, maxKeySize);
  return key;
}

function rxMode(name: keyof typeof RxCommand, on: boolean): NetCommand {
  const extra = name !== 'PROMISC' && name !== 'ALLMULTI';
  return {
    name: `RX_${name}`,
    class: ControlClass.RX,
    command: RxCommand[name],
    features: [extra ? 'CTRL_RX_EXTRA' : 'CTRL_RX'],
    data() {
      if (typeof on !== 'boolean') {
        throw invalid(`RX_${name}`, `the value must be true or false, not ${String(on)}`);
      }
      return Uint8Array.of(on ? 1 : 0);
    },
    value: () => undefined,
  };
}

function macList(command: string, list: readonly (string | Uint8Array)[], multicast: boolean): Uint8Array {
  requireArray(command, `the ${multicast ? 'multicast' : 'unicast'} addresses`, list);
  const addresses = list.map((address) => parseMac(address));
  for (const address of addresses) {
    if (isMulticast(address) !== multicast) {
      throw invalid(
        command,
        `a ${multicast ? 'unicast' : 'multicast'} address among the others [5.1.9.5.2.2]`,
      );
    }
  }
  const head = bytes(4, (view) => {
    view.setUint32(0, addresses.length, true);
  });
  return join([head, ...addresses]);
}

function vlan(name: keyof typeof VlanCommand, id: number): NetCommand {
  return {
    name: `VLAN_${name}`,
    class: ControlClass.VLAN,
    command: VlanCommand[name],
    features: ['CTRL_VLAN'],
    data: () =>
      bytes(2, (view) => {
        view.setUint16(0, requireInteger(`VLAN_${name}`, 'a VLAN id', id, 0, 4095), true);
      }),
    value: () => undefined,
  };
}

function coalesce(name: 'TX_SET' | 'RX_SET', coalescing: Coalescing): NetCommand {
  return {
    name: `NOTF_COAL_${name}`,
    class: ControlClass.NOTF_COAL,
    command: CoalesceCommand[name],
    features: ['NOTF_COAL'],
    data: () =>
      bytes(CoalesceLayout.size, (view) => {
        CoalesceLayout.write(view, 0, requireCoalescing(`NOTF_COAL_${name}`, coalescing));
      }),
    value: () => undefined,
  };
}

function requireCoalescing(command: string, coalescing: Coalescing): Coalescing {
  requireObject(command, 'the coalescing', coalescing);
  const { maxPackets, maxUsecs } = coalescing;
  requireInteger(command, 'maxPackets', maxPackets, 0, 0xffffffff);
  requireInteger(command, 'maxUsecs', maxUsecs, 0, 0xffffffff);
  return { maxPackets, maxUsecs };
}

/** The control commands, apart from those for statistics, which are in {@link NetStats}. */
export const NetControl = {
  /** Receives all packets, or only those for the device's address and its MAC table. @see VIRTIO 1.4, 5.1.9.5.1 */
  setPromiscuous: (on: boolean): NetCommand => rxMode('PROMISC', on),
  /** Receives all multicast packets. @see VIRTIO 1.4, 5.1.9.5.1 */
  setAllMulticast: (on: boolean): NetCommand => rxMode('ALLMULTI', on),
  /** Receives all unicast packets. @see VIRTIO 1.4, 5.1.9.5.1 */
  setAllUnicast: (on: boolean): NetCommand => rxMode('ALLUNI', on),
  /** Receives no multicast packets. @see VIRTIO 1.4, 5.1.9.5.1 */
  setNoMulticast: (on: boolean): NetCommand => rxMode('NOMULTI', on),
  /** Receives no unicast packets. @see VIRTIO 1.4, 5.1.9.5.1 */
  setNoUnicast: (on: boolean): NetCommand => rxMode('NOUNI', on),
  /** Receives no broadcast packets. @see VIRTIO 1.4, 5.1.9.5.1 */
  setNoBroadcast: (on: boolean): NetCommand => rxMode('NOBCAST', on),

  /** Replaces the addresses that are received besides the device's own. @see VIRTIO 1.4, 5.1.9.5.2 */
  setMacTable: (table: {
    readonly unicast?: readonly (string | Uint8Array)[];
    readonly multicast?: readonly (string | Uint8Array)[];
  }): NetCommand => ({
    name: 'MAC_TABLE_SET',
    class: ControlClass.MAC,
    command: MacCommand.TABLE_SET,
    features: ['CTRL_RX'],
    data() {
      requireObject('MAC_TABLE_SET', 'the table', table);
      return [
        macList('MAC_TABLE_SET', table.unicast ?? [], false),
        macList('MAC_TABLE_SET', table.multicast ?? [], true),
      ];
    },
    value: () => undefined,
  }),

  /** Changes the device's address. @see VIRTIO 1.4, 5.1.9.5.2 */
  setMacAddress(address: string | Uint8Array): NetCommand {
    let mac: Uint8Array = NOTHING;
    return {
      name: 'MAC_ADDR_SET',
      class: ControlClass.MAC,
      command: MacCommand.ADDR_SET,
      features: ['CTRL_MAC_ADDR', 'CTRL_RX'],
      data() {
        mac = parseMac(address);
        if (!isStation(mac)) throw invalid('MAC_ADDR_SET', 'the address is all zeros or a multicast address');
        return mac;
      },
      value(_result, target) {
        target.macAddress = mac.slice(0, MAC_SIZE);
      },
    };
  },

  /** Receives packets of a VLAN. @see VIRTIO 1.4, 5.1.9.5.3 */
  addVlan: (id: number): NetCommand => vlan('ADD', id),
  /** Stops receiving packets of a VLAN. @see VIRTIO 1.4, 5.1.9.5.3 */
  deleteVlan: (id: number): NetCommand => vlan('DEL', id),

  /** Acknowledges the device's request for an announcement. The driver sends this itself. @see VIRTIO 1.4, 5.1.9.5.4 */
  acknowledgeAnnounce: (): NetCommand => ({
    name: 'ANNOUNCE_ACK',
    class: ControlClass.ANNOUNCE,
    command: AnnounceCommand.ACK,
    features: ['GUEST_ANNOUNCE'],
    data: () => NOTHING,
    value: () => undefined,
  }),

  /** Sets the number of pairs in use; the device chooses the pair on which it delivers a flow. @see VIRTIO 1.4, 5.1.9.5.6 */
  setQueuePairs: (pairs: number): NetCommand => ({
    name: 'MQ_VQ_PAIRS_SET',
    class: ControlClass.MQ,
    command: MqCommand.VQ_PAIRS_SET,
    features: ['MQ'],
    data: ({ queuePairs }) =>
      bytes(2, (view) => {
        // 5.1.9.5.6.1: queues are configured before they are enabled.
        view.setUint16(0, requireInteger('MQ_VQ_PAIRS_SET', 'pairs', pairs, 1, queuePairs), true);
      }),
    sent(target) {
      // 5.1.9.5.6.1: from now on nothing goes to queues beyond.
      target.activePairs = Math.min(target.activePairs, pairs);
      target.receivingPairs = Math.min(target.receivingPairs, pairs);
      target.steering = this;
    },
    value(_result, target) {
      if (target.steering !== this) return;
      target.activePairs = pairs;
      target.receivingPairs = pairs;
    },
  }),

  /** Sets receive-side scaling: the pair on which a packet is received follows from its hash. @see VIRTIO 1.4, 5.1.9.5.7 */
  setRss(config: RssConfig): NetCommand {
    const name = 'MQ_RSS_CONFIG';
    requireObject(name, 'the configuration', config);
    const { indirectionTable: table, unclassifiedPair = 0, transmitPairs: wanted } = config;
    /** How many pairs may receive: up to the last one that was named. */
    let receiving = 1;
    return {
      name,
      class: ControlClass.MQ,
      command: MqCommand.RSS_CONFIG,
      features: ['RSS'],
      data({ hashLimits, queuePairs }) {
        requireArray(name, 'the indirection table', table);
        requireInteger(name, "the table's length", table.length, 1, hashLimits.maxIndirectionTableLength);
        if ((table.length & (table.length - 1)) !== 0) {
          throw invalid(name, `the table's length must be a power of two, not ${table.length} [5.1.9.5.7.2]`);
        }
        const pairs = table.map((pair) =>
          requireInteger(name, 'a pair of the table', pair, 0, queuePairs - 1),
        );
        receiving = 1 + Math.max(unclassifiedPair, ...pairs);
        const transmitPairs = wanted ?? queuePairs;
        const head = bytes(RssConfigLayout.size + 2 * table.length, (view) => {
          RssConfigLayout.write(view, 0, {
            hashTypes: bitsOf(name, HashType, config.types, hashLimits.hashTypes),
            indirectionTableMask: table.length - 1,
            unclassifiedQueue: requireInteger(name, 'unclassifiedPair', unclassifiedPair, 0, queuePairs - 1),
          });
          pairs.forEach((pair, i) => {
            view.setUint16(RssConfigLayout.size + 2 * i, pair, true);
          });
        });
        const key = requireKey(name, config.key, hashLimits);
        const tail = bytes(RssTailLayout.size, (view) => {
          RssTailLayout.write(view, 0, {
            maxTxVq: requireInteger(name, 'transmitPairs', transmitPairs, 1, queuePairs),
            hashKeyLength: key.length,
          });
        });
        return join([head, tail, key]);
      },
      sent(target) {
        target.activePairs = Math.min(target.activePairs, wanted ?? target.queuePairs);
        target.receivingPairs = Math.min(target.receivingPairs, receiving);
        target.steering = this;
      },
      value(_result, target) {
        if (target.steering !== this) return;
        target.activePairs = wanted ?? target.queuePairs;
        target.receivingPairs = receiving;
      },
    };
  },

  /** Sets what is hashed for the hash in the header of received packets. @see VIRTIO 1.4, 5.1.9.5.6.4 */
  setHash: (config: HashConfig): NetCommand => ({
    name: 'MQ_HASH_CONFIG',
    class: ControlClass.MQ,
    command: MqCommand.HASH_CONFIG,
    features: ['HASH_REPORT'],
    data({ hashLimits }) {
      requireObject('MQ_HASH_CONFIG', 'the configuration', config);
      const { types, key } = config;
      const hashTypes = bitsOf('MQ_HASH_CONFIG', HashType, types, hashLimits.hashTypes);
      requireKey('MQ_HASH_CONFIG', key, hashLimits);
      const head = bytes(HashConfigLayout.size, (view) => {
        HashConfigLayout.write(view, 0, { hashTypes, hashKeyLength: key.length });
      });
      return join([head, key]);
    },
    value: () => undefined,
  }),

  /** Sets the tunnels whose inner header is hashed. @see VIRTIO 1.4, 5.1.9.4.4 */
  setHashTunnels: (types: readonly TunnelTypeName[]): NetCommand => ({
    name: 'HASH_TUNNEL_SET',
    class: ControlClass.HASH_TUNNEL,
    command: HashTunnelCommand.SET,
    features: ['HASH_TUNNEL'],
    data: ({ hashLimits }) =>
      bytes(4, (view) => {
        view.setUint32(0, bitsOf('HASH_TUNNEL_SET', TunnelType, types, hashLimits.tunnelTypes), true);
      }),
    value: () => undefined,
  }),

  /** Sets which of the negotiated receive offloads are in use. @see VIRTIO 1.4, 5.1.9.5.9 */
  setReceiveOffloads: (offloads: readonly ReceiveOffload[]): NetCommand => ({
    name: 'GUEST_OFFLOADS_SET',
    class: ControlClass.GUEST_OFFLOADS,
    command: OffloadsCommand.SET,
    features: ['CTRL_GUEST_OFFLOADS'],
    data({ features }) {
      requireArray('GUEST_OFFLOADS_SET', 'the offloads', offloads);
      let mask = 0n;
      for (const offload of offloads) {
        if (!RECEIVE_OFFLOADS.includes(offload)) {
          throw invalid(
            'GUEST_OFFLOADS_SET',
            `there is no '${offload}'; use some of ${RECEIVE_OFFLOADS.join(', ')}`,
          );
        }
        // 5.1.9.5.9.2
        if (!features.has(offload)) {
          throw new VirtioError('UNSUPPORTED', `GUEST_OFFLOADS_SET: ${offload} was not negotiated`);
        }
        mask |= 1n << BigInt(NetFeature[offload]);
      }
      return bytes(8, (view) => {
        view.setBigUint64(0, mask, true);
      });
    },
    value: () => undefined,
  }),

  /** Coalesces notifications of all transmit queues. @see VIRTIO 1.4, 5.1.9.5.10 */
  setTransmitCoalescing: (coalescing: Coalescing): NetCommand => coalesce('TX_SET', coalescing),
  /** Coalesces notifications of all receive queues. @see VIRTIO 1.4, 5.1.9.5.10 */
  setReceiveCoalescing: (coalescing: Coalescing): NetCommand => coalesce('RX_SET', coalescing),

  /** Coalesces notifications of one queue. @see VIRTIO 1.4, 5.1.9.5.10 */
  setQueueCoalescing: (queue: PacketQueue, coalescing: Coalescing): NetCommand => ({
    name: 'NOTF_COAL_VQ_SET',
    class: ControlClass.NOTF_COAL,
    command: CoalesceCommand.VQ_SET,
    features: ['VQ_NOTF_COAL'],
    data: (target) =>
      bytes(QueueCoalesceLayout.size, (view) => {
        QueueCoalesceLayout.write(view, 0, {
          vqIndex: requireQueue('NOTF_COAL_VQ_SET', queue, target),
          ...requireCoalescing('NOTF_COAL_VQ_SET', coalescing),
        });
      }),
    value: () => undefined,
  }),

  /** Asks how notifications of one queue are coalesced. @see VIRTIO 1.4, 5.1.9.5.10 */
  getQueueCoalescing: (queue: PacketQueue): NetCommand<Coalescing> => ({
    name: 'NOTF_COAL_VQ_GET',
    class: ControlClass.NOTF_COAL,
    command: CoalesceCommand.VQ_GET,
    features: ['VQ_NOTF_COAL'],
    // vq_index and reserved are read by the device, the rest is written by it.
    data: (target) =>
      bytes(QueueCoalesceLayout.offset.maxPackets, (view) => {
        view.setUint16(0, requireQueue('NOTF_COAL_VQ_GET', queue, target), true);
      }),
    resultSize: () => CoalesceLayout.size,
    value(result) {
      if (result.length < CoalesceLayout.size) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `NOTF_COAL_VQ_GET: the device answered with ${result.length} bytes instead of ${CoalesceLayout.size}`,
        );
      }
      return CoalesceLayout.read(new DataView(result.buffer, result.byteOffset, result.length));
    },
  }),
} as const;
