/** Globals that unit tests take for granted, for QuickJS as a program of an operating system. */
// The engine's own modules of these names.
import * as engine from 'os';
import { open, out } from 'std';
import { platform } from '../suites/platform.ts';

interface Engine {
  readonly setTimeout: (callback: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
}

const { setTimeout, clearTimeout } = engine as unknown as Engine;

Object.assign(globalThis, {
  ...platform,
  // By this name the clock of tests looks for the timers.
  global: globalThis,
  printLine(text: string): void {
    out.puts(`${text}\n`);
    // Else the last lines are lost with a program that is ended.
    out.flush();
  },
  readText(path: string): string | undefined {
    const file = open(path, 'r');
    if (file === null) return undefined;
    const text = file.readAsString();
    file.close();
    return text;
  },
  setTimeout: (callback: () => void, ms = 0) => setTimeout(callback, ms),
  clearTimeout: (timer: unknown) => {
    if (timer !== undefined) clearTimeout(timer);
  },
  setImmediate: (callback: () => void) => setTimeout(callback, 0),
  queueMicrotask: (callback: () => void) => void Promise.resolve().then(callback),
});
