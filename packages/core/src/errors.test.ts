import { expect, it } from 'vitest';
import { VirtioError } from './errors.ts';

it('tells where the manual explains its code', () => {
  expect(new VirtioError('QUEUE_FULL', 'queue 0 is full').help).toBe('documents/Errors.html#queue_full');
});
