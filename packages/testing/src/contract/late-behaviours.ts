/** What every driver must do about requests that were given up, and that the device answers late or never. */
import { giveUp, mustFail } from './attempt.ts';
import { ANY, AWAKE, type Behaviour } from './behaviour.ts';
import { equal } from './check.ts';
import type { Form, Scene } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** Whether a request of a form can be given up. */
export const GIVE_UP: Readonly<Record<Form, <D>(requests: Requests<D>) => boolean>> = {
  promise: () => true,
  sync: () => true,
  submit: ({ polling }) => polling?.cancel !== undefined,
};

/** The behaviours of requests that are given up and answered late or never. */
export function lateBehaviours<D extends ContractDriver>(requests: Requests<D>, form: Form): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  return [
    {
      name: `${form}: given up and answered late: buffers are given back once, the answer is dropped`,
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
        // A driver without waiting callers need not poll before it is called.
        scene.driver.pollEvents();
        equal(scene.device.hal.shares.length, shares.length, 'buffers that are shared, afterwards');
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
        givenUp();
      },
    },
    {
      name: `${form}: as many requests are given up as there are slots, then all works again`,
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
      name: `${form}: given up and never answered: nothing keeps the event loop alive, and dispose frees all buffers`,
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

/** Lets a driver without interrupts process late answers. */
async function look<D extends ContractDriver>(scene: Scene<D>, requests: Requests<D>): Promise<void> {
  if (scene.hasPromises) return;
  scene.driver.pollEvents();
  if (requests.polling) {
    equal(requests.polling.poll(scene.driver), -1, 'poll() after an answer to a request that was given up');
  }
  await scene.settle();
}
