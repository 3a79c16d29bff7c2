/** 64-bit registers in two halves of 32 bits, and features in words of 32 bits. */

const TWO_32 = 4294967296;

/** The lower half. */
export function lowHalf(value: number): number {
  return value % TWO_32;
}

/** The upper half. */
export function highHalf(value: number): number {
  return Math.floor(value / TWO_32);
}

/** The value with another lower half. */
export function withLow(value: number, half: number): number {
  return highHalf(value) * TWO_32 + half;
}

/** The value with another upper half. */
export function withHigh(value: number, half: number): number {
  return half * TWO_32 + lowHalf(value);
}

/** A word of feature bits: word 1 has bits 32 to 63. */
export function featureWord(features: bigint, word: number): number {
  return word > 3 ? 0 : Number((features >> BigInt(32 * word)) & 0xffffffffn);
}

/** The features with another word. */
export function withFeatureWord(features: bigint, word: number, value: number): bigint {
  const shift = 32n * BigInt(word);
  return (features & ~(0xffffffffn << shift)) | (BigInt(value) << shift);
}
