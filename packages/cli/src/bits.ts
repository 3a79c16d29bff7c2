/** Feature bits by name, and those without a name. */
import type { FeatureTable } from '@virtio/core';

/** The numbers of the bits that are set, ascending. */
export function bitNumbers(bits: bigint): number[] {
  const numbers: number[] = [];
  for (let bit = 0; bits >> BigInt(bit) !== 0n; bit += 1) {
    if (((bits >> BigInt(bit)) & 1n) === 1n) numbers.push(bit);
  }
  return numbers;
}

/** The bits without a name in a table. */
export function unnamed(table: FeatureTable<string>, bits: bigint): number[] {
  return bitNumbers(bits & ~table.set(...table.names(bits)).bits);
}

/** Bits by name, those without one by number. */
export function bitNames(table: FeatureTable<string>, bits: bigint): string[] {
  return [...table.names(bits), ...unnamed(table, bits).map((bit) => `bit ${bit}`)];
}
