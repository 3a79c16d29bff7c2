/** What every driver must do about synchronous requests. */
import type { VirtioErrorCode } from '@virtio/core';
import { AT_ONCE, mustFail } from './attempt.ts';
import { ANY, AWAKE, type Behaviour, LISTENER_ERROR } from './behaviour.ts';
import { equal } from './check.ts';
import type { Scene } from './scene.ts';
import type { ContractDriver, Requests } from './subject.ts';

/** Synchronous requests. */
export function syncBehaviours<D extends ContractDriver>(requests: Requests<D>): Behaviour<D>[] {
  return [
    ...(
      [
        ['the device is unplugged', 'DEVICE_REMOVED', (scene) => scene.device.remove()],
        ['the transport is disposed', 'DEVICE_REMOVED', (scene) => scene.transport[Symbol.dispose]()],
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
