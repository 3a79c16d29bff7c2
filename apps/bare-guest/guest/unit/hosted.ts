/** Globals that unit tests take for granted, for QuickJS as a program of an operating system. */
// The engine's own module of that name.
import * as engine from 'os';
import { platform } from '../suites/platform.ts';

interface Engine {
  readonly setTimeout: (callback: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
}

const { setTimeout, clearTimeout } = engine as unknown as Engine;

Object.assign(globalThis, {
  ...platform,
  interprets: true,
  setTimeout: (callback: () => void, ms = 0) => setTimeout(callback, ms),
  clearTimeout: (timer: unknown) => {
    if (timer !== undefined) clearTimeout(timer);
  },
  setImmediate: (callback: () => void) => setTimeout(callback, 0),
  queueMicrotask: (callback: () => void) => void Promise.resolve().then(callback),
});
