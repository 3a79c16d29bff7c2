/** The part of WebAssembly that is needed here: ECMAScript's types do not have it. */
interface WasmEngine {
  instantiate(
    bytes: Uint8Array,
    imports: object,
  ): Promise<{ readonly instance: { readonly exports: Record<string, never> } }>;
}

/** Makes an instance of the emulator's WebAssembly. */
export async function instantiate(bytes: Uint8Array, imports: object): Promise<Record<string, never>> {
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: WasmEngine };
  return (await WebAssembly.instantiate(bytes, imports)).instance.exports;
}
