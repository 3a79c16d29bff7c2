/** The events of input devices: in order and complete, and losses are reported. */
import { type InputEvent, EventType } from '@virtio/input';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { guestTest } from '../../framework/define.ts';
import {
  countUpdate,
  device,
  DROPPED,
  expectUpdate,
  host,
  keyUpdate,
  openInput,
  SYN,
  UPDATES,
} from './_input.ts';

/**
 * QEMU's devices have 64 buffers (256 on MMIO) and drop what does not fit, so the host waits for the guest before it sends more;
 * and it stays so far below that the driver need not suspect a loss.
 */
const BATCH = 50;
/** More of one kind than its device can hold in all its buffers, many times over; of the others some hundreds in less time. */
const EVENTS = { keyboard: 2500, mouse: 800, tablet: 800, multitouch: 800 } as const;

/** Cuts updates into batches of no more events than {@link BATCH}. */
function* batches(
  kind: keyof typeof EVENTS,
): Generator<{ kind: keyof typeof EVENTS; from: number; to: number }> {
  let events = 0;
  for (let from = 0, to = 0; events < EVENTS[kind]; from = to) {
    for (let room = BATCH; ; to++) {
      const { length } = UPDATES[kind](to).arrives;
      room -= length + 1;
      if (room < 0) break;
      events += length;
    }
    yield { kind, from, to };
  }
}

export default [
  ...(['keyboard', 'mouse', 'tablet', 'multitouch'] as const).map((kind) =>
    guestTest({
      device: 'input',
      name: `gets ${EVENTS[kind]} events of a ${kind} in order and complete`,
      long: true,
      timeoutS: 120,
      devices: { input: device(kind) },
      host,
      async guest(context) {
        using input = openInput(context);
        let updates = 0;
        for (const batch of batches(kind)) {
          const sent = context.host('send', batch);
          for (let n = batch.from; n < batch.to; n++) await expectUpdate(input, kind, n);
          await sent;
          updates = batch.to;
        }
        equal(input.popEvent(), undefined);
        equal(input.lost, 0);
        context.note(`${updates} updates`);
      },
    }),
  ),

  guestTest({
    device: 'input',
    name: 'takes events by polling and by spinning, too',
    devices: { input: device('keyboard') },
    host,
    async guest(context) {
      using input = openInput(context);
      await context.host('send', { kind: 'keyboard', from: 0, to: 10 });
      const got: InputEvent[] = [];
      while (got.length < 20) input.takeEvents((type, code, value) => got.push({ type, code, value }));
      await context.host('send', { kind: 'keyboard', from: 10, to: 20 });
      while (got.length < 30) {
        const event = input.popEvent();
        if (event !== undefined) got.push(event);
      }
      while (got.length < 40) got.push(input.nextEventSync());
      deepEqual(got, Array.from({ length: 20 }, (_, n) => [...keyUpdate(n).arrives, SYN]).flat());
    },
  }),

  guestTest({
    device: 'input',
    name: 'says that events were lost when nobody looked, and gets later ones complete',
    devices: { input: device('tablet') },
    host,
    async guest(context) {
      using input = openInput(context);
      const count = 400;
      await context.host('send', { kind: 'count', from: 0, to: count });
      // Nobody waits, so nothing is taken from the device; but an interrupt that nobody asked for may come once.
      let missing = 0;
      let next = 0;
      let marked = false;
      for (let event = input.popEvent(); event !== undefined; event = input.popEvent()) {
        deepEqual(input.popEvent(), SYN);
        if (isDeepStrictEqual(event, DROPPED)) {
          marked = true;
          continue;
        }
        const { value } = event;
        deepEqual(event, countUpdate(value).arrives[0]);
        ok(value >= next, `update ${value} came after ${next - 1}`);
        ok(value === next || marked, `updates ${next} to ${value - 1} are missing, and nothing says so`);
        missing += value - next;
        next = value + 1;
        marked = false;
      }
      ok(next === count || marked, `updates from ${next} on are missing, and nothing says so`);
      missing += count - next;
      ok(missing > 0, 'nothing was lost');
      const { lost } = input;
      context.note(`${missing} of ${count} updates lost, ${lost} marks`);
      const sent = context.host('send', { kind: 'count', from: count, to: count + 20 });
      for (let n = count; n < count + 20; n++) await expectUpdate(input, 'count', n);
      await sent;
      equal(input.lost, lost);
    },
  }),

  guestTest({
    device: 'input',
    name: 'iterates over events until it is told to stop',
    essential: true,
    devices: { input: device('mouse') },
    host,
    async guest(context) {
      using input = openInput(context);
      const controller = new AbortController();
      const got: InputEvent[] = [];
      const loop = (async () => {
        for await (const event of input.events({ signal: controller.signal })) got.push(event);
      })();
      await context.host('send', { kind: 'mouse', from: 0, to: 8 });
      const expected = Array.from({ length: 8 }, (_, n) => [...UPDATES.mouse(n).arrives, SYN]).flat();
      for (let wait = 0; got.length < expected.length && wait < 100; wait++) await delay(20);
      controller.abort();
      const end = await loop.then(
        () => undefined,
        (error: unknown) => error,
      );
      ok(end instanceof Error && 'code' in end && end.code === 'ABORTED', String(end));
      deepEqual(got, expected);
    },
  }),

  guestTest({
    device: 'input',
    name: 'works again after a reset',
    devices: { input: device('keyboard') },
    host,
    async guest(context) {
      using input = openInput(context);
      for (let round = 0; round < 3; round++) {
        await context.host('send', { kind: 'keyboard', from: 0, to: 4 });
        for (let n = 0; n < 4; n++) await expectUpdate(input, 'keyboard', n);
        input.reset();
        deepEqual([input.popEvent(), input.popEvent(), input.popEvent()], [DROPPED, SYN, undefined]);
      }
      equal(input.eventCodes(EventType.EV_KEY).has(30), true);
    },
  }),
];
