/**
 * What is needed of the engine. A class whose method has the name `[Symbol.dispose]` takes the symbol when it is defined; where
 * it is missing, the method would be called `undefined`, and nothing would say so.
 */

/** Throws where the engine, or a polyfill that runs before these modules, does not have `Symbol.dispose`. */
export function requireDispose(symbols: { readonly dispose?: symbol }): void {
  if (typeof symbols.dispose === 'symbol') return;
  throw new TypeError(
    'this engine has no Symbol.dispose, which drivers need: run `Symbol.dispose ??= Symbol("Symbol.dispose")` in a module ' +
      'that is imported before any @virtio package (statements of the same module run after all of its imports)',
  );
}
