/**
 * Runs before everything else in a bundle. It adds what the engine lacks of ECMAScript, and the few other globals that scripts
 * expect. Drivers need only the first two lines.
 */
import { BareLoop } from '@virtio/bare';
import { machine } from './machine.ts';
import { format } from './format.ts';
import { takeByte } from './channel.ts';

/** Interrupts of the board, once it has a router. */
let pollInterrupts: () => boolean = () => false;
/** Without interrupts the loop must not sleep longer than this. */
let longestSleep = 0;

/** The event loop. */
export const loop = new BareLoop({
  now: () => machine.now(),
  idle: (ms) => machine.wait(Math.min(ms, longestSleep)),
  poll: () => {
    // A message makes jobs, which run before the next turn: this one then must not wait for an interrupt.
    const typed = drainConsole();
    return pollInterrupts() || typed;
  },
});

/** Tells the loop how interrupts are polled. It then sleeps until there is one. */
export function setInterrupts(poll: () => boolean, sleepMs: number): void {
  pollInterrupts = poll;
  longestSleep = sleepMs;
}

const unhandled = new Map<object, unknown>();
machine.rejected = (promise, reason, handled) => {
  if (handled) unhandled.delete(promise);
  else unhandled.set(promise, reason);
};

/** What takes errors that nobody else does; without it they end the machine. */
let onUncaught: ((error: unknown) => void) | undefined;

/** Sets it. */
export function catchUncaught(handler: (error: unknown) => void): void {
  onUncaught = handler;
}

function uncaught(error: unknown): void {
  if (onUncaught !== undefined) {
    onUncaught(error);
    return;
  }
  machine.write(`Uncaught ${format(error)}\n`);
  machine.exit(1);
}

/** Takes what came on the serial port: also the handler of its interrupt. */
export function drainConsole(): boolean {
  const first = machine.read();
  for (let byte = first; byte >= 0; byte = machine.read()) takeByte(byte);
  return first >= 0;
}

machine.turn = (): boolean => {
  for (const [promise, reason] of unhandled) {
    unhandled.delete(promise);
    uncaught(reason);
  }
  try {
    return loop.turn();
  } catch (error) {
    uncaught(error);
    return loop.alive;
  }
};

const print = (...values: readonly unknown[]): void => machine.write(`${values.map(format).join(' ')}\n`);

Object.assign(globalThis, {
  console: { log: print, info: print, debug: print, warn: print, error: print },
  setTimeout: (callback: (...values: unknown[]) => void, ms = 0, ...values: unknown[]) =>
    loop.setTimer(() => callback(...values), Math.max(ms, 0)),
  clearTimeout: (id: number) => loop.clearTimer(id),
  setInterval: (callback: () => void, ms = 0) => {
    const id = { current: 0 };
    const again = (): void => {
      id.current = loop.setTimer(again, Math.max(ms, 1));
      callback();
    };
    id.current = loop.setTimer(again, Math.max(ms, 1));
    return id;
  },
  clearInterval: (id: { readonly current: number } | undefined) => loop.clearTimer(id?.current ?? 0),
  setImmediate: (callback: () => void) => loop.schedule(callback),
  queueMicrotask: (callback: () => void) => void Promise.resolve().then(callback),
});
