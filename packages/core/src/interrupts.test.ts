import { describe, expect, it } from 'vitest';
import { PollingInterrupts } from './interrupts.ts';

function turns() {
  const callbacks: (() => void)[] = [];
  return {
    schedule: (callback: () => void) => {
      callbacks.push(callback);
    },
    /** Runs one turn; false if nothing was scheduled. */
    turn: () => {
      const now = callbacks.splice(0);
      for (const callback of now) callback();
      return now.length > 0;
    },
  };
}

describe('PollingInterrupts', () => {
  it('polls all queues while somebody holds it, and not otherwise', () => {
    const loop = turns();
    const polling = new PollingInterrupts({ schedule: loop.schedule });
    const calls: string[] = [];
    polling.onQueue(0, () => calls.push('0'));
    polling.onQueue(3, () => calls.push('3'));
    expect(loop.turn()).toBe(false);
    polling.hold();
    polling.hold();
    loop.turn();
    polling.release();
    loop.turn();
    expect(calls).toEqual(['0', '3', '0', '3']);
    polling.release();
    loop.turn();
    expect(loop.turn()).toBe(false);
    expect(calls).toHaveLength(4);
  });

  it('asks for configuration changes at each turn', () => {
    const loop = turns();
    let changed = false;
    const polling = new PollingInterrupts({ schedule: loop.schedule, configChanged: () => changed });
    let calls = 0;
    polling.onConfig(() => (calls += 1));
    polling.hold();
    loop.turn();
    expect(calls).toBe(0);
    changed = true;
    loop.turn();
    expect(calls).toBe(1);
  });

  it('passes on that the device was unplugged, held or not', () => {
    const polling = new PollingInterrupts({ schedule: () => undefined });
    let removals = 0;
    polling.remove();
    polling.onRemoval(() => (removals += 1));
    polling.remove();
    polling.onRemoval(undefined);
    polling.remove();
    expect(removals).toBe(1);
  });

  it('forgets a handler that is taken away, and goes on when one throws', () => {
    const loop = turns();
    const polling = new PollingInterrupts({ schedule: loop.schedule });
    polling.onQueue(0, () => {
      throw new Error('handler');
    });
    polling.hold();
    expect(() => loop.turn()).toThrow('handler');
    polling.onQueue(0, undefined);
    expect(loop.turn()).toBe(true);
  });
});
