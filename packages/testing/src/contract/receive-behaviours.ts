/** What every driver must do about messages that its device sends without a request. */
import type { VirtioErrorCode } from '@virtio/core';
import { ANY, AWAKE, type Behaviour, WAKING, WRONG_SIGNALS, WRONG_TIMES } from './behaviour.ts';
import { Canceller, check, equal, throws } from './check.ts';
import type { Scene } from './scene.ts';
import type { ContractDriver, Receive } from './subject.ts';

/** The behaviours of one kind of messages of the device. */
export function receiveBehaviours<D extends ContractDriver>(receive: Receive<D>): Behaviour<D>[] {
  const send = (scene: Scene<D>): number => {
    const mark = scene.mark();
    check(receive.send(scene.device, mark), 'the driver has no buffer for a message');
    return mark;
  };
  /** Sends until there is no buffer left; returns the marks. The driver may take messages meanwhile. */
  const sendAll = (scene: Scene<D>, most: number): number[] => {
    const marks: number[] = [];
    while (marks.length < most) {
      const mark = scene.mark();
      if (!receive.send(scene.device, mark)) break;
      marks.push(mark);
    }
    return marks;
  };
  const takeAll = async (scene: Scene<D>): Promise<number[]> => {
    const marks: number[] = [];
    for (let quiet = 0; quiet < 2;) {
      const mark = receive.take(scene.driver);
      if (mark >= 0) marks.push(mark);
      else {
        quiet += 1;
        await scene.turn();
      }
    }
    return marks;
  };
  const flows = async (scene: Scene<D>): Promise<void> => {
    for (let round = 0; round < 3; round += 1) {
      const sent = sendAll(scene, scene.setting.queueSize);
      check(sent.length > 0, 'the driver has no buffer for a message');
      equal((await takeAll(scene)).join(), sent.join(), 'messages that were taken');
    }
  };
  const wait = (scene: Scene<D>, canceller?: Canceller) => {
    const options = canceller ? { signal: canceller.signal } : {};
    return scene.watch(
      receive.promise?.(scene.driver, options) ?? Promise.reject(new Error('no promise form')),
      'a wait for a message',
    );
  };

  const behaviours: Behaviour<D>[] = [
    {
      name: 'receive: messages come in order, many times as many as there are buffers',
      wakes: ANY,
      async run(scene) {
        for (let round = 0; round < 5; round += 1) await flows(scene);
        equal(receive.take(scene.driver), -1, 'a message when there is none');
      },
    },
    {
      name: 'receive: a lie of the device is DEVICE_MISBEHAVED, one failure, and a reset repairs it',
      wakes: ANY,
      async run(scene) {
        scene.lie(receive.queue);
        throws(() => receive.take(scene.driver), 'taking a message', 'DEVICE_MISBEHAVED');
        throws(() => receive.take(scene.driver), 'taking a message', 'DEVICE_MISBEHAVED');
        await scene.settle();
        equal(scene.failures.length, 1, 'failures that were reported');
        scene.driver.reset();
        await scene.ready();
        await takeAll(scene);
        await flows(scene);
      },
    },
    {
      name: 'receive: a reset posts the buffers again',
      wakes: ANY,
      async run(scene) {
        for (let round = 0; round < 3; round += 1) {
          sendAll(scene, round);
          scene.driver.reset();
          await scene.ready();
          await takeAll(scene);
          await flows(scene);
        }
      },
    },
    {
      name: 'receive: a reset of the queue alone posts the buffers again',
      wakes: ANY,
      async run(scene) {
        if (!scene.device.has('RING_RESET') || scene.driver.resetQueue === undefined) return;
        for (let round = 0; round < 3; round += 1) {
          sendAll(scene, round);
          scene.driver.resetQueue(receive.queue);
          await scene.ready();
          await takeAll(scene);
          await flows(scene);
        }
      },
    },
    ...(['reset', 'dispose'] as const).map((end): Behaviour<D> => ({
      name: `receive: ${end} from within a failure listener that a lie triggers within a call`,
      wakes: ANY,
      async run(scene) {
        scene.driver.on('failure', () => {
          if (end === 'reset') scene.driver.reset();
          else scene.driver[Symbol.dispose]();
        });
        scene.lie(receive.queue);
        try {
          receive.take(scene.driver);
        } catch (error) {
          throws(
            () => {
              throw error;
            },
            'taking a message',
            'DEVICE_MISBEHAVED',
            'DEVICE_RESET',
            'DISPOSED',
          );
        }
        if (end === 'dispose') {
          throws(() => receive.take(scene.driver), 'taking a message', 'DISPOSED');
          return;
        }
        await scene.settle();
        await scene.ready();
        await takeAll(scene);
        await flows(scene);
      },
    })),
    {
      name: 'receive: disposed with messages in flight, nothing leaks',
      wakes: ANY,
      async run(scene) {
        sendAll(scene, 2);
        await scene.turn();
        sendAll(scene, 1);
        scene.driver[Symbol.dispose]();
      },
    },
  ];
  behaviours.push(
    ...(['reset', 'dispose'] as const).map((end): Behaviour<D> => ({
      name: `receive: ${end} by the listener for messages`,
      wakes: WAKING,
      async run(scene) {
        let told = 0;
        const stop = scene.driver.on('used', () => {
          told += 1;
          stop();
          if (end === 'reset') scene.driver.reset();
          else scene.driver[Symbol.dispose]();
        });
        send(scene);
        await scene.settle();
        stop();
        await scene.idle();
        // The driver need not report messages that no caller has to poll for.
        if (told > 0) {
          if (end === 'dispose') return;
          await scene.ready();
        }
        await takeAll(scene);
        await flows(scene);
      },
    })),
  );
  const { promise, sync } = receive;
  if (sync) {
    behaviours.push(
      {
        name: 'receive sync: invalid options are INVALID_PARAM, and no message is lost',
        wakes: ANY,
        async run(scene) {
          for (const timeoutMs of WRONG_TIMES) {
            const mark = send(scene);
            throws(
              () => sync.call(receive, scene.driver, { timeoutMs: timeoutMs as number }),
              `the synchronous form with ${String(timeoutMs)}`,
              'INVALID_PARAM',
            );
            equal(sync.call(receive, scene.driver, { timeoutMs: 1000 }), mark, 'the message');
          }
          await flows(scene);
        },
      },
      {
        name: 'receive sync: takes a message that is there; NOT_READY if none comes, and the next message is not lost',
        wakes: ANY,
        async run(scene) {
          for (let round = 0; round < 3 * scene.setting.queueSize; round += 1) {
            throws(
              () => sync.call(receive, scene.driver, { timeoutMs: 0 }),
              'the synchronous form',
              'NOT_READY',
            );
            const mark = send(scene);
            equal(sync.call(receive, scene.driver, { timeoutMs: 1000 }), mark, 'the message');
          }
          await flows(scene);
        },
      },
      {
        name: 'receive sync: a device that is gone or needs a reset is reported at once',
        wakes: ANY,
        async run(scene) {
          scene.device.needsReset();
          throws(
            () => sync.call(receive, scene.driver, { timeoutMs: 300 }),
            'the synchronous form',
            'DEVICE_NEEDS_RESET',
          );
          await scene.settle();
          equal(scene.failures.length, 1, 'failures that were reported');
          scene.driver.reset();
          await scene.ready();
          await takeAll(scene);
          await flows(scene);
          scene.device.remove();
          throws(
            () => sync.call(receive, scene.driver, { timeoutMs: 300 }),
            'the synchronous form',
            'DEVICE_REMOVED',
          );
        },
      },
    );
  }
  if (promise) {
    behaviours.push(
      {
        name: 'receive promise: an invalid signal is INVALID_PARAM, and no message is lost',
        wakes: AWAKE,
        async run(scene) {
          for (const signal of WRONG_SIGNALS) {
            const one = scene.watch(
              Promise.resolve(promise.call(receive, scene.driver, { signal: signal as never })),
              `a wait with ${String(signal)}`,
            );
            await scene.rejection(one, 'INVALID_PARAM');
          }
          await scene.idle();
          await flows(scene);
        },
      },
      {
        name: 'receive promise: each message goes to one waiting caller, in any order, and none twice',
        wakes: AWAKE,
        async run(scene) {
          const waits = Array.from({ length: 3 }, () => wait(scene));
          await scene.settle();
          const sent: number[] = [];
          for (const count of [1, 2]) {
            for (let n = 0; n < count; n += 1) sent.push(send(scene));
            await scene.settle();
            equal(waits.filter(({ state }) => state === 'resolved').length, sent.length, 'waits that ended');
          }
          equal(
            waits
              .map(({ value }) => value ?? -1)
              .sort((a, b) => a - b)
              .join(),
            sent.sort((a, b) => a - b).join(),
            'messages that were received',
          );
          await scene.idle();
        },
      },
      {
        name: 'receive promise: aborted, and the next message is not lost; nothing keeps the event loop alive',
        wakes: AWAKE,
        async run(scene) {
          const canceller = new Canceller();
          const cancelled = [wait(scene, canceller), wait(scene, canceller)];
          const kept = wait(scene);
          await scene.settle();
          canceller.abort();
          for (const one of cancelled) await scene.rejection(one, 'ABORTED');
          equal(canceller.signal.listeners, 0, 'listeners left on the signal');
          const mark = send(scene);
          equal(await scene.value(kept), mark, 'the message');
          await scene.idle();
          const last = new Canceller();
          const never = wait(scene, last);
          await scene.settle();
          last.abort();
          await scene.rejection(never, 'ABORTED');
          await scene.idle();
          await flows(scene);
        },
      },
      {
        name: 'receive promise: aborted in the turn in which a message comes, or before the call: the message is not lost',
        wakes: AWAKE,
        async run(scene) {
          const canceller = new Canceller();
          const cancelled = wait(scene, canceller);
          await scene.settle();
          const mark = send(scene);
          canceller.abort();
          await scene.settle();
          // The driver may have taken the message already when it came.
          if (cancelled.state === 'resolved') {
            equal(cancelled.value, mark, 'the message');
          } else {
            await scene.rejection(cancelled, 'ABORTED');
            equal(await scene.value(wait(scene)), mark, 'the message that was left');
          }
          const next = send(scene);
          await scene.settle();
          await scene.rejection(wait(scene, canceller), 'ABORTED');
          equal(await scene.value(wait(scene)), next, 'the message that was there before an aborted call');
          await scene.idle();
        },
      },
      {
        name: 'receive promise: is refused without interrupts',
        wakes: ['no interrupts'],
        async run(scene) {
          await scene.rejection(wait(scene), 'UNSUPPORTED');
          await flows(scene);
        },
      },
      ...(
        [
          ['reset', 'DEVICE_RESET', (scene) => scene.driver.reset()],
          ['dispose', 'DISPOSED', (scene) => scene.driver[Symbol.dispose]()],
          ['unplugged', 'DEVICE_REMOVED', (scene) => scene.device.remove()],
          ['the transport is disposed', 'DEVICE_REMOVED', (scene) => scene.transport[Symbol.dispose]()],
          ['needs a reset', 'DEVICE_NEEDS_RESET', (scene) => scene.device.needsReset()],
        ] as readonly (readonly [string, VirtioErrorCode, (scene: Scene<D>) => void])[]
      ).map(([what, code, end]): Behaviour<D> => ({
        name: `receive promise: ${what} while a caller waits: rejects with ${code}`,
        wakes: AWAKE,
        async run(scene) {
          const waits = [wait(scene), wait(scene)];
          await scene.settle();
          end(scene);
          for (const one of waits) await scene.rejection(one, code);
          await scene.idle();
          if (code === 'DISPOSED' || code === 'DEVICE_REMOVED') return;
          if (code === 'DEVICE_NEEDS_RESET') scene.driver.reset();
          await scene.ready();
          await takeAll(scene);
          const again = wait(scene);
          await scene.settle();
          const mark = send(scene);
          equal(await scene.value(again), mark, 'the message');
          await flows(scene);
        },
      })),
      {
        name: 'receive promise: a lie of the device while a caller waits: rejects, one failure',
        wakes: WAKING,
        async run(scene) {
          const waits = [wait(scene), wait(scene)];
          await scene.settle();
          scene.lie(receive.queue);
          for (const one of waits) await scene.rejection(one, 'DEVICE_MISBEHAVED');
          await scene.idle();
          equal(scene.failures.length, 1, 'failures that were reported');
        },
      },
    );
  }
  return behaviours;
}
