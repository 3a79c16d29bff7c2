import { expect, it } from 'vitest';
import { VirtioError } from './errors.ts';

it('ends with the place where its code is explained', () => {
  const { help, message, stack } = new VirtioError('QUEUE_FULL', 'queue 0 is full');
  expect(help).toBe('@virtio/core/errors.md#queue_full');
  expect(message).toBe(`queue 0 is full (see ${help})`);
  expect(stack).toMatch(/^VirtioError: queue 0 is full \(see @virtio\/core\/errors.md#queue_full\)\n/);
});

it('names one place, that of its own code, if its message was made of that of another', () => {
  const inner = new VirtioError('IO_ERROR', 'the disk (vda) failed');
  const outer = new VirtioError('DEVICE_BUSY', `${inner.message}. It could not be given back either`, {
    cause: inner,
  });
  expect(outer.message).toBe(
    'the disk (vda) failed. It could not be given back either (see @virtio/core/errors.md#device_busy)',
  );
});

it('is its code where the build has no texts', () => {
  expect(new VirtioError('QUEUE_FULL', '').message).toBe(
    'QUEUE_FULL (see @virtio/core/errors.md#queue_full)',
  );
});
