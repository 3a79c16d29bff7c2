import { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { contract, contractTests } from './contract.ts';
import { Sample, sampleSubject } from './sample-driver.fixture.ts';
import type { Cancel, Subject } from './subject.ts';

contract(sampleSubject, { describe, it });

/** The behaviours that a driver does not keep. */
async function broken(subject: Subject<Sample>, only: string): Promise<string[]> {
  const names = new Set<string>();
  for (const test of contractTests(subject)) {
    if (!test.name.includes(only) || names.has(test.name)) continue;
    await test.run().catch(() => names.add(test.name));
  }
  return [...names];
}

const [requests] = sampleSubject.requests ?? [];
const [receive] = sampleSubject.receive ?? [];
const [transmit] = sampleSubject.transmit ?? [];

/** The sample driver with its calls of one kind changed. */
function worse(change: (call: ReturnType<NonNullable<typeof requests>['call']>) => object): Subject<Sample> {
  if (requests === undefined) throw new Error('the sample has requests');
  return {
    ...sampleSubject,
    requests: [{ ...requests, call: (mark) => ({ ...requests.call(mark), ...change(requests.call(mark)) }) }],
  };
}

describe('the contract finds drivers that', () => {
  it('give another answer than the request had', async () => {
    const wrong = worse(() => ({ verify: requests?.call(7).verify }));
    expect(await broken(wrong, 'each request gets its own answer')).toHaveLength(3);
  });

  it('ignore a signal', async () => {
    const deaf = worse(({ promise }) => ({ promise: (sample: Sample) => promise?.(sample, {}) }));
    expect(await broken(deaf, 'promise: aborted')).toHaveLength(4);
    expect(await broken(deaf, 'promise: given up')).toHaveLength(3);
  });

  it('spin through a reset', async () => {
    const stubborn = worse(({ sync }) => ({
      sync(sample: Sample, options: object) {
        try {
          return sync?.(sample, options);
        } catch (error) {
          if (VirtioError.is(error, 'DEVICE_RESET')) {
            throw new VirtioError('NOT_READY', 'not in time', { cause: error });
          }
          throw error;
        }
      },
    }));
    expect(await broken(stubborn, 'sync: reset')).toHaveLength(3);
  });

  it('lose a message', async () => {
    if (receive === undefined || transmit === undefined) throw new Error('the sample has messages');
    let count = 0;
    const take = (sample: Sample): number => {
      const mark = receive.take(sample);
      count += mark < 0 ? 0 : 1;
      return count % 10 === 9 ? -1 : mark;
    };
    expect(
      await broken({ ...sampleSubject, receive: [{ ...receive, take }] }, 'messages come in order'),
    ).toHaveLength(1);
    const offer = (sample: Sample, mark: number): boolean =>
      mark % 10 === 9 || transmit.offer?.(sample, mark) === true;
    expect(
      await broken({ ...sampleSubject, transmit: [{ ...transmit, offer }] }, 'messages arrive in order'),
    ).toHaveLength(1);
  });

  it('throw what is not typed where memory cannot be shared', async () => {
    const untyped = <A extends readonly unknown[], R>(form: ((...args: A) => R) | undefined) => {
      const kept = (thrown: unknown): unknown =>
        VirtioError.is(thrown, 'DMA_ERROR') ? new RangeError('no memory') : thrown;
      return (...args: A): R => {
        try {
          const result = form?.(...args) as R;
          if (!(result instanceof Promise)) return result;
          return result.catch((thrown: unknown) => Promise.reject(kept(thrown) as Error)) as R;
        } catch (thrown) {
          throw kept(thrown) as Error;
        }
      };
    };
    const wrong = worse(({ promise, sync, submit }) => ({
      promise: untyped(promise),
      sync: untyped(sync),
      submit: untyped(submit),
    }));
    expect(await broken(wrong, 'memory that cannot be shared')).toHaveLength(3);
  });

  it('leave their listeners on signals', async () => {
    const untidy = worse(({ promise }) => ({
      promise(sample: Sample, options: Cancel) {
        options.signal?.addEventListener('abort', () => undefined);
        return promise?.(sample, options);
      },
    }));
    expect(await broken(untidy, 'promise: the listener of an unused signal')).toHaveLength(1);
    expect(await broken(untidy, 'promise: aborted while it waits for room')).toHaveLength(1);
    expect(await broken(untidy, 'promise: given up and answered late')).toHaveLength(1);
  });

  it('keep the event loop alive after an abort, or do not keep it while they wait', async () => {
    for (const act of ['hold', 'release'] as const) {
      const wrong = worse(({ promise }) => ({
        promise(sample: Sample, options: Cancel) {
          const asked = promise?.(sample, options);
          sample.transport.interrupts?.[act]();
          return asked;
        },
      }));
      expect(await broken(wrong, 'promise: holds the event loop while it waits, and only then')).toHaveLength(
        1,
      );
      expect(await broken(wrong, 'promise: given up and never answered')).toHaveLength(1);
    }
  });

  it('keep the event loop alive for what they ask of their own accord, or do not ask to be interrupted', async () => {
    class Holding extends Sample {
      protected override readonly own = { holds: true };
    }
    const holding = {
      ...sampleSubject,
      open: (...args: Parameters<typeof sampleSubject.open>) => new Holding(...args),
    };
    expect(await broken(holding, 'request of its own')).toHaveLength(4);
    const deaf: Subject<Sample> = {
      ...sampleSubject,
      open(transport, hal) {
        Object.assign(transport.interrupts ?? {}, { fireQueue: () => undefined });
        return new Sample(transport, hal);
      },
    };
    expect(await broken(deaf, 'request of its own: keeps nothing alive beside a device')).toHaveLength(1);
  });

  it('take options that are none', async () => {
    const lax = worse(({ promise, sync }) => ({
      promise: (sample: Sample, { signal }: Cancel) =>
        promise?.(sample, typeof signal?.addEventListener === 'function' ? { signal } : {}),
      sync: (sample: Sample) => sync?.(sample, {}),
    }));
    expect(await broken(lax, 'invalid options are INVALID_PARAM')).toHaveLength(2);
  });

  it('do not understand what is no token', async () => {
    if (requests === undefined) throw new Error('the sample has requests');
    const complete = (sample: Sample, token: number): unknown => {
      if (typeof token === 'bigint') throw new TypeError('cannot mix BigInt and other types');
      return sample.complete(token);
    };
    const polling = { ...requests.polling, poll: (sample: Sample) => sample.poll(), complete };
    const wrong = { ...sampleSubject, requests: [{ ...requests, polling }] };
    expect(await broken(wrong, 'an invalid token')).toHaveLength(1);
  });

  it('report a failure twice, or swallow the errors of listeners', async () => {
    const opened = (change: (sample: Sample) => object): Subject<Sample> => ({
      ...sampleSubject,
      open(transport, hal) {
        const sample = new Sample(transport, hal);
        return Object.assign(sample, change(sample));
      },
    });
    type Listener = (value: never) => void;
    const on = (sample: Sample) =>
      sample.on.bind(sample) as (event: string, listener: Listener) => () => void;
    const loud = opened((sample) => {
      const add = on(sample);
      return {
        on: (event: string, listener: Listener) =>
          add(event, (value) => {
            listener(value);
            if (event === 'failure') listener(value);
          }),
      };
    });
    expect((await broken(loud, 'one failure')).length).toBeGreaterThan(5);
    const deaf = opened((sample) => {
      const add = on(sample);
      return {
        on: (event: string, listener: Listener) =>
          add(event, (value) => {
            try {
              listener(value);
            } catch {
              return;
            }
          }),
      };
    });
    expect(await broken(deaf, 'listener that throws')).toHaveLength(2);
    expect(await broken(deaf, 'listener for used buffers that throws')).toHaveLength(1);
  });

  it('keep memory', async () => {
    const greedy: Subject<Sample> = {
      ...sampleSubject,
      open: (transport, hal) => {
        hal.dmaAlloc(1, 'both', false);
        return new Sample(transport, hal);
      },
    };
    expect((await broken(greedy, 'receive: ')).length).toBeGreaterThan(3);
  });
});
