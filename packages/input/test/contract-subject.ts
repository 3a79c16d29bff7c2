/** The driver of input devices, described for the contract. The value of an event is its mark. */
import { DeviceType } from '@virtio/core';
import { type Cancel, FakeDevice, type Limit, type Subject } from '@virtio/testing';
import { EventType, Rel, VirtioInput } from '../src/index.ts';

const EVENTS = 0;
const STATUS = 1;
const { EV_LED, EV_REL } = EventType;

function event(type: number, code: number, value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint16(0, type, true);
  view.setUint16(2, code, true);
  view.setUint32(4, value, true);
  return new Uint8Array(view.buffer);
}

export const inputSubject: Subject<VirtioInput> = {
  name: 'input',
  device: ({ ring, queueSize }) =>
    new FakeDevice({ type: DeviceType.Input, features: ring, config: 136, queues: [queueSize, queueSize] }),
  open: (transport, hal) => new VirtioInput(transport, hal),
  requests: [
    {
      name: 'status',
      queue: STATUS,
      descriptors: 1,
      call: (mark) => ({
        promise: (input, options) => input.sendStatus(EV_LED, 1, mark, options),
        sync: (input, options) => input.sendStatusSync(EV_LED, 1, mark, options),
        submit: (input) => input.submitSendStatus(EV_LED, 1, mark),
        verify: () => undefined,
      }),
      markOf: (chain) => chain.header().getUint32(4, true),
      answer: () => undefined,
      polling: {
        poll: (input) => input.poll(),
        complete: (input, token) => input.complete(token),
        cancel: (input, token) => input.cancel(token),
      },
    },
  ],
  receive: [
    {
      name: 'events',
      queue: EVENTS,
      send: (device, mark) => device.send(EVENTS, event(EV_REL, Rel.REL_X, mark)),
      take(input: VirtioInput): number {
        // What may have been lost is told in the stream, and is no message of the device's.
        for (let next = input.popEvent(); next; next = input.popEvent()) {
          if (next.type === EV_REL) return next.value;
        }
        return -1;
      },
      async promise(input: VirtioInput, options: Cancel): Promise<number> {
        for (;;) {
          const { type, value } = await input.nextEvent(options);
          if (type === EV_REL) return value;
        }
      },
      sync(input: VirtioInput, options: Limit): number {
        for (;;) {
          const { type, value } = input.nextEventSync(options);
          if (type === EV_REL) return value;
        }
      },
    },
  ],
};
