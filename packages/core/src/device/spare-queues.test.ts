import { FakeDevice, FakeTransport } from '@virtio/testing';
import { expect, it } from 'vitest';
import { setUpSpareQueues } from './spare-queues.ts';

it('sets up what there is of the queues that are not used, and none of too many', () => {
  const device = new FakeDevice({ type: 62, queues: [4, 64, 0, 8, 4] });
  const made: unknown[] = [];
  const setUp = (first: number, end: number): void => {
    made.length = 0;
    setUpSpareQueues(new FakeTransport(device), first, end, (options) => made.push(options));
  };
  const spare = { size: 16, tableLength: 0 };
  setUp(1, 4);
  expect(made).toEqual([
    { ...spare, index: 1 },
    { ...spare, index: 3 },
  ]);
  setUp(1, 1);
  expect(made).toEqual([]);
  setUp(0, 512);
  expect(made).toHaveLength(4);
  setUp(0, 0xffff_ffff);
  expect(made).toEqual([]);
});
