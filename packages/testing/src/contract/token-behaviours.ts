/** What every driver must do about non-blocking requests, which tokens identify. */
import type { VirtioErrorCode } from '@virtio/core';
import { mustFail } from './attempt.ts';
import { ANY, type Behaviour } from './behaviour.ts';
import { equal, throws } from './check.ts';
import { copies, mustBeUntouched, type Scene } from './scene.ts';
import type { Call, ContractDriver, Polling, Requests } from './subject.ts';

/** Non-blocking requests. */
export function tokenBehaviours<D extends ContractDriver>(
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
      name: 'submit: a token is NOT_READY before its request is answered and WRONG_TOKEN after completion, even if its slot is reused',
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
      name: 'submit: an invalid token is WRONG_TOKEN',
      wakes: ['no interrupts'],
      async run(scene) {
        scene.answering = false;
        const call = requests.call(scene.mark());
        const token = scene.submit(call);
        const numbers = [-1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 53, token + 0.5];
        // Callers without types may give these.
        for (const wrong of [...numbers, BigInt(token), String(token), null, undefined, {}]) {
          const value = wrong as number;
          const what = `an invalid token (${typeof value} ${String(value)})`;
          complete(scene, value, 'WRONG_TOKEN', what);
          if (polling.cancel) {
            throws(() => polling.cancel?.(scene.driver, value), `cancel() of ${what}`, 'WRONG_TOKEN');
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
      name: 'submit: the transport is disposed before the driver: DEVICE_REMOVED, one failure',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        const token = scene.submit(requests.call(scene.mark()));
        scene.transport[Symbol.dispose]();
        await scene.settle();
        scene.driver.pollEvents();
        throws(() => polling.poll(scene.driver), 'poll()', 'DEVICE_REMOVED');
        complete(scene, token, 'DEVICE_REMOVED', 'a request in flight');
        await mustFail(scene, requests, 'submit', 'DEVICE_REMOVED');
        equal(scene.failures.length, 1, 'failures that were reported');
        throws(() => scene.driver.reset(), 'reset()', 'DEVICE_REMOVED');
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
                equal(polling.poll(scene.driver), -1, 'poll() after all was given up');
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
