/** The driver of 9P devices, described for the contract: messages whose tag is the mark, in one part and in two. */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, type Requests, type Subject } from '@virtio/testing';
import { Virtio9p } from '../src/index.ts';

const HEADER = 16;
const DATA = 48;
const byteOf = (mark: number, at: number): number => (mark * 7 + at) & 0xff;

/** A message: size, type, tag, and bytes that belong to the mark. */
function message(type: number, mark: number, size: number): Uint8Array {
  const bytes = Uint8Array.from({ length: size }, (_, at) => byteOf(mark, at));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, size, true);
  view.setUint8(4, type);
  view.setUint16(5, mark, true);
  return bytes;
}

/** Messages of a type, with `data` bytes in a part of their own. */
function messages(name: string, type: number, data: number): Requests<Virtio9p> {
  const size = HEADER + data;
  return {
    name,
    queue: 0,
    descriptors: data > 0 ? 4 : 2,
    call(mark) {
      const whole = message(type, mark, size);
      const request = whole.subarray(0, HEADER);
      const reply = new Uint8Array(HEADER);
      const requestData = data > 0 ? whole.subarray(HEADER) : undefined;
      const replyData = data > 0 ? new Uint8Array(data) : undefined;
      return {
        promise: (driver, options) => driver.request(request, reply, requestData, replyData, options),
        sync: (driver, options) => driver.requestSync(request, reply, requestData, replyData, options),
        submit: (driver) => driver.submitRequest(request, reply, requestData, replyData),
        verify(length) {
          if (length !== size) throw new Error(`request ${mark} got a reply of ${String(length)} bytes`);
          const got = Uint8Array.of(...reply, ...(replyData ?? []));
          const wrong = message(type + 1, mark, size).findIndex((byte, at) => byte !== got[at]);
          if (wrong >= 0) throw new Error(`byte ${wrong} of the reply to ${mark} is ${String(got[wrong])}`);
        },
        buffers: replyData === undefined ? [reply] : [reply, replyData],
      };
    },
    markOf(chain: Chain) {
      const header = new DataView(chain.readAt(0, 7).buffer);
      return header.getUint8(4) === type ? header.getUint16(5, true) : -1;
    },
    answer: (chain, mark) => void chain.write(message(type + 1, mark, size)),
    // The header of a reply is in the caller's buffer.
    judgedInBuffers: true,
    polling: {
      poll: (driver) => driver.poll(),
      complete: (driver, token) => driver.complete(token),
      cancel: (driver, token) => driver.cancel(token),
    },
  };
}

export const p9Subject: Subject<Virtio9p> = {
  name: '9p',
  device: ({ ring, queueSize }) =>
    new FakeDevice({ type: DeviceType.P9, features: ring, queues: [queueSize] }),
  open: (transport, hal) => new Virtio9p(transport, hal),
  requests: [messages('message', 100, 0), messages('message with data', 118, DATA)],
};
