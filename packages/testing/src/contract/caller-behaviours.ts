/** What every driver must do whatever its caller does: invalid options, buffers that are transferred, listeners that call back. */
import type { VirtioErrorCode } from '@virtio/core';
import {
  ANY,
  AWAKE,
  type Behaviour,
  LISTENER_ERROR,
  WAKING,
  WRONG_SIGNALS,
  WRONG_TIMES,
} from './behaviour.ts';
import { Canceller, check, equal, hasCode } from './check.ts';
import { type Form, type Scene, transfer } from './scene.ts';
import type { Call, ContractDriver, Requests } from './subject.ts';

/** Invalid options that callers without types may pass. */
const WRONG: Readonly<Record<Form, readonly unknown[]>> = {
  promise: WRONG_SIGNALS.map((signal) => ({ signal })),
  sync: WRONG_TIMES.map((timeoutMs) => ({ timeoutMs })),
  submit: [],
};

/** The behaviours of one form. */
export function callerBehaviours<D extends ContractDriver>(
  requests: Requests<D>,
  form: Form,
): Behaviour<D>[] {
  const wakes = form === 'promise' ? AWAKE : ANY;
  const behaviours: Behaviour<D>[] = [
    {
      name: `${form}: the caller transfers its buffers while the device has them: this request fails, and no other`,
      wakes,
      async run(scene) {
        const capacity = await scene.capacity(requests);
        const call = requests.call(scene.mark());
        const own = (call.buffers ?? []).filter((buffer) => scene.canTransfer(buffer));
        if (own.length === 0) return;
        scene.answering = false;
        const ended = ends(scene, requests, form, call, () => {
          for (const buffer of own) transfer(buffer);
          scene.answer();
        });
        const error = await ended;
        if (error !== undefined) hasCode(error, `the ${form} form`, 'INVALID_PARAM');
        equal(scene.failures.length, 0, 'failures that were reported');
        equal(await scene.capacity(requests), capacity, 'requests that the device gets at once, afterwards');
        await scene.works();
      },
    },
    ...(['reset', 'dispose'] as const).map((end): Behaviour<D> => ({
      name: `${form}: ${end} by the listener of a quirk`,
      wakes,
      async run(scene) {
        const stop = scene.driver.on('quirk', () => {
          stop();
          act(scene, end);
        });
        scene.answering = false;
        const call = requests.call(scene.mark());
        const error = await ends(scene, requests, form, call, () => {
          for (const one of scene.held.splice(0)) {
            one.answer();
            one.chain.complete(2 ** 31);
          }
        });
        if (error !== undefined) hasCode(error, `the ${form} form`, ...ENDED[end]);
        stop();
        await scene.settle();
        if (scene.driver.failure?.code === 'DISPOSED') return;
        await scene.ready();
        await scene.works();
      },
    })),
  ];
  if (WRONG[form].length > 0) behaviours.push(wrongOptions(requests, form, wakes));
  if (form === 'promise') behaviours.push(...abortBehaviours(requests));
  if (form === 'submit') behaviours.push(...usedBehaviours(requests));
  return behaviours;
}

/** The codes with which a request may end if its driver was reset or disposed meanwhile. */
const ENDED: Readonly<Record<'reset' | 'dispose', readonly VirtioErrorCode[]>> = {
  reset: ['DEVICE_RESET', 'WRONG_TOKEN'],
  dispose: ['DISPOSED', 'WRONG_TOKEN'],
};

function wrongOptions<D extends ContractDriver>(
  requests: Requests<D>,
  form: Form,
  wakes: Behaviour<D>['wakes'],
): Behaviour<D> {
  return {
    name: `${form}: invalid options are INVALID_PARAM, before anything is sent`,
    wakes,
    async run(scene) {
      const { shares } = scene.device.hal.counts;
      let seen = 0;
      scene.onRequest = () => (seen += 1);
      for (const wrong of WRONG[form]) {
        const call = requests.call(scene.mark());
        let error: unknown;
        try {
          if (form === 'sync') call.sync?.(scene.driver, wrong as never);
          else {
            const watched = scene.watch(
              Promise.resolve(call.promise?.(scene.driver, wrong as never)),
              'a promise',
            );
            await scene.settled(watched);
            error = watched.error;
          }
        } catch (thrown) {
          error = thrown;
        }
        hasCode(error, `the ${form} form with ${JSON.stringify(wrong)}`, 'INVALID_PARAM');
      }
      await scene.settle();
      equal(seen, 0, 'requests that the device got');
      equal(scene.device.hal.counts.shares, shares, 'buffers that were shared');
      scene.onRequest = undefined;
      await scene.works();
    },
  };
}

/** Aborts where there are other listeners of the signal, and of the driver. */
function abortBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  return [
    ...(['reset', 'dispose'] as const).map((end): Behaviour<D> => ({
      name: `promise: ${end} by another listener of the signal that aborts`,
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const canceller = new Canceller();
        canceller.signal.addEventListener('abort', () => {
          act(scene, end);
        });
        const started = Array.from({ length: 2 * scene.setting.queueSize }, () =>
          scene.start(requests, { signal: canceller.signal }),
        );
        await scene.settle();
        canceller.abort();
        for (const { watched, untouched } of started) {
          await scene.rejection(watched, 'ABORTED', ...ENDED[end]);
          untouched();
        }
        await scene.idle();
        if (end === 'dispose') return;
        await scene.ready();
        await scene.works();
      },
    })),
    ...(['aborts', 'throws'] as const).map((how): Behaviour<D> => ({
      name: `promise: a signal of the caller's own that ${how} while its listener is added`,
      wakes: AWAKE,
      async run(scene) {
        for (const full of [false, true]) {
          const capacity = full ? await scene.capacity(requests) : 0;
          scene.answering = false;
          const first = Array.from({ length: capacity }, () => scene.start(requests));
          await scene.settle();
          const canceller = new Canceller();
          const { signal } = canceller;
          const started = scene.start(requests, {
            signal: {
              get aborted() {
                return signal.aborted;
              },
              addEventListener(type, listener) {
                if (how === 'throws') throw new Error(LISTENER_ERROR);
                signal.addEventListener(type, listener);
                canceller.abort();
              },
              removeEventListener: (type, listener) => {
                signal.removeEventListener(type, listener);
              },
            },
          });
          if (how === 'aborts') await scene.rejection(started.watched, 'ABORTED');
          await scene.settled(started.watched);
          equal(started.watched.state, 'rejected', 'the request');
          equal(signal.listeners, 0, 'listeners left on the signal');
          scene.answer();
          for (const one of first) await scene.finish(one);
          started.untouched();
          await scene.works();
          await scene.idle();
        }
      },
    })),
    {
      name: 'promise: aborted by a failure listener: ends with the failure, or aborted',
      wakes: AWAKE,
      async run(scene) {
        scene.answering = false;
        const canceller = new Canceller();
        scene.driver.on('failure', () => {
          canceller.abort();
        });
        const started = Array.from({ length: 2 * scene.setting.queueSize }, () =>
          scene.start(requests, { signal: canceller.signal }),
        );
        await scene.settle();
        scene.device.needsReset();
        for (const { watched } of started) await scene.rejection(watched, 'ABORTED', 'DEVICE_NEEDS_RESET');
        await scene.idle();
        scene.driver.reset();
        await scene.ready();
        await scene.works();
      },
    },
  ];
}

/** Listeners for used buffers of the non-blocking form. */
function usedBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  return [
    ...(['reset', 'dispose'] as const).map((end): Behaviour<D> => ({
      name: `submit: ${end} by the listener for used buffers`,
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        let told = 0;
        const stop = scene.driver.on('used', () => {
          told += 1;
          stop();
          act(scene, end);
        });
        const call = requests.call(scene.mark());
        const token = scene.submit(call);
        scene.answer();
        await scene.settle();
        equal(told, 1, 'calls of the listener');
        let error: unknown;
        try {
          requests.polling?.complete(scene.driver, token);
        } catch (thrown) {
          error = thrown;
        }
        hasCode(error, 'complete()', ...ENDED[end]);
        await scene.idle();
        if (end === 'dispose') return;
        await scene.ready();
        await scene.works();
      },
    })),
    {
      name: 'submit: a listener for used buffers that throws disturbs nothing',
      throws: true,
      wakes: WAKING,
      async run(scene) {
        scene.answering = false;
        const stop = scene.driver.on('used', () => {
          throw new Error(LISTENER_ERROR);
        });
        const call = requests.call(scene.mark());
        const token = scene.submit(call);
        scene.answer();
        await scene.settle();
        stop();
        await scene.completed(requests, call, token);
        await scene.works();
        await scene.idle();
      },
    },
  ];
}

/**
 * Makes a request, does something while the device has it, and waits for its end.
 *
 * @returns its error, if it has failed
 */
async function ends<D extends ContractDriver>(
  scene: Scene<D>,
  requests: Requests<D>,
  form: Form,
  call: Call<D>,
  meanwhile: () => void,
): Promise<unknown> {
  try {
    if (form === 'sync') {
      scene.onRequest = () => {
        scene.onRequest = undefined;
        // After the device has taken it, but before the driver polls again.
        scene.afterRequest = meanwhile;
      };
      call.sync?.(scene.driver, { timeoutMs: 300 });
    } else if (form === 'promise') {
      const watched = scene.watch(Promise.resolve(call.promise?.(scene.driver, {})), 'the promise form');
      await scene.settle();
      meanwhile();
      await scene.settled(watched);
      if (watched.state === 'rejected') return watched.error;
    } else {
      const token = scene.submit(call);
      meanwhile();
      await scene.settle();
      const { polling } = requests;
      check(polling !== undefined, 'the subject does not describe polling');
      polling.complete(scene.driver, token);
    }
  } catch (error) {
    return error;
  } finally {
    scene.onRequest = undefined;
    scene.afterRequest = undefined;
  }
  return undefined;
}

function act<D extends ContractDriver>(scene: Scene<D>, end: 'reset' | 'dispose'): void {
  if (end === 'reset') scene.driver.reset();
  else scene.driver[Symbol.dispose]();
}
