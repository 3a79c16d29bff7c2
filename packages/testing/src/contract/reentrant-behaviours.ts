/** What every driver keeps where it is called from inside of its own calls: by a listener, or by what a device does inside of `notify`. */
import type { VirtioErrorCode } from '@virtio/core';
import { mustFail } from './attempt.ts';
import { ANY, AWAKE, type Behaviour } from './behaviour.ts';
import type { Form, Scene } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** The driver is reset or disposed from inside of a call: by a listener, or by the device's doing. */
export function insideBehaviours<D extends ContractDriver>(
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
