/** The drivers of network devices, described for the contract: frames, and a command, with their mark. */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, type Subject } from '@virtio/testing';
import { type NetCommand, VirtioNet, VirtioNetRaw } from '../src/index.ts';

const RECEIVE = 0;
const TRANSMIT = 1;
const CONTROL = 2;
const STATUS = 1n << 16n;
const CTRL_VQ = 1n << 17n;
const GUEST_ANNOUNCE = 1n << 21n;
const HEADER = 12;
/** The least that a receive buffer must have. */
const LEAST = 1526;

const frameOf = (mark: number): Uint8Array<ArrayBuffer> => {
  const frame = new Uint8Array(60);
  frame.set([0x88, 0xb5, mark >> 8, mark & 0xff], 12);
  return frame;
};

const withHeader = (mark: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(HEADER + 60);
  bytes.set(frameOf(mark), HEADER);
  return bytes;
};

/** The mark of a frame at an offset of its buffer; -1 if it is not as it was made. */
function markAt(bytes: Uint8Array, offset: number): number {
  const mark = ((bytes[offset + 14] ?? 0) << 8) | (bytes[offset + 15] ?? 0);
  const frame = frameOf(mark);
  return bytes.length === offset + 60 && frame.every((byte, i) => bytes[offset + i] === byte) ? mark : -1;
}

const markOfFrame = (chain: Chain): number => markAt(chain.readAt(0, chain.readable), HEADER);

/** A command that no device knows: it is answered with its mark. */
const command = (mark: number): NetCommand<number> => ({
  name: 'MARK',
  class: 0xf0,
  command: 0,
  features: ['CTRL_VQ'],
  data: () => Uint8Array.of(mark >> 8, mark & 0xff),
  resultSize: () => 2,
  value: (result) => ((result[0] ?? 0) << 8) | (result[1] ?? 0),
});

const verifyMark =
  (mark: number) =>
  (result: unknown): void => {
    if (result !== mark) throw new Error(`the answer is ${String(result)}, not ${mark}`);
  };

const makeDevice = (features: bigint, queueSize: number): FakeDevice =>
  new FakeDevice({
    type: DeviceType.Network,
    features,
    config: 28,
    queues: [queueSize, queueSize, queueSize],
  });

const makeNetSubject = (): Subject<VirtioNet> => ({
  name: 'net',
  device: ({ ring, queueSize }) => makeDevice(ring | CTRL_VQ | STATUS | GUEST_ANNOUNCE, queueSize),
  open: (transport, hal) => new VirtioNet(transport, hal, { macAddress: '02:00:00:00:00:01' }),
  receive: [
    {
      queue: RECEIVE,
      send: (device, mark) => device.send(RECEIVE, withHeader(mark)),
      take: (net) => {
        using packet = net.tryReceive();
        return packet === undefined ? -1 : markAt(packet.data, 0);
      },
      promise: async (net, options) => {
        using packet = await net.receive(options);
        return markAt(packet.data, 0);
      },
      sync: (net, options) => {
        using packet = net.receiveSync(options);
        return markAt(packet.data, 0);
      },
    },
  ],
  transmit: [
    {
      queue: TRANSMIT,
      offer: (net, mark) => net.trySend(frameOf(mark)),
      promise: (net, mark, options) => net.send(frameOf(mark), options),
      sync: (net, mark, options) => net.sendSync(frameOf(mark), options),
      markOf: markOfFrame,
    },
  ],
  own: [
    {
      name: 'acknowledgement of an announcement',
      queue: CONTROL,
      provoke(device) {
        device.changeConfig((view) => view.setUint16(6, 3, true));
      },
      matches: (chain) => chain.readAt(0, 1)[0] === 3,
      answer(chain, device) {
        new DataView(device.config.buffer).setUint16(6, 1, true);
        chain.write([0]);
      },
    },
  ],
  requests: [
    {
      name: 'control command',
      queue: CONTROL,
      descriptors: 3,
      call: (mark) => ({
        promise: (net, options) => net.control(command(mark), options),
        sync: (net, options) => net.controlSync(command(mark), options),
        submit: (net) => net.submitControl(command(mark)),
        verify: verifyMark(mark),
      }),
      markOf: (chain) => {
        const bytes = chain.readAt(0, chain.readable);
        return bytes[0] === 0xf0 ? ((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0) : -1;
      },
      answer: (chain, mark) => void chain.write([0, mark >> 8, mark & 0xff]),
      polling: {
        poll: (net) => net.pollControl(),
        complete: (net, token) => net.completeControl(token),
        cancel: (net, token) => {
          net.cancelControl(token);
        },
      },
    },
  ],
});

const makeRawNetSubject = (): Subject<VirtioNetRaw> => ({
  name: 'raw net',
  device: ({ ring, queueSize }) => makeDevice(ring, queueSize),
  open: (transport, hal) => new VirtioNetRaw(transport, hal, { macAddress: '02:00:00:00:00:01' }),
  requests: [
    {
      name: 'sent buffer',
      queue: TRANSMIT,
      descriptors: 1,
      call: (mark) => ({
        submit: (net) => net.transmitBegin(withHeader(mark)),
        verify: verifyMark(HEADER + 60),
      }),
      markOf: markOfFrame,
      answer: () => undefined,
      polling: {
        poll: (net) => net.pollTransmit(),
        complete: (net, token) => net.transmitComplete(token),
        cancel: (net, token) => {
          net.transmitCancel(token);
        },
      },
    },
    {
      name: 'receive buffer',
      queue: RECEIVE,
      descriptors: 1,
      call: (mark) => {
        // Its length is what the device knows it by.
        const buffer = new Uint8Array(LEAST + mark);
        return {
          promise: (net, options) => net.receive(buffer, options),
          sync: (net, options) => net.receiveSync(buffer, options),
          submit: (net) => net.receiveBegin(buffer),
          verify: (result) => {
            verifyMark(60)(result);
            verifyMark(mark)(markAt(buffer.subarray(0, HEADER + 60), HEADER));
          },
          buffers: [buffer],
        };
      },
      markOf: (chain) => (chain.writable > LEAST ? chain.writable - LEAST : -1),
      answer: (chain, mark) => void chain.write(withHeader(mark)),
      polling: {
        poll: (net) => net.pollReceive(),
        complete: (net, token) => net.receiveComplete(token),
        cancel: (net, token) => {
          net.receiveCancel(token);
        },
      },
    },
  ],
});

/** The buffered driver. */
export const netSubject: Subject<VirtioNet> = makeNetSubject();

/** The driver on buffers of the caller's. */
export const rawNetSubject: Subject<VirtioNetRaw> = makeRawNetSubject();
