/**
 * The driver of sound devices, described for the contract. A control request and a single transfer carry their mark in the number of the
 * stream, an event in that of the jack.
 */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, MAX_MARK, type Receive, type Requests, type Subject } from '@virtio/testing';
import { queryCommand, type StreamInfo, VirtioSound } from '../src/index.ts';
import { OK } from './sound-model.ts';

const PCM_INFO = 0x100;
const INFO_SIZE = 32;
const TRANSFER = 64;

const u32 = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);

/** What the device says of a stream: a number that tells which one was asked for. */
const nodeOf = (mark: number): number => mark * 3 + 1;
const byteOf = (mark: number, at: number): number => (mark * 5 + at) & 0xff;

const parse = (view: DataView, at: number): number => view.getUint32(at, true);

function startOf(chain: Chain): number {
  if (chain.readable !== 16) return -1;
  const header = chain.header();
  return header.getUint32(0, true) === PCM_INFO ? header.getUint32(4, true) : -1;
}

const controlRequests: Requests<VirtioSound> = {
  name: 'control requests',
  queue: 0,
  descriptors: 2,
  call: (mark) => ({
    promise: ({ control }, options) => control.streamInfos({ start: mark, count: 1 }, options),
    sync: ({ control }, options) => control.streamInfosSync({ start: mark, count: 1 }, options),
    submit: ({ control }) =>
      control.submit(queryCommand({ code: PCM_INFO, size: INFO_SIZE, parse }, mark, 1)),
    verify(result) {
      const [first] = result as (StreamInfo | number)[];
      const node = typeof first === 'object' ? first.hdaFnNid : first;
      if (node !== nodeOf(mark)) throw new Error(`request ${mark} got node ${String(node)}`);
    },
  }),
  markOf: startOf,
  answer(chain, mark) {
    const info = new Uint8Array(INFO_SIZE);
    info.set(u32(nodeOf(mark)));
    chain.write(u32(OK)).write(info);
  },
  polling: {
    poll: ({ control }) => control.poll(),
    complete: ({ control }, token) => control.complete(token),
    cancel: ({ control }, token) => control.cancel(token),
  },
};

const transfers: Requests<VirtioSound> = {
  name: 'transfers',
  queue: 3,
  descriptors: 3,
  call(mark) {
    const buffer = new Uint8Array(TRANSFER);
    return {
      promise: (sound, options) => sound.transfer('input', mark, buffer, options),
      sync: (sound, options) => sound.transferSync('input', mark, buffer, options),
      submit: (sound) => sound.submitTransfer('input', mark, buffer),
      verify(result) {
        const { length } = result as { length: number };
        if (length !== TRANSFER) throw new Error(`transfer ${mark} got ${length} bytes`);
        const wrong = buffer.findIndex((byte, at) => byte !== byteOf(mark, at));
        if (wrong >= 0) throw new Error(`byte ${wrong} of transfer ${mark} is ${String(buffer[wrong])}`);
      },
      buffers: [buffer],
    };
  },
  markOf: (chain) => (chain.readable === 4 ? chain.header().getUint32(0, true) : -1),
  answer(chain, mark) {
    chain.write(Uint8Array.from({ length: TRANSFER }, (_, at) => byteOf(mark, at))).write(u32(OK, 0));
  },
  polling: {
    poll: (sound) => sound.pollTransfer('input'),
    complete: (sound, token) => sound.completeTransfer('input', token),
    cancel: (sound, token) => sound.cancelTransfer('input', token),
  },
};

const events: Receive<VirtioSound> = {
  queue: 1,
  send: (device, mark) => device.send(1, u32(0x1000, mark)),
  take(sound) {
    const notification = sound.popNotification();
    return notification?.type === 'jack' ? notification.jack : -1;
  },
  async promise(sound, options) {
    const notification = await sound.nextNotification(options);
    return notification.type === 'jack' ? notification.jack : -1;
  },
  sync(sound, options) {
    const notification = sound.nextNotificationSync(options);
    return notification.type === 'jack' ? notification.jack : -1;
  },
};

export const soundSubject: Subject<VirtioSound> = {
  name: 'sound',
  device: ({ ring, queueSize }) =>
    new FakeDevice({
      type: DeviceType.Sound,
      features: ring,
      config: u32(MAX_MARK + 1, MAX_MARK + 1, 0, 0),
      queues: [queueSize, queueSize, queueSize, queueSize],
    }),
  open: (transport, hal) => new VirtioSound(transport, hal),
  requests: [controlRequests, transfers],
  receive: [events],
};
