/** Runs a program of the playground: TypeScript, in one or more files, which import the packages, the playground and each other. */
import * as core from '@virtio/core';
import * as p9 from '@virtio/9p';
import * as console9 from '@virtio/console';
import * as files from '@virtio/files';
import { transform } from 'sucrase';
import * as playground from './playground.ts';

/** Gets what a program prints, and what happens on its devices. */
export interface Sink {
  print(level: 'log' | 'error', text: string): void;
  trace(line: string, kind: string): void;
}

/** The files of a program by name; the first one is run. */
export type Program = readonly (readonly [name: string, text: string])[];

const PACKAGES: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['@virtio/core', core],
  ['@virtio/9p', p9],
  ['@virtio/console', console9],
  ['@virtio/files', files],
  ['#playground', playground],
]);

type Body = (require: (name: string) => unknown, exports: object, console: object) => unknown;
type FunctionMaker = new (...source: string[]) => Body;
const AsyncFunction = (async () => {
  await Promise.resolve();
}).constructor as FunctionMaker;

/** A program's text as a function's body. Sucrase takes types away and leaves the rest as it is, `using` included. */
function compile(name: string, text: string, Maker: FunctionMaker): Body {
  const { code } = transform(text, {
    transforms: ['typescript', 'imports'],
    disableESTransforms: true,
    filePath: name,
  });
  return new Maker('require', 'exports', 'console', `${code}\n//# sourceURL=${name}`);
}

/** A value as a console shows it, in few words. */
function show(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (value instanceof Uint8Array) return `Uint8Array(${value.length}) [${value.join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    return JSON.stringify(
      value,
      (_key, inner: unknown) => (typeof inner === 'bigint' ? `${inner}n` : inner),
      2,
    );
  }
  return String(value);
}

/** Runs a program on a new PC. Resolves when its first file has ended: to what it threw, if it did. */
export async function runProgram(program: Program, sink: Sink): Promise<{ readonly error?: unknown }> {
  const log = (...values: unknown[]): void => sink.print('log', values.map(show).join(' '));
  const error = (...values: unknown[]): void => sink.print('error', values.map(show).join(' '));
  const console = { log, info: log, debug: log, warn: error, error };
  const loaded = new Map<string, object>();
  const require = (wanted: string): unknown => {
    const own = PACKAGES.get(wanted);
    if (own !== undefined) return own;
    const name = wanted.replace(/^\.\//, '');
    const known = loaded.get(name);
    if (known !== undefined) return known;
    const found = program.find(([file]) => file === name);
    if (found === undefined) {
      const names = [...PACKAGES.keys(), ...program.slice(1).map(([file]) => `./${file}`)];
      throw new Error(`There is no module '${wanted}' here; there are ${names.join(', ')}.`);
    }
    const exports = {};
    loaded.set(name, exports);
    compile(name, found[1], Function as unknown as FunctionMaker)(require, exports, console);
    return exports;
  };
  const [main] = program;
  if (main === undefined) return {};
  const machine = await playground.start((line, kind) => sink.trace(line, kind));
  try {
    await compile(main[0], main[1], AsyncFunction)(require, {}, console);
    return {};
  } catch (thrown) {
    return { error: thrown };
  } finally {
    await machine[Symbol.asyncDispose]();
  }
}
