/** What every driver must do about requests with a promise. */
import type { VirtioErrorCode } from '@virtio/core';
import { AWAKE, type Behaviour, LISTENER_ERROR, WAKING } from './behaviour.ts';
import { Canceller, check, equal, throws } from './check.ts';
import type { Scene, Started } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** Requests with a promise. */
export function promiseBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  return [
    {
      name: 'promise: answers in any order reach their own requests',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const started = Array.from({ length: 3 * scene.setting.queueSize }, () => scene.start(requests));
        for (
          let n = 0;
          n < started.length && started.some(({ watched }) => watched.state === 'pending');
          n += 1
        ) {
          await scene.settle();
          scene.answer(scene.setting.ring.inOrder ? [...scene.held] : scene.held.toReversed());
        }
        for (const one of started) await scene.finish(one);
      },
    },
    {
      name: 'promise: callers that wait for room get it in their order',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const started: Started<D>[] = [];
        const seen: number[] = [];
        for (let n = 0; n < 3 * scene.setting.queueSize; n += 1) started.push(scene.start(requests));
        while (seen.length < started.length) {
          await scene.settle();
          const next = scene.held.map(({ mark }) => mark);
          check(
            next.length > 0,
            `the device got ${seen.length} of ${started.length} requests, and no more come`,
          );
          seen.push(...next);
          scene.answer();
        }
        equal(seen.join(), started.map(({ mark }) => mark).join(), 'the marks that the device saw');
        for (const one of started) await scene.finish(one);
      },
    },
    {
      name: 'promise: aborted before it begins: nothing is sent',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const canceller = new Canceller();
        canceller.abort();
        const started = Array.from({ length: 2 * scene.setting.queueSize }, () =>
          scene.start(requests, { signal: canceller.signal }),
        );
        for (const { watched, untouched } of started) {
          await scene.rejection(watched, 'ABORTED');
          untouched();
        }
        equal(scene.held.length, 0, 'requests that the device got');
        await scene.works();
      },
    },
    {
      name: 'promise: aborted while it waits for room: nothing is sent, others go on',
      wakes: AWAKE,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const first = Array.from({ length: capacity }, () => scene.start(requests));
        await scene.settle();
        const canceller = new Canceller();
        const cancelled = Array.from({ length: 3 }, () =>
          scene.start(requests, { signal: canceller.signal }),
        );
        const last = scene.start(requests);
        await scene.settle();
        canceller.abort();
        for (const { watched, untouched } of cancelled) {
          await scene.rejection(watched, 'ABORTED');
          untouched();
        }
        for (const { watched } of first) equal(watched.state, 'pending', 'a request that was not aborted');
        equal(scene.held.length, capacity, 'requests that the device has');
        scene.answer();
        await scene.settle();
        equal(scene.held.map(({ mark }) => mark).join(), String(last.mark), 'who got room');
        scene.answer();
        for (const one of [...first, last]) await scene.finish(one);
        equal(canceller.signal.listeners, 0, 'listeners left on the signal');
        await scene.works();
      },
    },
    {
      name: 'promise: the listener of an unused signal is removed, an abort that comes too late does nothing',
      wakes: AWAKE,
      async run(scene) {
        const canceller = new Canceller();
        const started = scene.start(requests, { signal: canceller.signal });
        await scene.finish(started);
        equal(canceller.signal.listeners, 0, 'listeners left on the signal');
        canceller.abort();
        await scene.finish(started);
        await scene.works();
      },
    },
    {
      name: 'promise: aborted in the turn in which the answer arrives: answered or aborted, and nothing is lost',
      wakes: AWAKE,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        for (const late of [false, true]) {
          scene.answering = false;
          const canceller = new Canceller();
          const started = scene.start(requests, { signal: canceller.signal });
          await scene.settle();
          if (late) scene.answer();
          canceller.abort();
          if (!late) scene.answer();
          await scene.settled(started.watched);
          if (started.watched.state === 'resolved') await scene.finish(started);
          else {
            await scene.rejection(started.watched, 'ABORTED');
            await scene.settle();
            started.untouched();
          }
          equal(
            await scene.capacity(requests),
            capacity,
            'requests that the device gets at once, afterwards',
          );
        }
      },
    },
    {
      name: 'promise: the caller empties its array of buffers while the request waits for room',
      wakes: AWAKE,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const first = Array.from({ length: capacity }, () => scene.start(requests));
        await scene.settle();
        const spoilt = Array.from({ length: 2 }, () => scene.start(requests));
        await scene.settle();
        for (const { call } of spoilt) call.spoil?.();
        for (let n = 0; n < 4; n += 1) {
          scene.answer();
          await scene.settle();
        }
        for (const one of [...first, ...spoilt]) await scene.finish(one);
        await scene.works();
      },
    },
    {
      name: 'promise: holds the event loop while it waits, and only then',
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        const [kept, cancelled] = [scene.start(requests), new Canceller()];
        const other = scene.start(requests, { signal: cancelled.signal });
        await scene.settle();
        check((scene.interrupts?.holds ?? 0) > 0, 'nothing holds the event loop while a promise waits');
        cancelled.abort();
        await scene.rejection(other.watched, 'ABORTED');
        check(
          (scene.interrupts?.holds ?? 0) > 0,
          'nothing holds the event loop while another promise still waits',
        );
        scene.answer();
        await scene.finish(kept);
        await scene.idle();
      },
    },
    {
      name: 'promise: is refused without interrupts, before anything is sent',
      wakes: ['no interrupts'],
      async run(scene) {
        const shares = scene.device.hal.counts.shares;
        const seen: number[] = [];
        scene.onRequest = () => seen.push(1);
        for (let n = 0; n < 2 * scene.setting.queueSize; n += 1) {
          const { watched } = scene.start(requests);
          await scene.rejection(watched, 'UNSUPPORTED');
        }
        await scene.settle();
        equal(seen.length, 0, 'requests that the device got');
        equal(scene.device.hal.counts.shares, shares, 'buffers that were shared');
        scene.onRequest = undefined;
        await scene.works();
      },
    },
    ...(
      [
        ['reset', 'DEVICE_RESET', (scene) => scene.driver.reset()],
        ['dispose', 'DISPOSED', (scene) => scene.driver[Symbol.dispose]()],
        ['unplugged', 'DEVICE_REMOVED', (scene) => scene.device.remove()],
        ['the transport is disposed', 'DEVICE_REMOVED', (scene) => scene.transport[Symbol.dispose]()],
        ['needs a reset', 'DEVICE_NEEDS_RESET', (scene) => scene.device.needsReset()],
      ] as readonly (readonly [string, VirtioErrorCode, (scene: Scene<D>) => void])[]
    ).map(([what, code, end]): Behaviour<D> => ({
      name: `promise: ${what} while requests are in flight and others wait for room: all reject with ${code}`,
      wakes: AWAKE,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const started = Array.from({ length: 2 * capacity + 1 }, () => scene.start(requests));
        await scene.settle();
        end(scene);
        for (const { watched, untouched } of started) {
          await scene.rejection(watched, code);
          untouched();
        }
        await scene.idle();
        equal(
          scene.failures.length,
          code === 'DEVICE_REMOVED' || code === 'DEVICE_NEEDS_RESET' ? 1 : 0,
          'failures that were reported',
        );
        if (code === 'DISPOSED' || code === 'DEVICE_REMOVED') return;
        if (code === 'DEVICE_NEEDS_RESET') scene.driver.reset();
        await scene.ready();
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    })),
    {
      name: 'promise: the queue alone is reset while requests are in flight and others wait for room: DEVICE_RESET',
      wakes: AWAKE,
      async run(scene) {
        if (!scene.device.has('RING_RESET') || scene.driver.resetQueue === undefined) return;
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const started = Array.from({ length: 2 * capacity + 1 }, () => scene.start(requests));
        await scene.settle();
        scene.driver.resetQueue(requests.queue);
        for (const { watched, untouched } of started) {
          await scene.rejection(watched, 'DEVICE_RESET');
          untouched();
        }
        equal(scene.failures.length, 0, 'failures that were reported');
        await scene.idle();
        await scene.ready();
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: 'promise: answered and then reset before the driver has polled',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const started = scene.start(requests);
        await scene.settle();
        scene.answer();
        scene.driver.reset();
        await scene.settled(started.watched);
        if (started.watched.state === 'resolved') await scene.finish(started);
        else await scene.rejection(started.watched, 'DEVICE_RESET');
        await scene.ready();
        await scene.works();
      },
    },
    {
      name: 'promise: a caller whose request a reset rejects makes another one at once',
      wakes: AWAKE,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const again: Started<D>[] = [];
        const started = Array.from({ length: capacity }, () => scene.start(requests));
        for (const { watched } of started) {
          void watched.done.then(() => again.push(scene.start(requests)));
        }
        await scene.settle();
        scene.driver.reset();
        await scene.settle();
        scene.answer();
        equal(again.length, capacity, 'requests that were made again');
        for (const one of again) await scene.finish(one);
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
      },
    },
    {
      name: 'promise: a second driver is refused on the transport, and the first goes on',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const started = scene.start(requests);
        await scene.settle();
        throws(
          () => scene.subject.open(scene.transport, scene.device.hal),
          'a second driver',
          'ALREADY_USED',
        );
        scene.answer();
        await scene.finish(started);
        await scene.works();
        throws(
          () => scene.subject.open(scene.transport, scene.device.hal),
          'a second driver',
          'ALREADY_USED',
        );
        await scene.works();
      },
    },
    {
      name: 'promise: a failure listener that throws has no effect on the driver',
      throws: true,
      wakes: WAKING,
      async run(scene) {
        let calls = 0;
        scene.driver.on('failure', () => {
          calls += 1;
          throw new Error(LISTENER_ERROR);
        });
        scene.answering = false;
        const started = Array.from({ length: 2 * scene.setting.queueSize }, () => scene.start(requests));
        await scene.settle();
        scene.device.needsReset();
        for (const { watched } of started) await scene.rejection(watched, 'DEVICE_NEEDS_RESET');
        equal(calls, 1, 'calls of the listener');
        await scene.idle();
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
  ];
}
