/** What the page and the worker that runs programs tell each other. */
import type { Program } from '../src/run-program.ts';

/** To the worker, once: run this. */
export interface Run {
  readonly program: Program;
}

/** From the worker. */
export type Report =
  | { readonly kind: 'print'; readonly level: 'log' | 'error'; readonly text: string }
  | { readonly kind: 'trace'; readonly lines: readonly (readonly [line: string, kind: string])[] }
  | { readonly kind: 'end'; readonly error?: string; readonly ms: number };
