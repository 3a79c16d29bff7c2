/** What every driver keeps about requests that the device answers. */
import type { VirtioErrorCode } from '@virtio/core';
import { ANY, AWAKE, type Behaviour, LISTENER_ERROR, WAKING } from './behaviour.ts';
import { Canceller, check, equal, throws } from './check.ts';
import { copies, type Form, formsOf, mustBeUntouched, type Scene, type Started } from './scene.ts';
import type { Call, ContractDriver, Polling, Requests } from './subject.ts';

/** How long a synchronous form may take where it must end at once: a form that spins on says `NOT_READY`. */
const AT_ONCE = { timeoutMs: 300 } as const;

/** The behaviours of one kind of requests. */
export function requestBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  const forms = formsOf(requests);
  const all: Behaviour<D>[] = [];
  const { polling } = requests;
  for (const form of forms) all.push(...behavioursOfForm(requests, form));
  if (forms.includes('promise')) all.push(...promiseBehaviours(requests));
  if (forms.includes('sync')) all.push(...syncBehaviours(requests));
  if (forms.includes('submit') && polling !== undefined) all.push(...tokenBehaviours(requests, polling));
  return all;
}

/** What holds for each form. */
function behavioursOfForm<D extends ContractDriver>(requests: Requests<D>, form: Form): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  const gives = GIVE_UP[form];
  const behaviours: Behaviour<D>[] = [
    {
      name: `${form}: each request gets its own answer, from a device that answers inside of notify`,
      wakes,
      async run(scene) {
        await scene.works();
      },
    },
    {
      name: `${form}: works with the smallest queue`,
      wakes,
      smallest: true,
      async run(scene) {
        await scene.works();
      },
    },
    {
      name: `${form}: memory that cannot be shared is a DMA_ERROR, and nothing is lost`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        const { hal } = scene.device;
        const { shares } = hal.counts;
        for (let n = 0; n < 2 * capacity; n += 1) {
          hal.failShare();
          await attempt(scene, requests, form).catch(() => undefined);
          hal.failShare({ count: 0 });
        }
        // A driver that has memory of its own for all that a request needs shares nothing.
        check(hal.counts.shares - shares <= 2 * capacity, 'shared more than there was to share');
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: `${form}: a failed device is told in so many words, until it is reset`,
      wakes,
      async run(scene) {
        scene.device.needsReset();
        scene.driver.pollEvents();
        await scene.settle();
        await mustFail(scene, requests, form, 'DEVICE_NEEDS_RESET');
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
    {
      name: `${form}: says DISPOSED afterwards`,
      wakes,
      async run(scene) {
        scene.driver[Symbol.dispose]();
        scene.driver[Symbol.dispose]();
        await mustFail(scene, requests, form, 'DISPOSED');
        throws(() => scene.driver.reset(), 'reset() of a disposed driver', 'DISPOSED');
      },
    },
    {
      name: `${form}: an answer to a chain that does not exist is DEVICE_MISBEHAVED, one failure, and a reset mends it`,
      wakes,
      async run(scene) {
        scene.answering = false;
        scene.onRequest = () => scene.lie(requests.queue);
        await mustFail(scene, requests, form, 'DEVICE_MISBEHAVED');
        scene.onRequest = undefined;
        equal(scene.failures.length, 1, 'failures that were reported');
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
    {
      name: `${form}: asked from inside a failure listener: ends with the failure`,
      wakes,
      async run(scene) {
        const asked: Promise<void>[] = [];
        scene.driver.on('failure', () => {
          asked.push(mustFail(scene, requests, form, 'DEVICE_NEEDS_RESET'));
        });
        scene.device.needsReset();
        scene.driver.pollEvents();
        await scene.settle();
        equal(asked.length, 1, 'calls of the listener');
        await Promise.all(asked);
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
    ...(['reset', 'dispose'] as const).flatMap((end) => insideBehaviours(requests, form, end)),
  ];
  if (gives(requests)) behaviours.push(...lateBehaviours(requests, form));
  return behaviours;
}

/** Whether a request of a form can be given up. */
const GIVE_UP: Readonly<Record<Form, <D>(requests: Requests<D>) => boolean>> = {
  promise: () => true,
  sync: () => true,
  submit: ({ polling }) => polling?.cancel !== undefined,
};

/** Gives requests up that the device answers later, or never. */
function lateBehaviours<D extends ContractDriver>(requests: Requests<D>, form: Form): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  return [
    {
      name: `${form}: given up and answered late: the buffers come back once, the answer reaches nobody`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        const { shares } = scene.device.hal;
        scene.answering = false;
        const givenUp = await giveUp(scene, requests, form);
        equal(scene.held.length, 1, 'requests that the device has');
        scene.answer();
        await scene.settle();
        await look(scene, requests);
        givenUp();
        // A driver with nobody who waits need not look before it is asked to.
        scene.driver.pollEvents();
        equal(scene.device.hal.shares.length, shares.length, 'buffers that are shared, afterwards');
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
        givenUp();
      },
    },
    {
      name: `${form}: as many are given up as there are slots, and then all works again`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const givenUp: (() => void)[] = [];
        for (let n = 0; n < capacity; n += 1) givenUp.push(await giveUp(scene, requests, form));
        equal(scene.held.length, capacity, 'requests that the device has');
        for (const other of scene.forms(requests)) {
          if (other !== 'promise') await mustFail(scene, requests, other, 'QUEUE_FULL');
        }
        const waiting = scene.forms(requests).includes('promise') ? scene.start(requests) : undefined;
        await scene.settle();
        scene.answer();
        await scene.settle();
        scene.answer();
        if (waiting) await scene.finish(waiting);
        for (const untouched of givenUp) untouched();
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: `${form}: given up, and a reset comes before the answer`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const givenUp: (() => void)[] = [];
        for (let n = 0; n < capacity; n += 1) givenUp.push(await giveUp(scene, requests, form));
        scene.driver.reset();
        await scene.ready();
        for (const untouched of givenUp) untouched();
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: `${form}: given up and never answered: nothing keeps the event loop alive, and dispose gives all back`,
      wakes,
      async run(scene) {
        scene.answering = false;
        const untouched = await giveUp(scene, requests, form);
        await scene.idle();
        untouched();
      },
    },
  ];
}

/** The driver is reset or disposed from inside of a call: by a listener, or by the device's doing. */
function insideBehaviours<D extends ContractDriver>(
  requests: Requests<D>,
  form: Form,
  end: 'reset' | 'dispose',
): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  const doIt = (scene: Scene<D>): void => {
    if (end === 'reset') scene.driver.reset();
    else scene.driver[Symbol.dispose]();
  };
  const over: VirtioErrorCode = end === 'reset' ? 'DEVICE_RESET' : 'DISPOSED';
  // A token may have been returned that means nothing any more.
  const ended: readonly VirtioErrorCode[] = form === 'submit' ? [over, 'WRONG_TOKEN'] : [over];
  const codes: readonly VirtioErrorCode[] = ['DEVICE_MISBEHAVED', ...ended];
  const after = async (scene: Scene<D>): Promise<void> => {
    scene.onRequest = undefined;
    if (end === 'dispose') {
      await mustFail(scene, requests, form, 'DISPOSED');
      return;
    }
    await scene.ready();
    if (scene.forms(requests).includes('promise')) await keepsApart(scene, requests);
    await scene.works();
  };
  return [
    {
      name: `${form}: ${end} from inside a failure listener, which a lie of the device calls inside of the request`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.driver.on('failure', () => doIt(scene));
        scene.answering = false;
        // Another request is in flight meanwhile, if there is room for it.
        const other =
          scene.hasPromises && form !== 'promise' && requests.call(1).promise !== undefined && capacity > 1;
        const started = other ? scene.start(requests) : undefined;
        await scene.settle();
        scene.onRequest = () => {
          scene.onRequest = undefined;
          scene.lie(requests.queue);
        };
        await mustFail(scene, requests, form, ...codes);
        if (started) await scene.rejection(started.watched, ...codes);
        await after(scene);
      },
    },
    {
      name: `${form}: ${end} while the device takes the request, inside of notify`,
      wakes,
      async run(scene) {
        scene.answering = false;
        scene.onRequest = () => {
          scene.onRequest = undefined;
          doIt(scene);
        };
        await mustFail(scene, requests, form, ...ended);
        await after(scene);
      },
    },
  ];
}

/** Promises. */
function promiseBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
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
      name: 'promise: those who wait for room get it in their order',
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
      name: 'promise: a signal that is never used is let go of, one that comes too late does nothing',
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
      name: 'promise: aborted in the turn in which the answer comes: answered or aborted, and nothing is lost',
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
      name: 'promise: answered and reset before anybody looked',
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
      name: 'promise: who is rejected by a reset asks again at once',
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
        equal(again.length, capacity, 'requests that were made anew');
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
      name: 'promise: a failure listener that throws disturbs nothing',
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

/** Synchronous requests. */
function syncBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  return [
    ...(
      [
        ['the device is unplugged', 'DEVICE_REMOVED', (scene) => scene.device.remove()],
        ['the device needs a reset', 'DEVICE_NEEDS_RESET', (scene) => scene.device.needsReset()],
      ] as readonly (readonly [string, VirtioErrorCode, (scene: Scene<D>) => void])[]
    ).map(([what, code, end]): Behaviour<D> => ({
      name: `sync: ${what} while it spins: ${code} at once, one failure`,
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        scene.onRequest = () => {
          scene.onRequest = undefined;
          end(scene);
        };
        await mustFail(scene, requests, 'sync', code);
        await scene.settle();
        equal(scene.failures.length, 1, 'failures that were reported');
        equal(scene.driver.failure?.code, code, 'the failure of the driver');
        if (code === 'DEVICE_REMOVED') return;
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    })),
    {
      name: 'sync: a failure listener that throws does not hide the failure, and the driver can be reset',
      throws: true,
      wakes: ANY,
      async run(scene) {
        scene.driver.on('failure', () => {
          throw new Error(LISTENER_ERROR);
        });
        scene.answering = false;
        scene.onRequest = () => {
          scene.onRequest = undefined;
          scene.lie(requests.queue);
        };
        await mustFail(scene, requests, 'sync', 'DEVICE_MISBEHAVED');
        await scene.settle();
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
    ...(requests.call(1).promise
      ? [
          {
            name: 'sync: while promises wait, each gets its own answer',
            wakes: AWAKE,
            async run(scene: Scene<D>) {
              const capacity = await scene.capacity(requests);
              scene.answering = false;
              const started = scene.start(requests);
              await scene.settle();
              if (capacity === 1) {
                await mustFail(scene, requests, 'sync', 'QUEUE_FULL');
                scene.answer();
                await scene.finish(started);
                return;
              }
              const call = requests.call(scene.mark());
              scene.onRequest = () => {
                scene.onRequest = undefined;
                scene.answering = true;
                scene.answer();
              };
              call.verify(call.sync?.(scene.driver, AT_ONCE));
              await scene.finish(started);
              await scene.idle();
            },
          },
        ]
      : []),
  ];
}

/** Tokens. */
function tokenBehaviours<D extends ContractDriver>(
  requests: Requests<D>,
  polling: Polling<D>,
): Behaviour<D>[] {
  const complete = (scene: Scene<D>, token: number, code: VirtioErrorCode, what: string): void => {
    throws(() => polling.complete(scene.driver, token), `complete() of ${what}`, code);
  };
  return [
    {
      name: 'submit: a full queue is QUEUE_FULL, and nothing is lost',
      wakes: ANY,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const submitted: { readonly call: Call<D>; readonly token: number }[] = [];
        for (let n = 0; n < capacity; n += 1) {
          const call = requests.call(scene.mark());
          submitted.push({ call, token: scene.submit(call) });
        }
        for (let n = 0; n < 3; n += 1) {
          await mustFail(scene, requests, 'submit', 'QUEUE_FULL');
          if (requests.call(1).sync) await mustFail(scene, requests, 'sync', 'QUEUE_FULL');
        }
        equal(polling.poll(scene.driver), -1, 'poll() while nothing is answered');
        scene.answer();
        for (const { call, token } of submitted) await scene.completed(requests, call, token);
        equal(polling.poll(scene.driver), -1, 'poll() when all is completed');
        await scene.works();
      },
    },
    {
      name: 'submit: a token before its time is NOT_READY, after it WRONG_TOKEN, also when its slot is used anew',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        const call = requests.call(scene.mark());
        const token = scene.submit(call);
        complete(scene, token, 'NOT_READY', 'a request in flight');
        scene.answer();
        await scene.completed(requests, call, token);
        complete(scene, token, 'WRONG_TOKEN', 'a request that was completed');
        for (let n = 0; n < 3 * scene.setting.queueSize; n += 1) {
          const other = requests.call(scene.mark());
          const next = scene.submit(other);
          complete(scene, token, 'WRONG_TOKEN', 'a request of an earlier use of the slot');
          scene.answer();
          await scene.settle();
          complete(scene, token, 'WRONG_TOKEN', 'a request of an earlier use of the slot');
          await scene.completed(requests, other, next);
        }
      },
    },
    {
      name: 'submit: what is no token is WRONG_TOKEN',
      wakes: ['no interrupts'],
      async run(scene) {
        scene.answering = false;
        const call = requests.call(scene.mark());
        const token = scene.submit(call);
        for (const wrong of [-1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 53, token + 0.5]) {
          complete(scene, wrong, 'WRONG_TOKEN', `what is no token (${wrong})`);
          if (polling.cancel) {
            throws(() => polling.cancel?.(scene.driver, wrong), `cancel(${wrong})`, 'WRONG_TOKEN');
          }
        }
        scene.answer();
        await scene.completed(requests, call, token);
      },
    },
    {
      name: 'submit: tokens from before a reset are WRONG_TOKEN, in flight as well as answered',
      wakes: ANY,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        scene.answering = false;
        const tokens = Array.from({ length: capacity }, () => scene.submit(requests.call(scene.mark())));
        scene.answer(scene.held.slice(0, 1));
        await scene.settle();
        scene.driver.reset();
        await scene.ready();
        equal(polling.poll(scene.driver), -1, 'poll() after a reset');
        for (const token of tokens) complete(scene, token, 'WRONG_TOKEN', 'a request from before a reset');
        const calls = Array.from({ length: capacity }, () => requests.call(scene.mark()));
        const submitted = calls.map((call) => ({ call, token: scene.submit(call) }));
        for (const token of tokens) complete(scene, token, 'WRONG_TOKEN', 'a request from before a reset');
        scene.answer();
        await scene.settle();
        for (const token of tokens) complete(scene, token, 'WRONG_TOKEN', 'a request from before a reset');
        for (const { call, token } of submitted) await scene.completed(requests, call, token);
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: 'submit: answered and not completed when the driver is disposed',
      wakes: ANY,
      async run(scene) {
        scene.answering = true;
        const token = scene.submit(requests.call(scene.mark()));
        await scene.settle();
        scene.driver[Symbol.dispose]();
        throws(
          () => polling.complete(scene.driver, token),
          'complete() after dispose',
          'DISPOSED',
          'WRONG_TOKEN',
        );
      },
    },
    {
      name: 'submit: the failure of the device is thrown by poll() and complete()',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        const token = scene.submit(requests.call(scene.mark()));
        scene.device.needsReset();
        scene.driver.pollEvents();
        throws(() => polling.poll(scene.driver), 'poll()', 'DEVICE_NEEDS_RESET');
        complete(scene, token, 'DEVICE_NEEDS_RESET', 'a request in flight');
        equal(scene.failures.length, 1, 'failures that were reported');
        scene.driver.reset();
        await scene.ready();
        complete(scene, token, 'WRONG_TOKEN', 'a request from before a reset');
        await scene.works();
      },
    },
    ...(polling.cancel
      ? [
          {
            name: 'submit: a token that was given up is WRONG_TOKEN, also if it was answered before',
            wakes: ANY,
            async run(scene: Scene<D>) {
              const capacity = await scene.capacity(requests);
              for (const answered of [false, true]) {
                scene.answering = false;
                const call = requests.call(scene.mark());
                const before = copies(call);
                const token = scene.submit(call);
                if (answered) scene.answer();
                await scene.settle();
                polling.cancel?.(scene.driver, token);
                complete(scene, token, 'WRONG_TOKEN', 'a request that was given up');
                throws(() => polling.cancel?.(scene.driver, token), 'cancel() a second time', 'WRONG_TOKEN');
                scene.answer();
                await scene.settle();
                equal(polling.poll(scene.driver), -1, 'poll() when all is given up');
                complete(scene, token, 'WRONG_TOKEN', 'a request that was given up');
                mustBeUntouched(call, before, 0);
                equal(
                  await scene.capacity(requests),
                  capacity,
                  'requests that the device gets at once, afterwards',
                );
              }
            },
          },
        ]
      : []),
  ];
}

/**
 * Two requests after trouble: one that is answered while no interrupt is seen, and one that is not. What was left from before
 * must not reach either, and no buffer may be taken back that the device still has.
 */
async function keepsApart<D extends ContractDriver>(scene: Scene<D>, requests: Requests<D>): Promise<void> {
  scene.answering = false;
  if (scene.interrupts) scene.interrupts.masked = true;
  const a = scene.start(requests);
  await drain();
  scene.answer();
  const b = scene.start(requests);
  await drain();
  if (scene.interrupts) scene.interrupts.masked = false;
  await scene.settle();
  scene.answer();
  await scene.settle();
  scene.answer();
  await scene.finish(a);
  await scene.finish(b);
  scene.device.assertObeyed();
  scene.answering = true;
}

async function drain(): Promise<void> {
  for (let n = 0; n < 40; n += 1) await Promise.resolve();
}

/** Makes one request that the device does not answer, and gives it up; returns a check that its buffers are as they were. */
async function giveUp<D extends ContractDriver>(
  scene: Scene<D>,
  requests: Requests<D>,
  form: Form,
): Promise<() => void> {
  if (form === 'promise') {
    const canceller = new Canceller();
    const { watched, untouched } = scene.start(requests, { signal: canceller.signal });
    await scene.settle();
    equal(watched.state, 'pending', 'a request that was not answered');
    canceller.abort();
    await scene.rejection(watched, 'ABORTED');
    untouched();
    equal(canceller.signal.listeners, 0, 'listeners left on the signal');
    return untouched;
  }
  const mark = scene.mark();
  const call = requests.call(mark);
  const before = copies(call);
  if (form === 'sync') {
    throws(() => call.sync?.(scene.driver, { timeoutMs: 0 }), 'the synchronous form', 'NOT_READY');
  } else requests.polling?.cancel?.(scene.driver, scene.submit(call));
  return () => mustBeUntouched(call, before, mark);
}

/** Makes one request in a form; rejects or throws as it does. A non-blocking one is polled for until something happens. */
async function attempt<D extends ContractDriver>(
  scene: Scene<D>,
  requests: Requests<D>,
  form: Form,
): Promise<unknown> {
  const call = requests.call(scene.mark());
  if (form === 'promise') {
    const watched = scene.watch(Promise.resolve(call.promise?.(scene.driver, {})), 'the promise form');
    await scene.settled(watched);
    if (watched.state === 'rejected') throw watched.error;
    return watched.value;
  }
  if (form === 'sync') return call.sync?.(scene.driver, AT_ONCE);
  const { polling } = requests;
  const token = scene.submit(call);
  polling?.poll(scene.driver);
  return polling?.complete(scene.driver, token);
}

/** Checks that a form ends with an error, and at once. */
async function mustFail<D extends ContractDriver>(
  scene: Scene<D>,
  requests: Requests<D>,
  form: Form,
  ...codes: readonly VirtioErrorCode[]
): Promise<void> {
  let result: unknown;
  try {
    result = await attempt(scene, requests, form);
  } catch (error) {
    throws(
      () => {
        throw error;
      },
      `the ${form} form`,
      ...codes,
    );
    return;
  }
  check(
    false,
    `the ${form} form returned ${String(result)}, and should have failed with ${codes.join(' or ')}`,
  );
}

/** Lets a driver without interrupts look at what was answered. */
async function look<D extends ContractDriver>(scene: Scene<D>, requests: Requests<D>): Promise<void> {
  if (scene.hasPromises) return;
  scene.driver.pollEvents();
  if (requests.polling) {
    equal(requests.polling.poll(scene.driver), -1, 'poll() after what was given up was answered');
  }
  await scene.settle();
}
