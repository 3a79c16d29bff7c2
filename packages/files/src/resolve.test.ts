import { describe, expect, it } from 'vitest';
import { splitLast, splitPath, wantsDirectory } from './resolve.ts';

describe('a path', () => {
  it('is split into names', () => {
    expect(splitPath('/a//./b/../c/')).toEqual(['a', 'b', '..', 'c']);
    expect(splitPath('/')).toEqual([]);
    expect(splitLast('/a/b///')).toEqual({ parent: '/a/', name: 'b' });
    expect(splitLast('b')).toEqual({ parent: '/', name: 'b' });
    expect(splitLast('///')).toEqual({ parent: '/', name: '' });
  });

  it('may only be that of a directory', () => {
    for (const path of ['/', 'a/', 'a/.', 'a/..', '.', '..']) expect(wantsDirectory(path), path).toBe(true);
    for (const path of ['a', 'a/b', 'a/...', 'a.', 'a..']) expect(wantsDirectory(path), path).toBe(false);
  });
});
