import { PollingInterrupts } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { BareLoop } from './bare-loop.ts';

/** A loop with a clock that moves while it idles only. */
function setUp(poll?: () => boolean): { loop: BareLoop; idled: number[]; clock: { ms: number } } {
  const clock = { ms: 0 };
  const idled: number[] = [];
  const idle = (ms: number): void => {
    idled.push(ms);
    clock.ms += ms === Infinity ? 0 : ms;
  };
  return { loop: new BareLoop({ now: () => clock.ms, idle, ...(poll && { poll }) }), idled, clock };
}

describe('BareLoop', () => {
  it('runs what was scheduled before a turn, once, and what that schedules in the next one', () => {
    const { loop } = setUp();
    const seen: string[] = [];
    loop.schedule(() => {
      seen.push('first');
      loop.schedule(() => seen.push('second'));
    });
    expect(loop.turn()).toBe(true);
    expect(seen).toEqual(['first']);
    expect(loop.turn()).toBe(false);
    expect(seen).toEqual(['first', 'second']);
  });

  it('may run turns inside of a callback that waits: each callback runs once, in order', () => {
    const { loop } = setUp();
    const seen: string[] = [];
    loop.schedule(() => {
      seen.push('waits');
      for (let turns = 0; turns < 3; turns += 1) loop.turn();
      seen.push('goes on');
    });
    loop.schedule(() => {
      seen.push('second');
      loop.schedule(() => seen.push('third'));
    });
    loop.run();
    expect(seen).toEqual(['waits', 'second', 'third', 'goes on']);
    expect(loop.alive).toBe(false);
  });

  it('lets a callback wait for a source that polls', () => {
    const { loop } = setUp();
    const interrupts = new PollingInterrupts({ schedule: loop.schedule });
    let polls = 0;
    interrupts.onQueue(0, () => (polls += 1));
    loop.schedule(() => {
      while (polls < 5) loop.turn();
      interrupts.release();
    });
    interrupts.hold();
    loop.run();
    expect(polls).toBe(5);
  });

  it('calls timers in their order when they are due, idles until then, and not those that were cleared', () => {
    const { loop, idled } = setUp();
    const seen: string[] = [];
    loop.setTimer(() => seen.push('late'), 20);
    loop.setTimer(() => seen.push('soon'), 5);
    loop.clearTimer(loop.setTimer(() => seen.push('never'), 7));
    loop.run();
    expect(seen).toEqual(['soon', 'late']);
    expect(idled).toEqual([5, 15]);
    for (const ms of [NaN, -0.5, -1, 2 ** 31, '5', null, undefined, true, 1n]) {
      expect(() => loop.setTimer(() => undefined, ms as number)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
    expect(loop.alive).toBe(false);
  });

  it('waits for interrupts while it is held, and ends when it is not', () => {
    let interrupts = 0;
    const { loop, idled } = setUp(() => {
      interrupts += 1;
      if (interrupts < 3) return false;
      loop.release();
      return true;
    });
    loop.hold();
    loop.run();
    expect(interrupts).toBe(3);
    expect(idled).toEqual([Infinity, Infinity]);
  });

  it('takes no release for a hold that comes later', () => {
    const { loop } = setUp();
    loop.hold();
    loop.release();
    loop.release();
    expect(loop.holds).toBe(0);
    loop.hold();
    expect([loop.holds, loop.alive, loop.turn()]).toEqual([1, true, true]);
    loop.release();
    expect([loop.alive, loop.turn()]).toEqual([false, false]);
  });

  it('lets an error of a callback out, and calls the others in the next turn', () => {
    const { loop } = setUp();
    const seen: number[] = [];
    loop.schedule(() => {
      throw new Error('mine');
    });
    loop.schedule(() => seen.push(1));
    loop.schedule(() => seen.push(2));
    expect(() => loop.turn()).toThrow('mine');
    expect(seen).toEqual([]);
    expect(loop.turn()).toBe(false);
    expect(seen).toEqual([1, 2]);
  });

  it('runs jobs before each turn, and goes on if they ask for more', () => {
    const jobs: (() => void)[] = [];
    const clock = { ms: 0 };
    const loop = new BareLoop({
      now: () => clock.ms,
      idle: () => undefined,
      runJobs: () => {
        for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) job();
      },
    });
    const seen: string[] = [];
    loop.schedule(() => jobs.push(() => loop.schedule(() => seen.push('from a job'))));
    loop.run();
    expect(seen).toEqual(['from a job']);
  });

  it('is what PollingInterrupts schedules with', () => {
    const { loop } = setUp();
    const interrupts = new PollingInterrupts({ schedule: loop.schedule });
    let polls = 0;
    interrupts.onQueue(0, () => {
      polls += 1;
      if (polls === 3) interrupts.release();
    });
    interrupts.hold();
    loop.run();
    expect(polls).toBe(3);
    expect(loop.alive).toBe(false);
  });
});
