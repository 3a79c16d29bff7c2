/** Remarks on deviations from the specification that the registers of a device show. */
import { CommonFeatures, Feature, type FeatureTable, type Transport } from '@virtio/core';
import { unnamed } from './bits.ts';

/** A remark on a device. */
export interface Remark {
  /** `error`: the specification forbids it; `warning`: it advises against it; `info`: useful to know. */
  readonly level: 'error' | 'warning' | 'info';
  /** The section of the specification. */
  readonly section: string;
  readonly text: string;
}

/** The registers of a device, as read before a driver used it. */
export interface Observed {
  readonly offered: bigint;
  /** The offered features, read a second time. */
  readonly again: bigint;
  /** The status after the reset. */
  readonly status: number;
  /** The largest sizes of its queues. */
  readonly queues: readonly number[];
  readonly legacy: boolean;
}

/** Features that need others, by device [5.1.3.1, 5.2.3.1, 5.7.3, …]; if there are several, any one of them. */
const NEEDS: Readonly<Record<string, readonly string[]>> = {
  GUEST_TSO4: ['GUEST_CSUM'],
  GUEST_TSO6: ['GUEST_CSUM'],
  GUEST_ECN: ['GUEST_TSO4', 'GUEST_TSO6'],
  GUEST_UFO: ['GUEST_CSUM'],
  GUEST_USO4: ['GUEST_CSUM'],
  GUEST_USO6: ['GUEST_CSUM'],
  HOST_TSO4: ['CSUM'],
  HOST_TSO6: ['CSUM'],
  HOST_ECN: ['HOST_TSO4', 'HOST_TSO6'],
  HOST_UFO: ['CSUM'],
  HOST_USO: ['CSUM'],
  CTRL_RX: ['CTRL_VQ'],
  CTRL_VLAN: ['CTRL_VQ'],
  GUEST_ANNOUNCE: ['CTRL_VQ'],
  CTRL_MAC_ADDR: ['CTRL_VQ'],
  RSC_EXT: ['HOST_TSO4', 'HOST_TSO6'],
  RSS: ['CTRL_VQ'],
  VQ_NOTF_COAL: ['CTRL_VQ'],
  NOTF_COAL: ['CTRL_VQ'],
  HASH_TUNNEL: ['CTRL_VQ'],
  CONTEXT_INIT: ['VIRGL'],
};

/** Features of the legacy interface only. */
const LEGACY_ONLY = ['NOTIFY_ON_EMPTY', 'ANY_LAYOUT', 'UNUSED'] as const;

/** The remarks on the registers of a device. */
export function remarksOn(table: FeatureTable<string>, seen: Observed): Remark[] {
  const { offered, again, status, queues, legacy } = seen;
  const remarks: Remark[] = [];
  const add = (level: Remark['level'], section: string, text: string): void => {
    remarks.push({ level, section, text });
  };
  const has = (name: string): boolean => (offered & table.mask(name)) !== 0n;

  if (status !== 0) {
    add('error', '2.1.2', `the status is 0x${status.toString(16)} after a reset; it must be 0`);
  }
  if (offered !== again) {
    const changed = table.fromBits(offered ^ again).toString();
    add('error', '2.2.1', `the features changed between two reads without a reset: ${changed}`);
  }
  if (!has('VERSION_1')) {
    if (legacy) {
      add('info', '1.3.1', 'a legacy device: it does not offer VERSION_1, and has at most 32 feature bits');
    } else {
      add('error', '6.2', 'a device that is not legacy must offer VERSION_1');
    }
  } else {
    for (const name of LEGACY_ONLY) {
      if (has(name)) {
        add('warning', '6.3', `${name} (bit ${Feature[name]}) belongs to the legacy interface only`);
      }
    }
  }
  for (const [name, needed] of Object.entries(NEEDS)) {
    if (table.mask(name) !== 0n && has(name) && !needed.some((other) => has(other))) {
      add('error', '2.2.2', `it offers ${name}, but not ${needed.join(' or ')}, which ${name} needs`);
    }
  }
  const unknown = unnamed(table, offered);
  if (unknown.length > 0) {
    add('info', '2.2', `bits ${unknown.join(', ')} have no name in VIRTIO 1.4`);
  }
  if (queues.length === 0) add('error', '2.5', 'it has no queue at all');
  for (const [index, size] of queues.entries()) {
    if (size > 32768) add('error', '2.7', `queue ${index} has ${size} descriptors; the maximum is 32768`);
    const split = (size & (size - 1)) !== 0 && (offered & CommonFeatures.mask('RING_PACKED')) === 0n;
    if (split) add('error', '2.7', `queue ${index} has ${size} descriptors, which is not a power of two`);
  }
  return remarks;
}

/** Reads the configuration space in all widths, twice, and compares. */
export function remarksOnConfig(transport: Transport): Remark[] {
  const { configSize } = transport;
  const size = Math.min(configSize, 256) & ~3;
  const remarks: Remark[] = [];
  const before = transport.readConfigGeneration();
  for (let offset = 0; offset < size; offset += 4) {
    const word = transport.readConfig(offset, 4);
    // Bytes beyond the device's own fields often read as ones, and the space may end within a word.
    if (word === 0xffffffff) continue;
    const halves = transport.readConfig(offset, 2) + transport.readConfig(offset + 2, 2) * 65536;
    const bytes = [0, 1, 2, 3].reduce((sum, at) => sum + transport.readConfig(offset + at, 1) * 256 ** at, 0);
    const again = transport.readConfig(offset, 4);
    if (transport.readConfigGeneration() !== before) {
      remarks.push({
        level: 'info',
        section: '2.5.1',
        text: 'the configuration changed while it was read',
      });
      break;
    }
    if (word !== again) {
      const text = `the configuration at ${offset} changed without a new generation`;
      remarks.push({ level: 'error', section: '2.5.2', text });
    } else if (word !== halves || word !== bytes) {
      const text = `the configuration at ${offset} has other values when read by 1, 2 and 4 bytes`;
      remarks.push({ level: 'warning', section: '2.5.1', text });
    }
  }
  return remarks;
}
