/**
 * Sets of named bits. They print by name, and bits without a name are printed too, since an unexpected bit is often what one
 * looks for when debugging a device.
 */

const INSPECT = Symbol.for('nodejs.util.inspect.custom');

/** Prints `bits` as `label(NAME | NAME | 0x20)`, unknown bits last in hexadecimal, `label(0)` if there are none. */
export function formatFlags(label: string, names: ReadonlyMap<bigint, string>, bits: bigint): string {
  const parts: string[] = [];
  let rest = bits;
  for (const [mask, name] of names) {
    if ((bits & mask) === mask) {
      parts.push(name);
      rest &= ~mask;
    }
  }
  if (rest !== 0n) parts.push(`0x${rest.toString(16)}`);
  return `${label}(${parts.length === 0 ? '0' : parts.join(' | ')})`;
}

/** A set of named bits, at most 32 of them. Immutable. */
export abstract class Flags {
  /** The bits as a number; those without a name are kept. */
  readonly bits: number;

  protected constructor(bits: number) {
    this.bits = bits >>> 0;
  }

  /** Whether all bits of `mask` are set. */
  has(mask: number): boolean {
    return (this.bits & mask) >>> 0 === mask >>> 0;
  }

  /** The bits by name: `DeviceStatus(ACKNOWLEDGE | DRIVER | 0x20)`. */
  abstract toString(): string;

  /** The same as {@link Flags.toString}, for Node.js's `console.log`. */
  [INSPECT](): string {
    return this.toString();
  }
}

/**
 * Turns a table of masks, or the static masks of a class, into the map that {@link formatFlags} takes. A class has its masks as plain
 * numbers and is asked only when it prints: so bundlers can drop one that a program does not use.
 */
export function flagNames(table: object): ReadonlyMap<bigint, string> {
  const masks = Object.entries(table as Readonly<Record<string, number | bigint>>);
  return new Map(masks.map(([name, mask]) => [BigInt(mask), name]));
}
