/** The driver of 9P devices, described for the contract: messages as they are, whose tag is the mark. */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { FakeDevice, type Subject } from '@virtio/testing';
import { Virtio9p } from '../src/index.ts';

const SIZE = 32;
const byteOf = (mark: number, at: number): number => (mark * 7 + at) & 0xff;

/** A message of {@link SIZE} bytes: size, type, tag, and bytes that belong to the mark. */
function message(type: number, mark: number): Uint8Array {
  const bytes = Uint8Array.from({ length: SIZE }, (_, at) => byteOf(mark, at));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, SIZE, true);
  view.setUint8(4, type);
  view.setUint16(5, mark, true);
  return bytes;
}

export const p9Subject: Subject<Virtio9p> = {
  name: '9p',
  device: ({ ring, queueSize }) =>
    new FakeDevice({
      type: DeviceType.P9,
      features: ring | CommonFeatures.set().bits,
      queues: [queueSize],
    }),
  open: (transport, hal) => new Virtio9p(transport, hal),
  requests: [
    {
      queue: 0,
      descriptors: 2,
      call(mark) {
        const request = message(100, mark);
        const reply = new Uint8Array(SIZE);
        return {
          promise: (driver) => driver.request(request, reply),
          sync: (driver, options) => driver.requestSync(request, reply, undefined, undefined, options),
          submit(driver) {
            const token = driver.submit(request, reply);
            driver.flush();
            return token;
          },
          verify(length) {
            if (length !== SIZE) throw new Error(`request ${mark} got a reply of ${String(length)} bytes`);
            message(101, mark).forEach((byte, at) => {
              if (byte !== reply[at])
                throw new Error(`byte ${at} of the reply to request ${mark} is ${String(reply[at])}`);
            });
          },
          buffers: [reply],
        };
      },
      markOf: (chain) => new DataView(chain.readAt(0, 7).buffer).getUint16(5, true),
      answer: (chain, mark) => void chain.write(message(101, mark)),
      polling: {
        poll: (driver) => driver.poll(),
        complete: (driver, token) => driver.complete(token),
        cancel: (driver, token) => driver.abandon(token),
      },
    },
  ],
};
