import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { ContractBreach } from '../contract/check.ts';
import { type Sample, sampleSubject } from '../contract/sample-driver.fixture.ts';
import { Scene } from '../contract/scene.ts';
import type { Subject } from '../contract/subject.ts';
import { DriverViolation } from '../device-queue.ts';
import { ringVariants } from '../ring-variants.ts';
import { type Cause, Causes } from './causes.ts';
import { emptyFuzzCounts } from './fuzz-counts.ts';
import { FuzzMessages } from './fuzz-messages.ts';
import { World } from './world.ts';

const [ring] = ringVariants;
const error = (code: VirtioErrorCode): VirtioError => new VirtioError(code, 'made up');

function makeWorld(subject: Subject<Sample> = sampleSubject): World<Sample> {
  if (ring === undefined) throw new Error('there are no rings');
  const setting = { ring, wake: 'interrupts', queueSize: 4 } as const;
  const scene = new Scene(subject, setting);
  const options = {
    ...setting,
    ...{ seed: 1, lying: true, troubled: true, reentrant: true, throwing: false, steps: 1 },
  };
  return new World(subject, options, emptyFuzzCounts(), scene, undefined);
}

describe('the fuzzer finds an error', () => {
  it.each([
    ['DEVICE_RESET', 'reset'],
    ['DEVICE_RESET', 'queue reset'],
    ['DEVICE_MISBEHAVED', 'lie'],
    ['DEVICE_NEEDS_RESET', 'needs reset'],
    ['DEVICE_REMOVED', 'removed'],
    ['DISPOSED', 'disposed'],
    ['DMA_ERROR', 'share'],
  ] as const)('%s that has no cause, and it has one after: %s', (code, cause) => {
    const causes = new Causes();
    causes.happened('ready');
    const others = (
      ['ready', 'reset', 'queue reset', 'lie', 'needs reset', 'removed', 'disposed', 'share'] as const
    ).filter((other: Cause) => other !== cause && !(code === 'DEVICE_RESET' && other.endsWith('reset')));
    const since = causes.since();
    for (const other of others) causes.happened(other);
    expect(() => causes.judge(error(code), since, 'a call', [])).toThrow(/a call ended with .* no cause/);
    causes.happened(cause);
    expect(() => causes.judge(error(code), since, 'a call', [])).not.toThrow();
  });

  it('of a code that the call may not end with', () => {
    const causes = new Causes();
    const since = causes.since();
    for (const code of ['QUEUE_FULL', 'NOT_READY', 'WRONG_TOKEN', 'ABORTED', 'IO_ERROR'] as const) {
      expect(() => causes.judge(error(code), since, 'a call', [])).toThrow(ContractBreach);
      expect(() => causes.judge(error(code), since, 'a call', [code])).not.toThrow();
    }
  });

  it('that is not typed, whatever has happened', () => {
    const causes = new Causes();
    const since = causes.since();
    causes.happened('lie');
    causes.happened('reset');
    for (const wrong of [new TypeError('oops'), 'text', undefined, { code: 'DEVICE_RESET' }]) {
      expect(() => causes.judge(wrong, since, 'a call', [])).toThrow(/not a VirtioError/);
    }
  });

  it('of a cause that a reset has ended before the call', () => {
    const causes = new Causes();
    causes.happened('ready');
    const before = causes.since();
    causes.happened('lie');
    expect(causes.tainted).toBe(true);
    causes.happened('reset');
    causes.happened('ready');
    expect(causes.tainted).toBe(false);
    const after = causes.since();
    expect(() => causes.judge(error('DEVICE_MISBEHAVED'), before, 'a call', [])).not.toThrow();
    for (const code of ['DEVICE_MISBEHAVED', 'DEVICE_RESET'] as const) {
      expect(() => causes.judge(error(code), after, 'a call', [])).toThrow(/no cause/);
    }
  });

  it('DEVICE_MISBEHAVED, but not until what stands on the driver is made ready again', () => {
    const causes = new Causes();
    causes.happened('ready');
    causes.happened('lie');
    causes.happened('reset');
    expect(() => causes.judge(error('DEVICE_MISBEHAVED'), causes.since(), 'a call', [])).not.toThrow();
    causes.happened('ready');
    expect(() => causes.judge(error('DEVICE_MISBEHAVED'), causes.since(), 'a call', [])).toThrow(/no cause/);
  });
});

describe('the fuzzer judges', () => {
  it('a broken rule as a finding, but not if the device has lied', () => {
    const world = makeWorld();
    world.causes.happened('ready');
    const violation = new DriverViolation('an index that is too large');
    const since = world.causes.since();
    expect(() => world.judge(violation, since, 'a call')).toThrow(/not a VirtioError/);
    world.causes.happened('lie');
    expect(() => world.judge(violation, since, 'a call')).not.toThrow();
    world.causes.happened('reset');
    // The call was made before the reset.
    expect(() => world.judge(violation, since, 'a call')).not.toThrow();
    world.causes.happened('ready');
    expect(() => world.judge(violation, world.causes.since(), 'a call')).toThrow(/not a VirtioError/);
  });

  it('errors of what stands on a driver by what the subject says of them', () => {
    const world = makeWorld({
      ...sampleSubject,
      ready: () => undefined,
      unready: ['SOCKET_NOT_CONNECTED'],
      misled: ['SOCKET_PROTOCOL'],
    });
    world.causes.happened('ready');
    const since = world.causes.since();
    for (const code of ['SOCKET_NOT_CONNECTED', 'SOCKET_PROTOCOL'] as const) {
      expect(() => world.judge(error(code), since, 'a call')).toThrow(/no cause/);
    }
    world.causes.happened('reset');
    expect(() => world.judge(error('SOCKET_NOT_CONNECTED'), since, 'a call')).not.toThrow();
    expect(() => world.judge(error('SOCKET_PROTOCOL'), since, 'a call')).toThrow(/no cause/);
    world.causes.happened('lie');
    expect(() => world.judge(error('SOCKET_PROTOCOL'), since, 'a call')).not.toThrow();
  });

  it('an aborted wait, and one without interrupts, by what was done', () => {
    const world = makeWorld();
    expect(world.endsOfWaits()).toEqual([]);
    expect(world.endsOfWaits({ signal: { aborted: false } } as never)).toEqual([]);
    expect(world.endsOfWaits({ signal: { aborted: true } } as never)).toEqual(['ABORTED']);
  });

  it('a message that the device got and nobody sent as a finding, but not if the device has lied', () => {
    const world = makeWorld();
    const messages = new FuzzMessages(world);
    world.scene.received.push(77);
    expect(() => messages.look()).toThrow(/got message 77, which was not sent/);
    world.causes.happened('lie');
    world.scene.received.push(78);
    expect(() => messages.look()).not.toThrow();
    world.causes.happened('reset');
    world.scene.received.push(79);
    expect(() => messages.look()).toThrow(/79/);
  });
});
