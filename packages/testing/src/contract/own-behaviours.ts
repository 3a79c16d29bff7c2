/** What every driver must do about requests that it makes of its own accord, which no caller waits for and no caller can cancel. */
import { type Behaviour, WAKING } from './behaviour.ts';
import { Canceller, check, equal } from './check.ts';
import type { Scene } from './scene.ts';
import type { ContractDriver, OwnRequest, Requests, Subject } from './subject.ts';

/** The behaviours of one such request. */
export function ownBehaviours<D extends ContractDriver>(
  subject: Subject<D>,
  own: OwnRequest,
): Behaviour<D>[] {
  const others = (subject.requests ?? []).find(
    (requests) => requests.queue === own.queue && requests.call(1).promise !== undefined,
  );
  return [
    {
      name: 'request of its own: keeps nothing alive beside a device that does not answer; the answer is taken',
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        await provoke(scene, own);
        check(scene.held.length > 0, 'the device got no request of its own');
        await scene.idle();
        const delivered = scene.interrupts?.delivered ?? 0;
        scene.answer();
        await scene.settle();
        check(
          scene.setting.wake !== 'interrupts' || (scene.interrupts?.delivered ?? 0) > delivered,
          'the driver did not ask the device to interrupt for the answer',
        );
        poll(scene);
        equal(scene.device.queue(own.queue).inFlight, 0, 'chains that the device has');
        await scene.idle();
        await scene.works();
      },
    },
    {
      name: 'request of its own: can be made again after a reset that lost it',
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        await provoke(scene, own);
        scene.driver.reset();
        await scene.ready();
        await scene.settle();
        await scene.idle();
        if (scene.held.length === 0) await provoke(scene, own);
        check(scene.held.length > 0, 'the device got no request of its own after the reset');
        await scene.idle();
        scene.answer();
        poll(scene);
        await scene.works();
      },
    },
    ...(others === undefined ? [] : besideOthers(own, others)),
  ];
}

/** The behaviours where callers have requests on the same queue. */
function besideOthers<D extends ContractDriver>(own: OwnRequest, others: Requests<D>): Behaviour<D>[] {
  return [
    {
      name: 'request of its own: the event loop is kept alive for callers who wait, and only for them',
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        await provoke(scene, own);
        const canceller = new Canceller();
        const { watched } = scene.start(others, { signal: canceller.signal });
        await scene.settle();
        check((scene.interrupts?.holds ?? 0) > 0, 'nothing keeps the event loop alive while a promise waits');
        canceller.abort();
        await scene.rejection(watched, 'ABORTED');
        await scene.idle();
        const started = scene.start(others);
        for (let n = 0; n < 4; n += 1) {
          await scene.settle();
          scene.answer();
        }
        await scene.finish(started);
        await scene.idle();
        await scene.works();
      },
    },
    {
      name: 'request of its own: keeps nothing alive while the queue is full of requests that were given up',
      wakes: WAKING,
      async run(scene) {
        const capacity = await scene.capacity(others);
        scene.answering = false;
        const canceller = new Canceller();
        const started = Array.from({ length: capacity }, () =>
          scene.start(others, { signal: canceller.signal }),
        );
        await scene.settle();
        canceller.abort();
        for (const { watched } of started) await scene.rejection(watched, 'ABORTED');
        await provoke(scene, own);
        await scene.idle();
        for (let n = 0; n < 4; n += 1) {
          scene.answer();
          await scene.settle();
          poll(scene);
          await scene.idle();
        }
        equal(scene.held.length, 0, 'requests that the device has and has not answered');
        equal(await scene.capacity(others), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
  ];
}

/** Lets the device do what makes the driver ask, and the driver notice it. */
async function provoke<D extends ContractDriver>(scene: Scene<D>, own: OwnRequest): Promise<void> {
  own.provoke(scene.device);
  await scene.settle();
  poll(scene);
  await scene.settle();
}

/** A source that polls does not while nobody waits. */
function poll<D extends ContractDriver>({ setting, driver }: Scene<D>): void {
  if (setting.wake === 'polling') driver.pollEvents();
}
