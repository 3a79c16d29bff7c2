import { EventPoller } from '@virtio/linux';
import { describe, expect, it, vi } from 'vitest';
import { VhostUserInterrupts } from './interrupts.ts';

const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** Interrupts with a clock of their own. */
function set(spinUs: number) {
  const poller = new EventPoller();
  const interrupts = new VhostUserInterrupts(poller, false, spinUs);
  const look = vi.fn<() => void>();
  const rest = vi.fn<() => void>();
  interrupts.onQueue(0, look);
  interrupts.onRest(0, rest);
  const clock = vi.spyOn(performance, 'now').mockReturnValue(0);
  const at = (us: number): void => void clock.mockReturnValue(us / 1000);
  const end = (): void => {
    clock.mockRestore();
    poller[Symbol.dispose]();
  };
  return { interrupts, look, rest, at, [Symbol.dispose]: end };
}

describe('a wait', () => {
  it('looks at the rings at each turn for as long as it may, and then sleeps', async () => {
    using one = set(50);
    one.interrupts.hold();
    await turns(5);
    expect(one.look.mock.calls.length).toBeGreaterThanOrEqual(4);
    expect([one.interrupts.looking, one.rest.mock.calls.length]).toEqual([true, 0]);
    one.at(51);
    await turns(2);
    expect([one.interrupts.looking, one.rest.mock.calls.length]).toEqual([false, 1]);
    one.look.mockClear();
    await turns(20);
    expect(one.look).not.toHaveBeenCalled();
    one.interrupts.fire(0);
    expect(one.look).toHaveBeenCalledOnce();
    one.interrupts.release();
  });

  it('goes on while answers come', async () => {
    using one = set(50);
    one.interrupts.hold();
    for (let us = 40; us < 400; us += 40) {
      one.at(us);
      one.interrupts.brought();
      await turns(1);
    }
    expect(one.rest).not.toHaveBeenCalled();
    one.look.mockClear();
    await turns(5);
    expect(one.look.mock.calls.length).toBeGreaterThanOrEqual(4);
    one.interrupts.release();
    one.look.mockClear();
    await turns(5);
    expect(one.look, 'nobody waits').not.toHaveBeenCalled();
    expect(one.rest).toHaveBeenCalledOnce();
  });

  it('spins ever more rarely when that is in vain', async () => {
    using one = set(50);
    let spins = 0;
    for (let wait = 0; wait < 300; wait += 1) {
      one.at(wait * 1000);
      one.look.mockClear();
      one.interrupts.hold();
      await turns(1);
      if (one.look.mock.calls.length > 0) spins += 1;
      one.at(wait * 1000 + 100);
      await turns(2);
      // Answered when nobody spins any more.
      one.interrupts.release();
    }
    expect(spins).toBeGreaterThan(3);
    expect(spins).toBeLessThan(15);
  });

  it('looks many times a turn, and callers have their answers and ask again in between', async () => {
    using one = set(50);
    let answers = 0;
    let asked = false;
    one.interrupts.hold();
    one.look.mockImplementation(() => {
      if (!asked) return;
      asked = false;
      answers += 1;
      one.interrupts.brought();
      // The caller goes on in a later microtask, and its request is sent in one after that.
      void Promise.resolve()
        .then(() => undefined)
        .then(() => (asked = true));
    });
    asked = true;
    await turns(2);
    expect(answers).toBeGreaterThan(20);
    one.interrupts.release();
  });

  it('lets other work have a turn, even if something is found at each look', async () => {
    using one = set(50);
    // Without a limit, the looks would end here, instead of never.
    let most = 20_000;
    one.look.mockImplementation(() => {
      most -= 1;
      if (most > 0) one.interrupts.brought();
    });
    one.interrupts.hold();
    await turns(10);
    const looks = one.look.mock.calls.length;
    expect(looks).toBeGreaterThan(10);
    expect(looks).toBeLessThan(12 * 513);
    one.interrupts.release();
  });

  it('with spinUs 0 looks once more when something came, and not when somebody begins to wait', async () => {
    using one = set(0);
    one.interrupts.hold();
    await turns(10);
    expect(one.look).not.toHaveBeenCalled();
    one.look.mockImplementationOnce(() => one.interrupts.brought());
    one.interrupts.brought();
    expect(one.interrupts.looking).toBe(true);
    await turns(10);
    expect(one.look).toHaveBeenCalledTimes(2);
    expect([one.interrupts.looking, one.rest.mock.calls.length]).toEqual([false, 1]);
    one.interrupts.release();
  });

  it('that polls is never left to interrupts', async () => {
    using poller = new EventPoller();
    const interrupts = new VhostUserInterrupts(poller, true, 50);
    const look = vi.fn<() => void>();
    const rest = vi.fn<() => void>();
    interrupts.onQueue(0, look);
    interrupts.onRest(0, rest);
    interrupts.hold();
    await turns(10);
    expect(look.mock.calls.length).toBeGreaterThanOrEqual(9);
    interrupts.release();
    await turns(3);
    look.mockClear();
    await turns(5);
    expect(look, 'nobody waits').not.toHaveBeenCalled();
    expect([interrupts.looking, rest.mock.calls.length]).toEqual([true, 0]);
  });
});
