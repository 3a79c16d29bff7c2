/**
 * Wire structures and configuration spaces, each declared once as a table of fields. Offsets follow from the order and
 * the sizes, as all structures of the specification are packed and little-endian.
 *
 * Hot paths use the offsets of the table with a `DataView` of their own and allocate nothing; all else uses `read` and
 * `write`.
 */
import { VirtioError } from '../errors.ts';
import { show } from '../show.ts';

/** The type of a field: an unsigned integer, a signed one, or a number of bytes. */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'i32' | `bytes${number}`;

/** The value of a field: 64-bit integers are `bigint`, bytes a `Uint8Array`, all others numbers. */
export type FieldValue<T extends FieldType> = T extends 'u64'
  ? bigint
  : T extends `bytes${number}`
    ? Uint8Array
    : number;

/** What a driver may do with a field of a configuration space. */
export type FieldAccess = 'read-write' | 'read-only' | 'write-only';

/** The declaration of a field: its type, followed by a space and `read-only` or `write-only` if it is that. */
export type FieldDeclaration = FieldType | `${FieldType} ${Exclude<FieldAccess, 'read-write'>}`;

/** The type in a declaration. */
export type FieldTypeOf<D extends FieldDeclaration> = D extends `${infer T extends FieldType} ${FieldAccess}`
  ? T
  : Extract<D, FieldType>;

/** What a driver may do with a field of this declaration. */
export type FieldAccessOf<D extends FieldDeclaration> =
  D extends `${FieldType} ${infer A extends FieldAccess}` ? A : 'read-write';

/** A field and its place in the structure. */
export interface Field<T extends FieldType = FieldType, A extends FieldAccess = FieldAccess> {
  /** Its name in the table. */
  readonly name: string;
  /** What a driver may do with it in a configuration space. */
  readonly access: A;
  /** The type of its value. */
  readonly type: T;
  /** The offset in bytes from the start of the structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** A field that a driver may read from a configuration space. */
export type ReadableField<T extends FieldType = FieldType> = Field<T, 'read-write' | 'read-only'>;

/** A field that a driver may write to a configuration space. */
export type WritableField<T extends FieldType = FieldType> = Field<T, 'read-write' | 'write-only'>;

/** The table that a structure is declared with: field to declaration, in the order of the specification. */
export type FieldTable = Readonly<Record<string, FieldDeclaration>>;

/** The values of a structure. */
export type Values<T extends FieldTable> = { -readonly [K in keyof T]: FieldValue<FieldTypeOf<T[K]>> };

/** The values of a configuration space that a driver may read. */
export type ReadableValues<T extends FieldTable> = {
  -readonly [K in keyof T as FieldAccessOf<T[K]> extends 'write-only' ? never : K]: FieldValue<
    FieldTypeOf<T[K]>
  >;
};

const SIZES: Readonly<Record<string, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, i32: 4 };

function sizeOf(type: FieldType): number {
  return SIZES[type] ?? Number(type.slice('bytes'.length));
}

/**
 * The layout of a structure in memory, or of a configuration space. The access of a field applies to configuration spaces:
 * `Transport` neither reads a write-only field nor writes a read-only one, and TypeScript refuses it. In memory, where tests also
 * act as the device, all fields can be read and written.
 *
 * @example
 * ```ts
 * import { Layout } from '@virtio/core';
 *
 * // VIRTIO 1.4, 5.2.6
 * const BlkRequest = new Layout('virtio_blk_req', { type: 'u32', reserved: 'u32', sector: 'u64' });
 * const view = new DataView(new ArrayBuffer(BlkRequest.size));
 * BlkRequest.write(view, 0, { type: 1, sector: 8n });
 * view.getUint32(BlkRequest.offset.type, true); // 1
 * ```
 */
export class Layout<T extends FieldTable> {
  /** The name in the specification. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** The fields by name. */
  readonly fields: { readonly [K in keyof T]: Field<FieldTypeOf<T[K]>, FieldAccessOf<T[K]>> };
  /** The offsets of the fields in bytes, for hot paths. */
  readonly offset: { readonly [K in keyof T]: number };

  constructor(name: string, table: T) {
    this.name = name;
    const fields: Record<string, Field> = {};
    const offsets: Record<string, number> = {};
    let offset = 0;
    for (const [field, declaration] of Object.entries(table)) {
      const [type, access = 'read-write'] = declaration.split(' ') as [FieldType, FieldAccess?];
      const size = sizeOf(type);
      fields[field] = { name: `${name}.${field}`, access, type, offset, size };
      offsets[field] = offset;
      offset += size;
    }
    this.size = offset;
    this.fields = fields as typeof this.fields;
    this.offset = offsets as typeof this.offset;
  }

  /**
   * Reads all fields. Bytes are copied.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the structure does not fit the view
   */
  read(view: DataView, at = 0): Values<T> {
    this.#check(view, at);
    const values: Record<string, unknown> = {};
    for (const key of Object.keys(this.fields)) values[key] = readField(view, at, this.fields[key] as Field);
    return values as Values<T>;
  }

  /**
   * Writes the given fields, and zero to all others.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the structure does not fit the view, or a field cannot hold its value
   */
  write(view: DataView, at: number, values: Partial<Values<T>>): void {
    this.#check(view, at);
    new Uint8Array(view.buffer, view.byteOffset + at, this.size).fill(0);
    for (const [key, value] of Object.entries<unknown>(values)) {
      if (value !== undefined) {
        writeField(view, at, this.fields[key] as Field, value as number | bigint | Uint8Array);
      }
    }
  }

  #check(view: DataView, at: number): void {
    if (!(at >= 0 && at + this.size <= view.byteLength)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.name} takes ${this.size} bytes; at ${at} it does not fit ${view.byteLength} bytes`,
      );
    }
  }
}

function readField(view: DataView, at: number, { type, offset, size }: Field): number | bigint | Uint8Array {
  const position = at + offset;
  switch (type) {
    case 'u8':
      return view.getUint8(position);
    case 'u16':
      return view.getUint16(position, true);
    case 'u32':
      return view.getUint32(position, true);
    case 'i32':
      return view.getInt32(position, true);
    case 'u64':
      return view.getBigUint64(position, true);
    default:
      return new Uint8Array(view.buffer, view.byteOffset + position, size).slice();
  }
}

function writeField(view: DataView, at: number, field: Field, value: number | bigint | Uint8Array): void {
  requireFieldValue(field, value);
  const { type, offset, size } = field;
  const position = at + offset;
  switch (type) {
    case 'u8':
      view.setUint8(position, Number(value));
      return;
    case 'u16':
      view.setUint16(position, Number(value), true);
      return;
    case 'u32':
      view.setUint32(position, Number(value), true);
      return;
    case 'i32':
      view.setInt32(position, Number(value), true);
      return;
    case 'u64':
      view.setBigUint64(position, BigInt(value as number | bigint), true);
      return;
    default:
      new Uint8Array(view.buffer, view.byteOffset + position, size).set(value as Uint8Array);
  }
}

/**
 * Refuses a value that a field cannot hold. Fewer bytes than the field has are accepted.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireFieldValue({ name, type, size }: Field, value: unknown): void {
  if (type.startsWith('bytes')) {
    if (value instanceof Uint8Array && value.length <= size) return;
    const given = value instanceof Uint8Array ? `has ${value.length} bytes` : `is ${show(value)}`;
    throw new VirtioError('INVALID_PARAM', `${name} ${given}; give a Uint8Array of at most ${size} bytes`);
  }
  const signed = type === 'i32';
  const end = 2 ** (8 * size - (signed ? 1 : 0));
  const integer = typeof value === 'bigint' || Number.isInteger(value);
  if (integer && (value as number) >= (signed ? -end : 0) && (value as number) < end) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${name} is ${show(value)}; give ${signed ? 'a signed' : 'an unsigned'} integer of ${8 * size} bits`,
  );
}
