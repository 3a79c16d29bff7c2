import type { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { bytesOf, OWN, Sample, sampleSubject } from '../contract/sample-driver.fixture.ts';
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

  it.each<[string, RegExp, (sample: Sample) => object]>([
    [
      'a failure that is reported twice',
      /2 failures were reported|reported twice/,
      (sample) => {
        const fail = sample.fail.bind(sample);
        return {
          fail(error: VirtioError) {
            const failed = sample.failure !== undefined;
            fail(error);
            // As of a driver that reports it itself, too.
            if (failed) return;
            (sample as unknown as { emit(event: string, value: unknown): void }).emit('failure', error);
          },
        };
      },
    ],
    [
      'a failure that is not reported',
      /failed without reporting it/,
      (sample) => {
        const on = sample.on.bind(sample);
        return {
          on: (event: 'failure' | 'used', listener: () => void) =>
            event === 'failure' ? () => undefined : on(event, listener),
        };
      },
    ],
    [
      'a message that is lost on the way to the device',
      /sent by queue 2 and did not arrive/,
      (sample) => {
        const send = sample.trySend.bind(sample);
        return { trySend: (mark: number) => mark % 31 === 30 || send(mark) };
      },
    ],
    [
      'a message that is sent twice',
      /which was not sent, or it got it twice/,
      (sample) => {
        const send = sample.trySend.bind(sample);
        return {
          trySend(mark: number) {
            const sent = send(mark);
            if (sent && mark % 31 === 30) send(mark);
            return sent;
          },
        };
      },
    ],
    [
      'a message of the device that is lost',
      /were sent and did not arrive/,
      (sample) => {
        const take = sample.tryReceive.bind(sample);
        return {
          tryReceive() {
            const mark = take();
            return mark % 31 === 30 ? -1 : mark;
          },
        };
      },
    ],
    [
      'a promise that never settles',
      /did not settle/,
      (sample) => {
        const ask = sample.ask.bind(sample);
        let count = 0;
        return {
          ask: (...args: Parameters<Sample['ask']>) =>
            ask(...args).then((value) => ((count += 1) % 50 === 49 ? new Promise(() => undefined) : value)),
        };
      },
    ],
    [
      'an abort that is not heeded',
      /promises that did not settle|waits for messages that did not end/,
      (sample) => {
        const receive = sample.receive.bind(sample);
        return { receive: () => receive({}) };
      },
    ],
    [
      'a request that is not given up',
      /belongs to no request|which is stale, did something/,
      (sample) => {
        const cancel = sample.cancel.bind(sample);
        let count = 0;
        return {
          cancel(token: number) {
            if ((count += 1) % 3 !== 2) cancel(token);
          },
        };
      },
    ],
    [
      "a token of the driver's own that its caller gets, once the device has made the driver ask",
      /belongs to no request/,
      (sample) => ({
        onConfigChange() {
          if (sample.transport.readConfig(0, 1) === 0) return;
          sample.submitAsk(bytesOf(OWN), new Uint8Array(16));
        },
      }),
    ],
    [
      'an event loop that is kept alive',
      /holds on the event loop/,
      (sample) => {
        const ask = sample.ask.bind(sample);
        return {
          ask(...args: Parameters<Sample['ask']>) {
            sample.transport.interrupts?.hold();
            return ask(...args);
          },
        };
      },
    ],
  ])('finds %s', { timeout: 60_000 }, async (_name, expected, worse) => {
    const { message } = await finding({
      ...sampleSubject,
      open(transport, hal) {
        const sample = new Sample(transport, hal);
        return Object.assign(sample, worse(sample));
      },
    });
    expect(message).toMatch(expected);
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
