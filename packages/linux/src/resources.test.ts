import { describe, expect, it } from 'vitest';
import { Resources } from './resources.ts';

describe('Resources', () => {
  it('closes in reverse order, all of them, and reports the first error', () => {
    const log: string[] = [];
    const resources = new Resources();
    resources.defer(() => log.push('a'));
    resources.defer(() => {
      throw new Error('second');
    });
    resources.defer(() => {
      throw new Error('first');
    });
    resources.add({ [Symbol.dispose]: () => log.push('d') });
    expect(() => resources[Symbol.dispose]()).toThrow('first');
    expect(log).toEqual(['d', 'a']);
    resources[Symbol.dispose]();
    expect(log).toHaveLength(2);
  });

  it('closes what was opened when building fails', () => {
    const log: string[] = [];
    const resources = new Resources();
    expect(() =>
      resources.keepUnlessThrown(() => {
        resources.defer(() => log.push('closed'));
        throw new Error('no');
      }),
    ).toThrow('no');
    expect(log).toEqual(['closed']);
    expect(new Resources().keepUnlessThrown(() => 5)).toBe(5);
  });
});
