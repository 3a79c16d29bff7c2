import { describe, expect, it } from 'vitest';
import { type InterruptController, InterruptRouter } from './router.ts';

class Controller implements InterruptController {
  readonly enabled = new Set<number>();
  readonly completed: number[] = [];
  pending: number[] = [];

  enable(source: number): void {
    this.enabled.add(source);
  }

  disable(source: number): void {
    this.enabled.delete(source);
  }

  claim(): number {
    return this.pending.shift() ?? -1;
  }

  complete(source: number): void {
    this.completed.push(source);
  }
}

function setUp(): { controller: Controller; router: InterruptRouter; holds: { count: number } } {
  const controller = new Controller();
  const holds = { count: 0 };
  const loop = { hold: () => void (holds.count += 1), release: () => void (holds.count -= 1) };
  return { controller, router: new InterruptRouter(controller, loop), holds };
}

describe('InterruptRouter', () => {
  it('enables a line while it has a handler, and calls it', () => {
    const { controller, router, holds } = setUp();
    const line = router.mmio(7);
    let calls = 0;
    line.onLine(() => {
      calls += 1;
      return true;
    });
    expect([...controller.enabled]).toEqual([7]);
    controller.pending = [7];
    expect(router.poll()).toBe(true);
    expect(router.poll()).toBe(false);
    expect({ calls, completed: controller.completed, spurious: router.spurious }).toEqual({
      calls: 1,
      completed: [7],
      spurious: 0,
    });
    line.hold();
    expect(holds.count).toBe(1);
    line.release();
    expect(holds.count).toBe(0);
    line.onLine(undefined);
    expect([...controller.enabled]).toEqual([]);
  });

  it('asks all that share a line, and counts interrupts that are nobody’s', () => {
    const { controller, router } = setUp();
    const calls: string[] = [];
    router.intx(3).onLine(0, () => calls.push('a') < 0);
    const other = router.intx(3);
    other.onLine(0, () => calls.push('b') > 0);
    controller.pending = [3, 4];
    router.poll();
    expect(calls).toEqual(['a', 'b']);
    expect(router.spurious).toBe(1);
    other.onLine(0, undefined);
    expect([...controller.enabled]).toEqual([3]);
  });

  it('has a source for each MSI-X vector', () => {
    const { controller, router } = setUp();
    const lines = router.msix([64, 65]);
    const seen: number[] = [];
    for (const vector of [0, 1]) lines.onLine(vector, () => seen.push(vector) > 0);
    controller.pending = [65, 64];
    router.poll();
    expect(lines.vectors).toBe(2);
    expect(seen).toEqual([1, 0]);
    // No vectors would be INTx, without a source.
    expect(() => router.msix([])).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('ends a turn although a line never falls quiet, and completes what a handler throws at', () => {
    const { controller, router } = setUp();
    controller.claim = () => 9;
    expect(router.poll()).toBe(true);
    controller.completed.length = 0;
    router.mmio(9).onLine(() => {
      throw new Error('mine');
    });
    expect(() => router.poll()).toThrow('mine');
    expect(controller.completed).toEqual([9]);
  });
});
