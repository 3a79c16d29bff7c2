/** What every driver must do about messages that it sends without an answer. */
import type { VirtioErrorCode } from '@virtio/core';
import { ANY, AWAKE, type Behaviour, WAKING, WRONG_SIGNALS, WRONG_TIMES } from './behaviour.ts';
import { Canceller, check, equal, throws } from './check.ts';
import { type Scene, transmitFormsOf, type Watched } from './scene.ts';
import type { ContractDriver, Transmit } from './subject.ts';

/** The behaviours of one kind of messages of the driver. */
export function transmitBehaviours<D extends ContractDriver>(transmit: Transmit<D>): Behaviour<D>[] {
  const forms = transmitFormsOf(transmit);
  const { offer, promise, sync } = transmit;

  const start = (scene: Scene<D>, canceller?: Canceller): Sent => {
    const mark = scene.mark();
    const options = canceller ? { signal: canceller.signal } : {};
    const sending =
      promise?.call(transmit, scene.driver, mark, options) ?? Promise.reject(new Error('no promise form'));
    return { mark, watched: scene.watch(sending, `a message with a promise (mark ${mark})`) };
  };
  /** Sends in a form that does not wait, until there is no room; returns the marks. */
  const fill = async (scene: Scene<D>): Promise<number[]> => {
    const marks: number[] = [];
    const most = 4 * scene.setting.queueSize;
    for (;;) {
      const mark = scene.mark();
      if (offer) {
        if (!offer.call(transmit, scene.driver, mark)) break;
      } else if (sync) {
        try {
          sync.call(transmit, scene.driver, mark, { timeoutMs: 0 });
        } catch (error) {
          throws(
            () => {
              throw error;
            },
            'sending without room',
            'NOT_READY',
            'QUEUE_FULL',
          );
          break;
        }
      } else break;
      marks.push(mark);
      check(marks.length <= most, `the driver accepted ${most} messages, but the device has taken none`);
      await scene.turn();
    }
    return marks;
  };
  const drain = async (scene: Scene<D>): Promise<void> => {
    for (let n = 0; n < 4 || scene.held.length > 0; n += 1) {
      scene.answer();
      await scene.turn();
    }
  };
  const flows = async (scene: Scene<D>): Promise<void> => {
    const { answering } = scene;
    scene.answering = true;
    for (const form of forms) {
      if (form === 'promise' && !scene.hasPromises) continue;
      scene.received.length = 0;
      const marks: number[] = [];
      for (let n = 0; n < 3 * scene.setting.queueSize; n += 1) {
        const mark = scene.mark();
        marks.push(mark);
        if (form === 'offer') {
          check(
            offer?.call(transmit, scene.driver, mark) === true,
            'a message was refused although the device takes all',
          );
          await scene.turn();
        } else if (form === 'sync') sync?.call(transmit, scene.driver, mark, { timeoutMs: 1000 });
        else {
          await scene.value(
            scene.watch(promise?.call(transmit, scene.driver, mark, {}) ?? Promise.resolve(), 'a message'),
          );
        }
      }
      await scene.settle();
      equal(scene.received.join(), marks.join(), `messages that the device got (${form})`);
    }
    scene.answering = answering;
  };

  const behaviours: Behaviour<D>[] = [
    { name: 'transmit: messages arrive in order, in each form', wakes: ANY, run: flows },
    {
      name: 'transmit: a device that takes nothing: no more messages are accepted than there is room for, then all goes on',
      wakes: ANY,
      async run(scene) {
        if (!offer && !sync) return;
        scene.answering = false;
        const marks = await fill(scene);
        check(marks.length > 0, 'not one message could be sent');
        scene.received.length = 0;
        await drain(scene);
        equal(scene.received.join(), marks.join(), 'messages that the device got');
        const again = await fill(scene);
        equal(again.length, marks.length, 'messages that there is room for, afterwards');
        await drain(scene);
        await flows(scene);
      },
    },
    {
      name: 'transmit: a lie of the device is DEVICE_MISBEHAVED, one failure, and a reset repairs it',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        const room = (await fill(scene)).length;
        scene.lie(transmit.queue);
        await scene.settle();
        scene.driver.pollEvents();
        for (const form of forms) {
          if (form === 'promise') {
            if (scene.hasPromises) await scene.rejection(start(scene).watched, 'DEVICE_MISBEHAVED');
          } else {
            throws(
              () => transmit[form]?.(scene.driver, 1, { timeoutMs: 0 }),
              `the ${form} form`,
              'DEVICE_MISBEHAVED',
            );
          }
        }
        equal(scene.failures.length, 1, 'failures that were reported');
        scene.driver.reset();
        await scene.ready();
        scene.answering = false;
        if (room > 0) equal((await fill(scene)).length, room, 'messages that there is room for, afterwards');
        await drain(scene);
        await flows(scene);
      },
    },
    {
      name: 'transmit: a reset of the queue alone frees all buffers',
      wakes: ANY,
      async run(scene) {
        if (!scene.device.has('RING_RESET') || scene.driver.resetQueue === undefined) return;
        scene.answering = false;
        const room = (await fill(scene)).length;
        scene.driver.resetQueue(transmit.queue);
        await scene.ready();
        scene.held.length = 0;
        if (room > 0) equal((await fill(scene)).length, room, 'messages that there is room for, afterwards');
        await drain(scene);
        await flows(scene);
      },
    },
    {
      name: 'transmit: is DISPOSED after dispose',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        await fill(scene);
        scene.driver[Symbol.dispose]();
        for (const form of forms) {
          if (form === 'promise') await scene.rejection(start(scene).watched, 'DISPOSED');
          else {
            throws(() => transmit[form]?.(scene.driver, 1, { timeoutMs: 0 }), `the ${form} form`, 'DISPOSED');
          }
        }
      },
    },
  ];
  if (sync) {
    behaviours.push({
      name: 'transmit sync: invalid options are INVALID_PARAM, before anything is sent',
      wakes: ANY,
      async run(scene) {
        for (const timeoutMs of WRONG_TIMES) {
          throws(
            () => sync.call(transmit, scene.driver, scene.mark(), { timeoutMs: timeoutMs as number }),
            `the synchronous form with ${String(timeoutMs)}`,
            'INVALID_PARAM',
          );
        }
        await scene.settle();
        equal(scene.received.length, 0, 'messages that the device got');
        await flows(scene);
      },
    });
    behaviours.push({
      name: 'transmit sync: NOT_READY without room, and nothing is sent twice or lost',
      wakes: ANY,
      async run(scene) {
        scene.answering = false;
        const marks = await fill(scene);
        for (let n = 0; n < 3; n += 1) {
          throws(
            () => sync.call(transmit, scene.driver, scene.mark(), { timeoutMs: 0 }),
            'the synchronous form',
            'NOT_READY',
          );
        }
        scene.received.length = 0;
        await drain(scene);
        equal(scene.received.join(), marks.join(), 'messages that the device got');
        await flows(scene);
      },
    });
  }
  if (promise) {
    behaviours.push(
      {
        name: 'transmit promise: an invalid signal is INVALID_PARAM, before anything is sent',
        wakes: AWAKE,
        async run(scene) {
          for (const signal of WRONG_SIGNALS) {
            const one = scene.watch(
              Promise.resolve(
                promise.call(transmit, scene.driver, scene.mark(), { signal: signal as never }),
              ),
              `a wait with ${String(signal)}`,
            );
            await scene.rejection(one, 'INVALID_PARAM');
          }
          await scene.settle();
          equal(scene.received.length, 0, 'messages that the device got');
          await flows(scene);
        },
      },
      {
        name: 'transmit promise: waits for room, in order; aborted ones send nothing',
        wakes: AWAKE,
        async run(scene) {
          scene.answering = false;
          const canceller = new Canceller();
          const expected: number[] = [];
          const sent: Sent[] = [];
          const cancelled: Sent[] = [];
          for (let n = 0; n < 3 * scene.setting.queueSize; n += 1) {
            sent.push(start(scene));
            if (n > 2 * scene.setting.queueSize) cancelled.push(start(scene, canceller));
          }
          expected.push(...sent.map(({ mark }) => mark));
          await scene.settle();
          check(
            sent.some(({ watched }) => watched.state === 'pending'),
            'the driver accepted all messages, but the device has taken none',
          );
          canceller.abort();
          for (const { watched } of cancelled) await scene.rejection(watched, 'ABORTED');
          equal(canceller.signal.listeners, 0, 'listeners left on the signal');
          scene.received.length = 0;
          for (
            let n = 0;
            n < sent.length && sent.some(({ watched }) => watched.state === 'pending');
            n += 1
          ) {
            await drain(scene);
          }
          for (const { watched } of sent) await scene.value(watched);
          await drain(scene);
          equal(scene.received.join(), expected.join(), 'messages that the device got');
          await scene.idle();
          await flows(scene);
        },
      },
      {
        name: 'transmit promise: a device that never takes anything: aborted, nothing keeps the event loop alive',
        wakes: AWAKE,
        async run(scene) {
          scene.answering = false;
          const canceller = new Canceller();
          const sent = Array.from({ length: 3 * scene.setting.queueSize }, () => start(scene, canceller));
          await scene.settle();
          canceller.abort();
          await scene.settle();
          for (const { watched } of sent) {
            await scene.settled(watched);
            if (watched.state === 'rejected') await scene.rejection(watched, 'ABORTED');
          }
          await scene.idle();
        },
      },
      {
        name: 'transmit promise: is refused without interrupts, before anything is sent',
        wakes: ['no interrupts'],
        async run(scene) {
          const seen: number[] = [];
          scene.onRequest = () => seen.push(1);
          for (let n = 0; n < 3; n += 1) await scene.rejection(start(scene).watched, 'UNSUPPORTED');
          equal(seen.length, 0, 'messages that the device got');
          scene.onRequest = undefined;
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
        name: `transmit promise: ${what} while messages wait for room: they reject with ${code}`,
        wakes: WAKING,
        async run(scene) {
          scene.answering = false;
          const sent = Array.from({ length: 3 * scene.setting.queueSize }, () => start(scene));
          await scene.settle();
          const waiting = sent.filter(({ watched }) => watched.state === 'pending');
          check(waiting.length > 0, 'the driver accepted all messages, but the device has taken none');
          end(scene);
          for (const { watched } of waiting) await scene.rejection(watched, code);
          await scene.idle();
          if (code === 'DISPOSED' || code === 'DEVICE_REMOVED') return;
          if (code === 'DEVICE_NEEDS_RESET') scene.driver.reset();
          await scene.ready();
          await flows(scene);
        },
      })),
    );
  }
  return behaviours;
}

interface Sent {
  readonly mark: number;
  readonly watched: Watched<unknown>;
}
