/** Converts the values of control elements, and metadata, to and from bytes. */
import { type Named, requireBytes, requireInteger, VirtioError } from '@virtio/core';
import type { ControlInfo } from './info.ts';
import { CONTROL_VALUE_SIZE, Iec958Layout, TLV_MAX_SIZE, TlvHeader } from './protocol.ts';

/** The value of an element of type IEC958. */
export interface Iec958Value {
  /** 24 bytes of channel status. */
  readonly status: Uint8Array;
  /** 147 bytes of subcode. */
  readonly subcode: Uint8Array;
  /** 4 bytes of subframe. */
  readonly digSubframe: Uint8Array;
}

/**
 * The values of a control element, as many as its `count`: numbers for the types BOOLEAN (0 or 1), INTEGER and ENUMERATED (the number of the
 * item), bigints for INTEGER64, bytes for BYTES, and the parts of an IEC958 value.
 */
export type ControlValue = readonly number[] | readonly bigint[] | Uint8Array | Iec958Value;

/**
 * Metadata of a control element: a type and 4-byte words. ALSA defines types, such as ranges in decibels.
 *
 * @see VIRTIO 1.4, 5.14.6.10.3
 */
export interface ControlMetadata {
  readonly type: number;
  readonly value: Uint32Array;
}

/** Parses a value that the device wrote. */
export function readValue({ type, count, range, range64 }: ControlInfo, view: DataView): ControlValue {
  const list = <T>(read: (index: number) => T): T[] =>
    Array.from({ length: count }, (_, index) => read(index));
  switch (type) {
    case 'INTEGER':
      return (range?.max ?? 0) > 0x7fff_ffff
        ? list((index) => view.getUint32(4 * index, true))
        : list((index) => view.getInt32(4 * index, true));
    case 'INTEGER64':
      return (range64?.max ?? 0n) > 0x7fff_ffff_ffff_ffffn
        ? list((index) => view.getBigUint64(8 * index, true))
        : list((index) => view.getBigInt64(8 * index, true));
    case 'BOOLEAN':
    case 'ENUMERATED':
      return list((index) => view.getUint32(4 * index, true));
    case 'BYTES':
      return new Uint8Array(view.buffer, view.byteOffset, count).slice();
    case 'IEC958': {
      const { status, subcode, digSubframe } = Iec958Layout.read(view);
      return { status, subcode, digSubframe };
    }
  }
}

/**
 * Encodes a value for the device.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if the element cannot have this value
 */
export function writeValue(who: Named, info: ControlInfo, value: ControlValue): Uint8Array {
  const bytes = new Uint8Array(CONTROL_VALUE_SIZE);
  const view = new DataView(bytes.buffer);
  const name = `a value of control element ${info.id}`;
  switch (info.type) {
    case 'BYTES':
      requireBytes(who, value);
      requireInteger(who, `the length of ${name}`, value.length, info.count, info.count);
      bytes.set(value);
      return bytes;
    case 'IEC958': {
      const parts = value as Partial<Iec958Value> | undefined;
      requireBytes(who, parts?.status);
      requireBytes(who, parts.subcode);
      requireBytes(who, parts.digSubframe);
      const { status, subcode, digSubframe } = parts;
      Iec958Layout.write(view, 0, { status, subcode, digSubframe });
      return bytes;
    }
    default:
      break;
  }
  const values: unknown = value;
  if (!Array.isArray(values)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${whoOf(who)}: ${name} must be set by an array; give its ${info.count} values`,
    );
  }
  requireInteger(
    who,
    `the number of values of control element ${info.id}`,
    values.length,
    info.count,
    info.count,
  );
  if (info.type === 'INTEGER64') {
    const { min, max } = info.range64 ?? { min: 0n, max: 0n };
    values.forEach((each: unknown, index) => {
      if (typeof each !== 'bigint' || each < min || each > max) {
        throw new VirtioError(
          'INVALID_PARAM',
          `${whoOf(who)}: ${name} must be a bigint from ${min} to ${max}, not ${String(each)}`,
        );
      }
      view.setBigInt64(8 * index, each, true);
    });
    return bytes;
  }
  const { min, max } = info.range ?? { min: 0, max: Math.max(0, (info.items ?? 0) - 1) };
  values.forEach((each: unknown, index) =>
    view.setUint32(4 * index, requireInteger(who, name, each, min, max), true),
  );
  return bytes;
}

/** Parses metadata: as many whole words as the device wrote, and at most as many as it announces. */
export function readMetadata(view: DataView): ControlMetadata {
  const { type, length } = TlvHeader.read(view);
  const words = Math.min(length, view.byteLength - TlvHeader.size) >>> 2;
  return {
    type,
    value: Uint32Array.from({ length: words }, (_, word) => view.getUint32(TlvHeader.size + 4 * word, true)),
  };
}

/**
 * Encodes metadata for the device.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function writeMetadata(who: Named, { type, value }: ControlMetadata): Uint8Array {
  requireInteger(who, 'the type of metadata', type, 0, 0xffff_ffff);
  if (!(value instanceof Uint32Array)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${whoOf(who)}: the value of metadata must be a Uint32Array of words`,
    );
  }
  const bytes = new Uint8Array(TlvHeader.size + 4 * value.length);
  const view = new DataView(bytes.buffer);
  // 5.14.6.10.3.2: no more than 65536 bytes.
  TlvHeader.write(view, 0, {
    type,
    length: requireInteger(who, 'the size of metadata in bytes', 4 * value.length, 0, TLV_MAX_SIZE),
  });
  value.forEach((word, index) => view.setUint32(TlvHeader.size + 4 * index, word, true));
  return bytes;
}

const whoOf = (who: Named): string => (typeof who === 'string' ? who : who.who());
