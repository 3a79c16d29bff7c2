/**
 * What every driver must do when it is called from within its own calls: by a listener, or by a device that acts within `notify`.
 */
import type { VirtioErrorCode } from '@virtio/core';
import { mustFail } from './attempt.ts';
import { ANY, AWAKE, type Behaviour } from './behaviour.ts';
import type { Form, Scene } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** The driver is reset or disposed from within a call: by a listener, or when the device acts. */
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
  // The token that was returned may be invalid by now.
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
      name: `${form}: ${end} from within a failure listener that a lie of the device triggers within the request`,
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
      name: `${form}: ${end} while the device takes the request, within notify`,
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
 * Makes two requests after a reset from within a call: one that is answered while interrupts are masked, and one that is not
 * answered. Nothing from before may reach either, and no buffer that the device still has may be taken back.
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
