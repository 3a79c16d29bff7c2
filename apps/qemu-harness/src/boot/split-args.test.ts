import { describe, expect, it } from 'vitest';
import { splitArgs } from './split-args.ts';

describe('splitArgs', () => {
  it.each([
    ['', []],
    ['  -a   -b\t-c\n', ['-a', '-b', '-c']],
    [`-name 'two words' -x "a b"`, ['-name', 'two words', '-x', 'a b']],
    [String.raw`a\ b \'c\'`, ['a b', "'c'"]],
    [`-drive file='my disk.img',if=none`, ['-drive', 'file=my disk.img,if=none']],
    [String.raw`"a\"b\\c\d"`, [String.raw`a"b\c\d`]],
    [String.raw`'no \escape'`, [String.raw`no \escape`]],
    [`'' ""`, ['', '']],
    [`-blockdev '{"driver":"file","filename":"x"}'`, ['-blockdev', '{"driver":"file","filename":"x"}']],
    ['$HOME *', ['$HOME', '*']],
  ])('splits %j', (text, words) => {
    expect(splitArgs(text)).toEqual(words);
  });

  it('says what is not closed', () => {
    expect(() => splitArgs(`-name 'x`)).toThrow(/' that is not closed/);
    expect(() => splitArgs('-name "x')).toThrow(/" that is not closed/);
    expect(() => splitArgs('-name \\')).toThrow(/backslash/);
  });
});
