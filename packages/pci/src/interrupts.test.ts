import { InterruptStatus, VirtioError } from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import { InterruptDispatcher, InterruptLines, NO_VECTOR } from './interrupts.ts';

function setUp(vectors: number, isr = 0, gone = false) {
  const lines = new InterruptLines(vectors);
  const device = {
    isr,
    gone,
    reads: 0,
    who: () => 'the device',
    ackInterrupt() {
      device.reads += 1;
      return InterruptStatus.from(device.isr);
    },
    isGone: () => device.gone,
    removed: () => new VirtioError('DEVICE_REMOVED', 'the device is gone'),
  };
  const interrupts = new InterruptDispatcher(lines, device);
  const calls: string[] = [];
  for (const queue of [0, 1, 2, 3]) interrupts.onQueue(queue, () => void calls.push(`queue ${queue}`));
  interrupts.onConfig(() => void calls.push('config'));
  interrupts.onRemoval(() => void calls.push('removal'));
  return { lines, device, interrupts, calls };
}

const accept = (vector: number): number => vector;

describe('MSI-X', () => {
  it('gives each queue a vector of its own, and configuration changes the first', () => {
    const { lines, device, interrupts, calls } = setUp(5);
    interrupts.mapConfig(accept);
    for (const queue of [0, 1, 2, 3]) interrupts.mapQueue(queue, accept);
    for (const vector of [0, 1, 4]) expect(lines.fire(vector)).toBe(true);
    expect(calls).toEqual(['config', 'queue 0', 'queue 3']);
    expect(device.reads, 'the ISR status is not read [4.1.4.5.2]').toBe(0);
  });

  it('never maps to a vector outside the table [4.1.5.1.2.2]', () => {
    for (const vectors of [NaN, -1, 0.5, 2049, '2', 2n, undefined]) {
      expect(() => new InterruptLines(vectors as number)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
    for (const vectors of [1, 2, 3]) {
      const { interrupts } = setUp(vectors);
      const asked: number[] = [];
      const record = (vector: number): number => {
        asked.push(vector);
        return vector;
      };
      interrupts.mapConfig(record);
      for (const queue of [0, 1, 2, 3]) interrupts.mapQueue(queue, record);
      expect(Math.max(...asked)).toBe(vectors - 1);
      expect(Math.min(...asked)).toBe(0);
    }
  });

  it('shares vectors among queues if there are too few', () => {
    const { lines, interrupts, calls } = setUp(3);
    interrupts.mapConfig(accept);
    for (const queue of [0, 1, 2, 3]) interrupts.mapQueue(queue, accept);
    lines.fire(1);
    expect(calls).toEqual(['queue 0', 'queue 2']);
  });

  it('serves queues and configuration from one vector [4.1.5.4.2]', () => {
    const { lines, interrupts, calls } = setUp(1);
    interrupts.mapConfig(accept);
    for (const queue of [0, 1]) interrupts.mapQueue(queue, accept);
    lines.fire(0);
    expect(calls).toEqual(['queue 0', 'queue 1', 'config']);
  });

  it('falls back to a shared vector if the device has none for the queue [4.1.5.1.2.2]', () => {
    const { lines, interrupts, calls } = setUp(3);
    const asked: number[] = [];
    interrupts.mapConfig(accept);
    interrupts.mapQueue(1, (vector) => {
      asked.push(vector);
      return vector === 0 ? 0 : NO_VECTOR;
    });
    expect(asked).toEqual([2, 0]);
    lines.fire(2);
    lines.fire(0);
    expect(calls).toEqual(['queue 1', 'config']);
  });

  it('reports a device that has no vector at all [4.1.5.1.2.2]', () => {
    const { interrupts } = setUp(3);
    expect(() => interrupts.mapQueue(0, () => NO_VECTOR)).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED',
        message: expect.stringContaining('fewer vectors') as string,
      }),
    );
    expect(() => interrupts.mapConfig(() => NO_VECTOR)).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED' }),
    );
  });

  it('reports a device that says another vector than it was given', () => {
    const { interrupts } = setUp(3);
    expect(() => interrupts.mapQueue(0, () => 7)).toThrow(
      expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }),
    );
  });

  it.each([
    ['ones', NO_VECTOR],
    ['zeros', 0],
  ])('reports a device that is gone, whose registers read as %s', (_, register) => {
    const { interrupts } = setUp(3, 0, true);
    expect(() => interrupts.mapQueue(0, () => register)).toThrow(
      expect.objectContaining({ code: 'DEVICE_REMOVED' }),
    );
  });

  it('maps a queue anew after a reset without calling it twice', () => {
    const { lines, interrupts, calls } = setUp(2);
    for (let i = 0; i < 3; i += 1) interrupts.mapQueue(0, accept);
    lines.fire(1);
    expect(calls).toEqual(['queue 0']);
  });

  it('tolerates a vector that nothing is mapped to', () => {
    const { lines, calls } = setUp(3);
    expect(lines.fire(2)).toBe(true);
    expect(calls).toEqual([]);
  });
});

describe('INTx', () => {
  it('asks nothing of the vector registers', () => {
    const { interrupts } = setUp(0);
    const tryVector = vi.fn(accept);
    interrupts.mapConfig(tryVector);
    interrupts.mapQueue(0, tryVector);
    expect(tryVector).not.toHaveBeenCalled();
  });

  it.each([
    [1, ['queue 0', 'queue 1', 'queue 2', 'queue 3']],
    [2, ['config']],
    [3, ['queue 0', 'queue 1', 'queue 2', 'queue 3', 'config']],
  ])('serves what ISR status %d says [4.1.5.5]', (isr, expected) => {
    const { lines, device, calls } = setUp(0, isr);
    expect(lines.fire(0)).toBe(true);
    expect(calls).toEqual(expected);
    expect(device.reads).toBe(1);
  });

  it("leaves a shared line's interrupt to others if the status is 0", () => {
    const { lines, calls } = setUp(0, 0);
    expect(lines.fire(0)).toBe(false);
    expect(calls).toEqual([]);
  });

  it('takes a status of all ones for removal only if the device is gone', () => {
    const { lines, device, calls } = setUp(0, 0xff, true);
    expect(lines.fire(0)).toBe(false);
    expect(calls).toEqual(['removal']);
    device.gone = false;
    calls.length = 0;
    expect(lines.fire(0)).toBe(true);
    expect(calls).toContain('config');
  });
});

describe('the lines', () => {
  it('report removal, hold and release', () => {
    const { lines, interrupts, calls } = setUp(2);
    lines.remove();
    interrupts.hold();
    interrupts.hold();
    interrupts.release();
    expect(lines.holds).toBe(1);
    expect(calls).toEqual(['removal']);
  });

  it('do not count a release without a hold, which would take away the next one', () => {
    const { lines, interrupts } = setUp(2);
    interrupts.release();
    interrupts.hold();
    expect(lines.holds).toBe(1);
  });

  it('have no handlers after the end', () => {
    for (const vectors of [0, 2]) {
      const { lines, interrupts, calls } = setUp(vectors, 3);
      interrupts.mapConfig(accept);
      interrupts.close();
      expect(calls).toEqual(['removal']);
      expect(lines.fire(0)).toBe(false);
      expect(lines.fire(1)).toBe(false);
      lines.remove();
      expect(calls).toHaveLength(1);
    }
  });

  it('call no handler that was removed', () => {
    const { lines, interrupts, calls } = setUp(2);
    interrupts.mapQueue(0, accept);
    interrupts.onQueue(0, undefined);
    lines.fire(1);
    expect(calls).toEqual([]);
  });
});
