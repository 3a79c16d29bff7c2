/**
 * What the engine must have. A class with a method `[Symbol.dispose]` reads the symbol when the class is defined; without the
 * symbol, the method would silently be named `undefined`.
 */

/** Throws if neither the engine nor a polyfill that ran before these modules provides `Symbol.dispose`. */
export function requireDispose(symbols: { readonly dispose?: symbol }): void {
  if (typeof symbols.dispose === 'symbol') return;
  throw new TypeError(
    'this engine has no Symbol.dispose, which drivers need: run `Symbol.dispose ??= Symbol("Symbol.dispose")` in a module ' +
      'that is imported before any @virtio package (statements of the same module run after all of its imports)',
  );
}
