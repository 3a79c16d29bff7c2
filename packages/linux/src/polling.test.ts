import { setTimeout as sleep } from 'node:timers/promises';
import { InterruptStatus } from '@virtio/core';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { pollingInterrupts } from './polling.ts';

describe('pollingInterrupts', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it('goes on looking at the registers when the time of day is set back', async () => {
    const ackInterrupt = vi.fn(() => InterruptStatus.from(0));
    const interrupts = pollingInterrupts(() => ({ ackInterrupt, isGone: () => false }));
    interrupts.hold();
    await vi.waitFor(() => expect(ackInterrupt).toHaveBeenCalled());
    const back = Date.now() - 3_600_000;
    vi.spyOn(Date, 'now').mockReturnValue(back);
    ackInterrupt.mockClear();
    await sleep(50);
    interrupts.release();
    expect(ackInterrupt).toHaveBeenCalled();
  });

  it('looks at the queues at each turn, and at the registers every now and then', async () => {
    const ackInterrupt = vi.fn(() => InterruptStatus.from(0));
    const isGone = vi.fn(() => false);
    const interrupts = pollingInterrupts(() => ({ ackInterrupt, isGone }));
    const queue = vi.fn<() => void>();
    const config = vi.fn<() => void>();
    interrupts.onQueue(0, queue);
    interrupts.onConfig(config);
    await sleep(20);
    expect(queue).not.toHaveBeenCalled();

    interrupts.hold();
    await sleep(60);
    const looked = ackInterrupt.mock.calls.length;
    expect(looked).toBeGreaterThan(0);
    expect(looked).toBeLessThan(10);
    expect(queue.mock.calls.length).toBeGreaterThan(looked);
    expect(config).not.toHaveBeenCalled();

    ackInterrupt.mockReturnValueOnce(InterruptStatus.from(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT));
    await sleep(60);
    expect(config).toHaveBeenCalledOnce();

    // The driver then looks at the status, and finds out.
    isGone.mockReturnValueOnce(true);
    await sleep(60);
    expect(config).toHaveBeenCalledTimes(2);

    interrupts.release();
    await sleep(5);
    const calls = queue.mock.calls.length;
    await sleep(20);
    expect(queue.mock.calls.length).toBe(calls);
  });
});
