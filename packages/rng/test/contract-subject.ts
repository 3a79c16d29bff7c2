/** The driver of entropy devices, described for the contract. A request carries its mark in the length of its buffer. */
import { DeviceType } from '@virtio/core';
import { type Call, type Chain, FakeDevice, type Subject } from '@virtio/testing';
import { VirtioRng } from '../src/index.ts';

/** The bytes that the device gives to the request with a mark. */
const byteOf = (mark: number, at: number): number => (mark * 7 + at) & 0xff;

export const rngSubject: Subject<VirtioRng> = {
  name: 'rng',
  device: ({ ring, queueSize }) =>
    new FakeDevice({ type: DeviceType.EntropySource, features: ring, queues: [queueSize] }),
  open: (transport, hal) => new VirtioRng(transport, hal),
  requests: [
    {
      queue: 0,
      descriptors: 1,
      call(mark: number): Call<VirtioRng> {
        const buffer = new Uint8Array(mark);
        return {
          promise: (rng, options) => rng.requestEntropy(buffer, options),
          sync: (rng, options) => rng.requestEntropySync(buffer, options),
          submit: (rng) => rng.submitRequestEntropy(buffer),
          verify(length) {
            if (length !== mark) throw new Error(`request ${mark} got ${String(length)} bytes`);
            const wrong = buffer.findIndex((byte, at) => byte !== byteOf(mark, at));
            if (wrong >= 0) throw new Error(`byte ${wrong} of request ${mark} is ${String(buffer[wrong])}`);
          },
          buffers: [buffer],
        };
      },
      markOf: (chain) => (chain.readable === 0 ? chain.writable : -1),
      answer(chain: Chain, mark: number): void {
        chain.write(Uint8Array.from({ length: mark }, (_, at) => byteOf(mark, at)));
      },
      polling: {
        poll: (rng) => rng.poll(),
        complete: (rng, token) => rng.complete(token),
        cancel: (rng, token) => rng.cancel(token),
      },
    },
  ],
};
