import { describe, expect, it, vi } from 'vitest';
import { FakeInterrupts } from './fake-interrupts.ts';
import { InterruptPin } from './interrupt-pin.ts';

describe('fake interrupts', () => {
  it('arrive after the call that caused them, several as one', async () => {
    const interrupts = new FakeInterrupts();
    const [first, second, config] = [vi.fn(), vi.fn(), vi.fn()];
    interrupts.onQueue(0, first);
    interrupts.onQueue(1, second);
    interrupts.onConfig(config);
    interrupts.fireQueue(0);
    interrupts.fireQueue(0);
    interrupts.fireConfig();
    expect(first).not.toHaveBeenCalled();
    await Promise.resolve();
    expect(first).toHaveBeenCalledOnce();
    expect(second).not.toHaveBeenCalled();
    expect(config).toHaveBeenCalledOnce();
    expect(interrupts.delivered).toBe(2);
  });

  it('reach nobody whose handler was removed', async () => {
    const interrupts = new FakeInterrupts();
    const handler = vi.fn();
    interrupts.onQueue(3, handler);
    interrupts.onRemoval(handler);
    expect(interrupts.queues).toEqual([3]);
    interrupts.onQueue(3, undefined);
    interrupts.onRemoval(undefined);
    interrupts.fireQueue(3);
    interrupts.fireRemoval();
    await Promise.resolve();
    expect(handler).not.toHaveBeenCalled();
  });

  it('wait while they are masked', async () => {
    const interrupts = new FakeInterrupts();
    const handler = vi.fn();
    interrupts.onRemoval(handler);
    interrupts.masked = true;
    interrupts.fireRemoval();
    await Promise.resolve();
    expect(handler).not.toHaveBeenCalled();
    interrupts.masked = false;
    await Promise.resolve();
    expect(handler).toHaveBeenCalledOnce();
  });

  it('arrive at once if the test likes', () => {
    const interrupts = new FakeInterrupts({ synchronous: true });
    const handler = vi.fn();
    interrupts.onQueue(0, handler);
    interrupts.fireQueue(0);
    expect(handler).toHaveBeenCalledOnce();
  });

  it('count who waits', () => {
    const interrupts = new FakeInterrupts();
    interrupts.hold();
    interrupts.hold();
    interrupts.release();
    expect(interrupts.holds).toBe(1);
  });
});

describe('an interrupt pin', () => {
  it('calls its handler while it is asserted and claimed', async () => {
    let left = 3;
    const pin: InterruptPin = new InterruptPin(() => {
      left -= 1;
      if (left === 0) pin.set(false);
      return true;
    });
    pin.set(true);
    expect(pin.calls).toBe(0);
    for (let n = 0; n < 5; n += 1) await Promise.resolve();
    expect(pin.calls).toBe(3);
    expect(pin.asserted).toBe(false);
  });

  it('does not call a handler again that says the interrupt was not for it', async () => {
    const pin = new InterruptPin(() => false);
    pin.set(true);
    for (let n = 0; n < 5; n += 1) await Promise.resolve();
    expect(pin.calls).toBe(1);
    pin.set(true);
    await Promise.resolve();
    expect(pin.calls).toBe(2);
  });

  it('calls nobody if it was released in time, or has no handler', async () => {
    const pin = new InterruptPin(() => true);
    pin.set(true);
    pin.set(false);
    const bare = new InterruptPin(undefined);
    bare.set(true);
    await Promise.resolve();
    expect([pin.calls, bare.calls, bare.asserted]).toEqual([0, 0, true]);
  });
});
