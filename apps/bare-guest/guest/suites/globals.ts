/** Globals of Node.js that tests use, for a bare guest. */
import { machine } from '../machine.ts';
import { notHere } from '../not-here.ts';
import { platform } from './platform.ts';

const memoryUsage = Object.assign(() => ({ rss: machine.heap().used }), { rss: () => machine.heap().used });

/** Of the process there is the memory that the engine uses. */
const process = new Proxy<object>(
  { memoryUsage },
  { get: (known, name) => (Reflect.get(known, name) as unknown) ?? notHere('node:process', String(name)) },
);

Object.assign(globalThis, { ...platform, process, performance: { now: () => machine.now() } });
