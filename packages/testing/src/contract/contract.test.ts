import { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { contract, contractTests } from './contract.ts';
import { Sample, sampleSubject } from './sample-driver.fixture.ts';
import type { Subject } from './subject.ts';

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
