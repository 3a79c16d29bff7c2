/** Makes one request in a form, and waits for its end or gives it up. */
import type { VirtioErrorCode } from '@virtio/core';
import { Canceller, check, equal, throws } from './check.ts';
import { copies, type Form, mustBeUntouched, type Scene } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** The time limit of a synchronous form that must end at once: one that goes on spinning throws `NOT_READY`. */
export const AT_ONCE = { timeoutMs: 300 } as const;

/** Makes one request in a form; rejects or throws if it does. In the non-blocking form, polls until something happens. */
export async function attempt<D extends ContractDriver>(
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
export async function mustFail<D extends ContractDriver>(
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
    `the ${form} form returned ${String(result)}; it should have failed with ${codes.join(' or ')}`,
  );
}

/** Makes one request that the device does not answer, and gives it up. Returns a check that its buffers are unchanged. */
export async function giveUp<D extends ContractDriver>(
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
