/** The driver of file system devices, described for the contract: requests whose node is the mark, in one part and in two. */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, type Requests, type Subject } from '@virtio/testing';
import { FsConfig, InHeader, Opcode, OutHeader, VirtioFs } from '../src/index.ts';

const ARGUMENTS = 40;
const DATA = 48;
const byteOf = (mark: number, at: number): number => (mark * 7 + at) & 0xff;
const filled = (mark: number, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, at) => byteOf(mark, at));

function request(opcode: number, mark: number, size: number): Uint8Array {
  const bytes = filled(mark, size);
  const header = { len: size, opcode, unique: BigInt(mark) * 0x1_0000_0001n, nodeid: BigInt(mark) };
  InHeader.write(new DataView(bytes.buffer), 0, header);
  return bytes;
}

function answer(mark: number, size: number): Uint8Array {
  const bytes = filled(mark, size);
  OutHeader.write(new DataView(bytes.buffer), 0, { len: size, unique: BigInt(mark) * 0x1_0000_0001n });
  return bytes;
}

/** Requests with `data` bytes in a part of their own, both ways. */
function requests(name: string, opcode: number, data: number): Requests<VirtioFs> {
  const asked = InHeader.size + ARGUMENTS + data;
  const answered = OutHeader.size + data;
  return {
    name,
    queue: 1,
    descriptors: data > 0 ? 4 : 2,
    call(mark) {
      const whole = request(opcode, mark, asked);
      const message = whole.subarray(0, InHeader.size + ARGUMENTS);
      const reply = new Uint8Array(OutHeader.size);
      const requestData = data > 0 ? whole.subarray(message.length) : undefined;
      const replyData = data > 0 ? new Uint8Array(data) : undefined;
      return {
        promise: (driver, options) => driver.request(message, reply, requestData, replyData, options),
        sync: (driver, options) => driver.requestSync(message, reply, requestData, replyData, options),
        submit: (driver) => driver.submitRequest(message, reply, requestData, replyData),
        verify(length) {
          if (length !== answered) throw new Error(`request ${mark} got a reply of ${String(length)} bytes`);
          const got = Uint8Array.of(...reply, ...(replyData ?? []));
          const wrong = answer(mark, answered).findIndex((byte, at) => byte !== got[at]);
          if (wrong >= 0) throw new Error(`byte ${wrong} of the reply to ${mark} is ${String(got[wrong])}`);
        },
        buffers: replyData === undefined ? [reply] : [reply, replyData],
      };
    },
    markOf(chain: Chain) {
      const header = InHeader.read(new DataView(chain.readAt(0, InHeader.size).buffer));
      return header.opcode === opcode ? Number(header.nodeid) : -1;
    },
    answer: (chain, mark) => void chain.write(answer(mark, answered)),
    // The header of a reply is in the caller's buffer.
    judgedInBuffers: true,
    polling: {
      poll: (driver) => driver.poll(),
      complete: (driver, token) => driver.complete(token),
      cancel: (driver, token) => driver.cancel(token),
    },
  };
}

/** A device with a tag. */
export function fsDevice(ring: bigint, queueSize: number, tag = 'share', requestQueues = 1): FakeDevice {
  const config = new Uint8Array(FsConfig.size);
  const name = Uint8Array.from(tag, (character) => character.charCodeAt(0));
  FsConfig.write(new DataView(config.buffer), 0, { tag: name, numRequestQueues: requestQueues });
  return new FakeDevice({
    type: DeviceType.FileSystem,
    features: ring,
    queues: Array.from({ length: 1 + requestQueues }, () => queueSize),
    config,
  });
}

export const fsSubject: Subject<VirtioFs> = {
  name: 'fs',
  device: ({ ring, queueSize }) => fsDevice(ring, queueSize),
  open: (transport, hal) => new VirtioFs(transport, hal),
  requests: [requests('request', Opcode.GETATTR, 0), requests('request with data', Opcode.WRITE, DATA)],
};
