import { expect, it } from 'vitest';
import { treeProblems } from './install-tree.ts';

it('tells what is too much, missing, or there twice', () => {
  const expected = ['@virtio/blk', '@virtio/core', 'a'];
  expect(treeProblems(['@virtio/blk', '@virtio/core', 'a'], expected)).toEqual([]);
  expect(treeProblems(['@virtio/blk', '@virtio/core', '@virtio/core', 'b'], expected)).toEqual([
    'b is installed, but not expected',
    'a is missing',
    '@virtio/core is installed more than once',
  ]);
});
