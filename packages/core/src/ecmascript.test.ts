import { describe, expect, it } from 'vitest';
import { requireDispose } from './ecmascript.ts';

describe('an engine', () => {
  it('is told what to do where it has no Symbol.dispose', () => {
    expect(() => requireDispose({})).toThrow(/Symbol\.dispose \?\?= .* imported before/);
  });

  it('does with a polyfill of it', () => {
    expect(() => requireDispose({ dispose: Symbol('Symbol.dispose') })).not.toThrow();
    expect(() => requireDispose(Symbol)).not.toThrow();
  });
});
