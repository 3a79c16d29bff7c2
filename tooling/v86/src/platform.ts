/** What the emulator needs of Node.js. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** The emulator's WebAssembly. */
export function readWasm(): Promise<Uint8Array> {
  return readFile(fileURLToPath(import.meta.resolve('v86/build/v86.wasm')));
}

/** Calls back in a while; other events come first. */
export function schedule(callback: () => void): void {
  setImmediate(callback);
}
