/** The driver of block devices, described for the contract. A request carries its mark as its sector. */
import { DeviceType } from '@virtio/core';
import { type Call, type Chain, FakeDevice, type Requests, type Subject } from '@virtio/testing';
import { BlkConfigLayout, BlkFeatures, RequestType, VirtioBlk } from '../src/index.ts';

const SECTORS = 2048;

/** The byte at a place of the sector with a mark. */
const byteOf = (mark: number, at: number): number => (mark * 7 + at) & 0xff;

const sector = (mark: number): Uint8Array => Uint8Array.from({ length: 512 }, (_, at) => byteOf(mark, at));

function headerOf(chain: Chain): { readonly type: number; readonly sector: number } {
  const view = new DataView(chain.readAt(0, 16).buffer);
  return { type: view.getUint32(0, true), sector: Number(view.getBigUint64(8, true)) };
}

function requests(
  name: string,
  type: number,
  call: (mark: number) => Call<VirtioBlk>,
  answer: (chain: Chain, mark: number) => void,
): Requests<VirtioBlk> {
  return {
    name,
    queue: 0,
    descriptors: 4,
    call,
    markOf(chain) {
      const header = headerOf(chain);
      return header.type === type ? header.sector : -1;
    },
    answer(chain, mark) {
      answer(chain, mark);
      chain.writeAt(chain.writable - 1, [0]);
    },
    polling: {
      poll: (blk) => blk.poll(),
      complete: (blk, token) => blk.complete(token),
      cancel: (blk, token) => blk.cancel(token),
    },
  };
}

export const blkSubject: Subject<VirtioBlk> = {
  name: 'blk',
  device({ ring, queueSize }) {
    const config = new DataView(new ArrayBuffer(BlkConfigLayout.size));
    BlkConfigLayout.write(config, 0, { capacity: BigInt(SECTORS), blkSize: 512, segMax: 2, numQueues: 1 });
    return new FakeDevice({
      type: DeviceType.Block,
      features: BlkFeatures.set('SEG_MAX', 'BLK_SIZE', 'FLUSH').bits | ring,
      config: new Uint8Array(config.buffer),
      queues: [queueSize],
    });
  },
  open: (transport, hal) => new VirtioBlk(transport, hal),
  requests: [
    requests(
      'read',
      RequestType.IN,
      (mark) => {
        const [first, second] = [new Uint8Array(200), new Uint8Array(312)];
        const array = [first, second];
        return {
          promise: (blk, options) => blk.read(mark, array, options),
          sync: (blk, options) => blk.readSync(mark, array, options),
          submit: (blk) => blk.submitRead(mark, array),
          verify() {
            [...first, ...second].forEach((byte, at) => {
              if (byte !== byteOf(mark, at)) throw new Error(`byte ${at} of sector ${mark} is ${byte}`);
            });
          },
          buffers: [first, second],
          spoil() {
            array.length = 0;
          },
        };
      },
      (chain, mark) => chain.write(sector(mark)),
    ),
    requests(
      'write',
      RequestType.OUT,
      (mark) => {
        const array = [sector(mark)];
        return {
          promise: (blk, options) => blk.write(mark, array, options),
          sync: (blk, options) => blk.writeSync(mark, array, options),
          submit: (blk) => blk.submitWrite(mark, array),
          verify: () => undefined,
          spoil() {
            array.length = 0;
          },
        };
      },
      (chain, mark) => {
        chain.readAt(16, 512).forEach((byte, at) => {
          if (byte !== byteOf(mark, at)) throw new Error(`byte ${at} written to sector ${mark} is ${byte}`);
        });
      },
    ),
  ],
};
