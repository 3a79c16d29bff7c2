import { describe, expect, it } from 'vitest';
import { InterruptStatus } from './device-status.ts';
import { InterruptHandlers, PollingInterrupts } from './interrupts.ts';

const { QUEUE_INTERRUPT, DEVICE_CONFIGURATION_INTERRUPT } = InterruptStatus;
const BOTH = QUEUE_INTERRUPT | DEVICE_CONFIGURATION_INTERRUPT;

/** A device with queues 0 and 1000 behind one line; `calls` is what it and its handlers see, in order. */
class Line extends InterruptHandlers {
  readonly calls: string[] = [];
  status = 0;
  gone = false;

  constructor() {
    super();
    for (const queue of [0, 1000]) this.onQueue(queue, () => this.calls.push(`queue ${queue}`));
    this.onConfig(() => this.calls.push('config'));
    this.onRemoval(() => this.calls.push('removal'));
  }

  hold(): void {
    this.calls.push('hold');
  }

  release(): void {
    this.calls.push('release');
  }

  fire(): boolean {
    return this.handleInterrupt(this);
  }

  ackInterrupt(): InterruptStatus {
    this.calls.push('ack');
    return InterruptStatus.from(this.status);
  }

  isGone(): boolean {
    this.calls.push('gone?');
    return this.gone;
  }
}

describe('InterruptHandlers', () => {
  it.each([
    [QUEUE_INTERRUPT, ['ack', 'queue 0', 'queue 1000']],
    [DEVICE_CONFIGURATION_INTERRUPT, ['ack', 'config']],
    [BOTH, ['ack', 'gone?', 'queue 0', 'queue 1000', 'config']],
    [0xff, ['ack', 'gone?', 'queue 0', 'queue 1000', 'config']],
  ])('serves what status %d says, acknowledged first [4.1.5.5, 4.2.3.4.1]', (status, expected) => {
    const line = new Line();
    line.status = status;
    expect(line.fire()).toBe(true);
    expect(line.calls).toEqual(expected);
  });

  it('claims no interrupt that the status does not tell of', () => {
    const line = new Line();
    expect(line.fire()).toBe(false);
    expect(line.calls).toEqual(['ack']);
  });

  it.each([BOTH, 0xff])('takes status %d for a removal if the device is gone', (status) => {
    const line = new Line();
    Object.assign(line, { status, gone: true });
    expect(line.fire()).toBe(false);
    expect(line.calls).toEqual(['ack', 'gone?', 'removal']);
  });

  it('calls no handler that was taken away, not even by one before it', () => {
    const line = new Line();
    line.onQueue(0, () => {
      line.onQueue(1000, undefined);
      line.onConfig(undefined);
    });
    line.onRemoval(undefined);
    line.status = BOTH;
    expect(line.fire()).toBe(true);
    line.gone = true;
    expect(line.fire()).toBe(false);
    expect(line.calls).toEqual(['ack', 'gone?', 'ack', 'gone?']);
  });
});

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

  it('takes no release for a hold that comes later', () => {
    const loop = turns();
    const polling = new PollingInterrupts({ schedule: loop.schedule });
    let calls = 0;
    polling.onQueue(0, () => (calls += 1));
    polling.hold();
    polling.release();
    polling.release();
    polling.hold();
    loop.turn();
    expect(calls).toBe(1);
    polling.release();
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
