import { describe, expect, it } from 'vitest';
import { Sample, sampleSubject } from '../contract/sample-driver.fixture.ts';
import type { Subject } from '../contract/subject.ts';
import { fuzzDriver, FuzzFinding } from './driver-fuzzer.ts';

const [requests] = sampleSubject.requests ?? [];

/** The first finding. */
async function finding(subject: Subject<Sample>): Promise<FuzzFinding> {
  try {
    await fuzzDriver(subject, { seed: 1, steps: 20_000 });
  } catch (error) {
    if (error instanceof FuzzFinding) return error;
    throw error;
  }
  throw new Error('nothing was found');
}

describe('the fuzzer of drivers', () => {
  it('finds nothing in a driver on the engine, and sees much of it', { timeout: 60_000 }, async () => {
    const counts = await fuzzDriver(sampleSubject, { seed: 1, steps: 10_000 });
    expect(counts.lives).toBeGreaterThan(20);
    for (const number of [counts.inside, counts.moments, counts.checks]) expect(number).toBeGreaterThan(20);
    expect(counts.accesses).toBeGreaterThan(10_000);
    expect(Object.keys(counts.ends)).toEqual(
      expect.arrayContaining([
        'ok',
        'submitted',
        'ABORTED',
        'DEVICE_MISBEHAVED',
        'DEVICE_NEEDS_RESET',
        'DEVICE_RESET',
        'DISPOSED',
        'DMA_ERROR',
        'NOT_READY',
        'QUEUE_FULL',
        'UNSUPPORTED',
        'WRONG_TOKEN',
      ]),
    );
  });

  it('does the same for the same seed', async () => {
    const first = await fuzzDriver(sampleSubject, { seed: 77, steps: 500 });
    expect(await fuzzDriver(sampleSubject, { seed: 77, steps: 500 })).toEqual(first);
  });

  it('finds answers of others, with the seed that shows it again', async () => {
    if (requests === undefined) throw new Error('the sample has requests');
    let count = 0;
    const call: typeof requests.call = (mark) => ({
      ...requests.call(mark),
      ...((count += 1) % 50 === 0 ? { verify: requests.call(mark + 1).verify } : {}),
    });
    const subject = { ...sampleSubject, requests: [{ ...requests, call }] };
    const { seed, message } = await finding(subject);
    expect(message).toContain(`seed ${seed}`);
  });

  it('finds errors that are not typed, or have no cause', async () => {
    class Untyped extends Sample {
      override poll(): number {
        const token = super.poll();
        if (token % 7 === 6) throw new TypeError('oops');
        return token;
      }
    }
    const { message } = await finding({
      ...sampleSubject,
      open: (transport, hal) => new Untyped(transport, hal),
    });
    expect(message).toContain('oops');
  });
});
