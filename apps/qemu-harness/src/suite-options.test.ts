import { describe, expect, it } from 'vitest';
import { parseSuiteOptions } from './suite-options.ts';

describe('parseSuiteOptions', () => {
  it('takes words and options in any order', () => {
    expect(parseSuiteOptions(['blk', '--full', 'microvm', '--json', 'a.json'], true)).toEqual({
      filters: ['blk', 'microvm'],
      full: true,
      json: 'a.json',
      plain: true,
    });
    expect(parseSuiteOptions(['--plain'], false)).toMatchObject({ filters: [], full: false, plain: true });
  });

  it.each([['--help'], ['-h', 'blk']])('answers %s with nothing to run', (...argv) => {
    expect(parseSuiteOptions(argv, false)).toBeUndefined();
  });

  it.each([
    [['--wat'], /^Unknown option '--wat'\.\n\nnpm start/],
    [['--json'], /^Option '--json <value>' argument missing\.\n\nnpm start/],
    [['--full=1'], /^Option '--full' does not take an argument\.\n\nnpm start/],
  ])('refuses %j in one sentence and says how to call it', (argv, message) => {
    expect(() => parseSuiteOptions(argv, false)).toThrow(
      expect.objectContaining({ code: 'BAD_ARGUMENTS', message: expect.stringMatching(message) as string }),
    );
  });
});
