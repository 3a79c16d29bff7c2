/** What the emulator needs of a browser. */
import wasm from 'v86/build/v86.wasm';

/** The emulator's WebAssembly, which the bundler puts in place of the import. */
export function readWasm(): Promise<Uint8Array> {
  return Promise.resolve(wasm);
}

/** Calls back in a while; other events come first. */
export function schedule(callback: () => void): void {
  const timers = globalThis as unknown as { setTimeout(callback: () => void, ms: number): unknown };
  timers.setTimeout(callback, 0);
}
