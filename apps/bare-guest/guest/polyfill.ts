/** What drivers need of ECMAScript and this engine lacks. Classes take `Symbol.dispose` when they are defined, so this comes first. */
const symbols = Symbol as unknown as Record<'dispose' | 'asyncDispose', symbol | undefined>;
symbols.dispose ??= Symbol('Symbol.dispose');
symbols.asyncDispose ??= Symbol('Symbol.asyncDispose');

// The engine's own is wrong for 64 bits.
// eslint-disable-next-line no-restricted-syntax -- the rule keeps this call out because engines get it wrong; here the engine is asked whether it does
if (BigInt.asUintN(64, -1n) !== (1n << 64n) - 1n) {
  BigInt.asUintN = (bits, value) => {
    const size = 1n << BigInt(bits);
    return ((value % size) + size) % size;
  };
}

export {};
