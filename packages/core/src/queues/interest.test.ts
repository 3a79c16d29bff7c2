import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { DeviceType } from '../device/device-type.ts';
import { CommonFeatures } from '../device/features.ts';
import type { Lookout } from '../device/interrupts.ts';
import { createQueue } from '../ring/create-queue.ts';
import { Interest } from './interest.ts';

/** A queue whose source of interrupts looks by itself while `looking` is set. */
function make(always: boolean) {
  const device = new FakeDevice({ type: DeviceType.EntropySource, features: 1n << 29n, queues: [8] });
  const transport = new FakeTransport(device);
  const features = transport.beginInit({ table: CommonFeatures, supported: ['EVENT_IDX'] });
  const queue = createQueue(transport, device.hal, features, { index: 0 });
  const source = { looking: true, rest: (): void => undefined };
  const brought = vi.fn<() => void>();
  const lookout: Lookout = {
    get looking() {
      return source.looking;
    },
    onRest: (_queue, handler) => (source.rest = handler ?? source.rest),
    brought,
  };
  Object.defineProperty(transport.interrupts, 'lookout', { value: lookout });
  const enable = vi.spyOn(queue, 'enableInterrupts');
  const disable = vi.spyOn(queue, 'disableInterrupts');
  const interest = new Interest(transport, queue, {
    onUsed: () => undefined,
    report: (error) => {
      throw error;
    },
    always,
  });
  const calls = (): number[] => [enable.mock.calls.length, disable.mock.calls.length];
  return { interest, source, brought, calls };
}

describe('while the source of interrupts looks by itself', () => {
  it('the device is not asked to interrupt; it is when the source rests and somebody waits', () => {
    const { interest, source, brought, calls } = make(false);
    interest.begin();
    interest.update(true);
    expect(calls()).toEqual([0, 0]);
    expect(brought, 'nothing was used').not.toHaveBeenCalled();
    interest.brought();
    expect(brought).toHaveBeenCalledOnce();
    source.looking = false;
    source.rest();
    expect(calls()).toEqual([1, 0]);
    interest.update(true);
    expect(calls()).toEqual([2, 0]);
    source.looking = true;
    interest.update(true);
    interest.update(true);
    expect(calls(), 'asked not to, once').toEqual([2, 1]);
    interest.update(false);
    source.looking = false;
    source.rest();
    expect(calls()[0], 'nobody waits').toBe(2);
  });

  it('the device is asked to interrupt for a caller that does not keep the event loop alive, and no longer when it has its answer', () => {
    const { interest, source, calls } = make(false);
    source.looking = false;
    interest.begin(false);
    interest.begin(false);
    expect(calls()).toEqual([1, 0]);
    interest.update(false, true);
    expect(calls()).toEqual([2, 0]);
    interest.update(false);
    interest.update(false);
    expect(calls()).toEqual([2, 1]);
  });

  it('queues that always want interrupts get them when it rests', () => {
    const { interest, source, calls } = make(true);
    interest.update(false);
    expect(calls()).toEqual([0, 0]);
    source.looking = false;
    source.rest();
    expect(calls()).toEqual([1, 0]);
  });
});
