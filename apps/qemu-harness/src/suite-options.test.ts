import { describe, expect, it } from 'vitest';
import { parseSuiteOptions } from './suite-options.ts';

describe('parseSuiteOptions', () => {
  it('takes words and options in any order', () => {
    expect(parseSuiteOptions(['blk', '--full', 'microvm', '--json', 'a.json'], 'test')).toEqual({
      filters: ['blk', 'microvm'],
      extent: 'full',
      arch: undefined,
      json: 'a.json',
      plain: true,
    });
    expect(parseSuiteOptions(['--plain'], 'start')).toMatchObject({
      filters: [],
      extent: 'short',
      plain: true,
    });
    expect(parseSuiteOptions([], 'start')).toMatchObject({ plain: false });
    expect(parseSuiteOptions([], 'test')).toMatchObject({ extent: 'checks', plain: true });
  });

  it('takes architectures, and only those that there are', () => {
    expect(parseSuiteOptions(['--arch', 'riscv64', '--arch', 'aarch64', 'rng'], 'start')).toMatchObject({
      filters: ['rng'],
      arch: ['riscv64', 'aarch64'],
    });
    expect(() => parseSuiteOptions(['--arch', 'sparc'], 'start')).toThrow(
      /must be one of x86_64, aarch64, riscv64/,
    );
  });

  it.each([['--help'], ['-h', 'blk']])('answers %s with nothing to run', (...argv) => {
    expect(parseSuiteOptions(argv, 'start')).toBeUndefined();
  });

  it.each([
    [['--wat'], /^Unknown option '--wat'\.\n\nnpm start/],
    [['--json'], /^Option '--json <value>' argument missing\.\n\nnpm start/],
    [['--full=1'], /^Option '--full' does not take an argument\.\n\nnpm start/],
  ])('refuses %j in one sentence and says how to call it', (argv, message) => {
    expect(() => parseSuiteOptions(argv, 'start')).toThrow(
      expect.objectContaining({ code: 'BAD_ARGUMENTS', message: expect.stringMatching(message) as string }),
    );
  });
});
