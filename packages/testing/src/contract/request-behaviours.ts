/** What every driver must do about requests that the device answers. */
import { attempt, mustFail } from './attempt.ts';
import { ANY, AWAKE, type Behaviour } from './behaviour.ts';
import { check, equal, hasCode, throws } from './check.ts';
import { callerBehaviours } from './caller-behaviours.ts';
import { GIVE_UP, lateBehaviours } from './late-behaviours.ts';
import { promiseBehaviours } from './promise-behaviours.ts';
import { insideBehaviours } from './reentrant-behaviours.ts';
import { type Form, formsOf } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';
import { syncBehaviours } from './sync-behaviours.ts';
import { tokenBehaviours } from './token-behaviours.ts';

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

/** The behaviours of each form. */
function behavioursOfForm<D extends ContractDriver>(requests: Requests<D>, form: Form): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  const gives = GIVE_UP[form];
  const behaviours: Behaviour<D>[] = [
    {
      name: `${form}: each request gets its own answer, from a device that answers within notify`,
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
          const { refusals } = hal.counts;
          hal.failShare();
          let error: unknown;
          try {
            await attempt(scene, requests, form);
          } catch (thrown) {
            error = thrown;
          }
          hal.failShare({ count: 0 });
          // A driver with its own memory for requests shares nothing.
          if (hal.counts.refusals > refusals) hasCode(error, `the ${form} form`, 'DMA_ERROR');
        }
        check(hal.counts.shares - shares <= 2 * capacity, 'shared more than there was to share');
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    {
      name: `${form}: the failure of the device is reported by every call, until it is reset`,
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
      name: `${form}: is DISPOSED after dispose`,
      wakes,
      async run(scene) {
        scene.driver[Symbol.dispose]();
        scene.driver[Symbol.dispose]();
        await mustFail(scene, requests, form, 'DISPOSED');
        throws(() => scene.driver.reset(), 'reset() of a disposed driver', 'DISPOSED');
      },
    },
    {
      name: `${form}: an answer to a chain that does not exist is DEVICE_MISBEHAVED, one failure, and a reset repairs it`,
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
      name: `${form}: called from within a failure listener: ends with the failure`,
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
    ...callerBehaviours(requests, form),
  ];
  if (gives(requests)) behaviours.push(...lateBehaviours(requests, form));
  return behaviours;
}
