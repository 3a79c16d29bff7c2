import { closeSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { difference, holdings } from './holdings.ts';

describe('holdings', () => {
  it('sees a timer that was left, and that it is gone', () => {
    const before = holdings();
    const timer = setInterval(() => undefined, 1_000_000);
    expect(difference(holdings(), before)).toEqual(['active Timeout']);
    clearInterval(timer);
    expect(difference(holdings(), before)).toEqual([]);
  });

  it('sees descriptors of what devices are reached through, and no others', () => {
    const before = holdings();
    const descriptors = ['/sys/kernel/mm/transparent_hugepage/enabled', '/dev/null'].map((path) =>
      openSync(path, 'r'),
    );
    expect(difference(holdings(), before)).toEqual([
      'descriptor of /sys/kernel/mm/transparent_hugepage/enabled',
    ]);
    for (const descriptor of descriptors) closeSync(descriptor);
    expect(difference(holdings(), before)).toEqual([]);
  });

  it('counts what there is more of', () => {
    expect(
      difference(
        new Map([
          ['a', 3],
          ['b', 1],
        ]),
        new Map([
          ['a', 1],
          ['b', 2],
        ]),
      ),
    ).toEqual(['2 × a']);
  });
});
