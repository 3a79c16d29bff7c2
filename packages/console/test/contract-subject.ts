/** The driver of console devices, described for the contract: with one port, whose messages are lines with their mark. */
import { DeviceType, type SpinOptions, VirtioError } from '@virtio/core';
import { type Chain, FakeDevice, type Subject } from '@virtio/testing';
import { VirtioConsole } from '../src/index.ts';

const RECEIVE = 0;
const TRANSMIT = 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const line = (mark: number): Uint8Array => encoder.encode(`${mark}\n`);

const markOf = (chain: Chain): number => Number(decoder.decode(chain.bytes()).trim());

/** Where another write is pending, this one is refused, as if the queue were full. */
function writeMarkSync(console: VirtioConsole, mark: number, options: SpinOptions): void {
  try {
    console.port().writeSync(line(mark), options);
  } catch (error) {
    if (!VirtioError.is(error, 'ALREADY_USED')) throw error;
    throw new VirtioError('QUEUE_FULL', error.message, { cause: error });
  }
}

export const consoleSubject: Subject<VirtioConsole> = {
  name: 'console',
  device: ({ ring, queueSize }) =>
    new FakeDevice({ type: DeviceType.Console, features: ring, config: 12, queues: [queueSize, queueSize] }),
  open: (transport, hal) => new VirtioConsole(transport, hal, { bufferSize: 64 }),
  receive: [
    {
      name: 'input',
      queue: RECEIVE,
      send: (device, mark) => device.send(RECEIVE, line(mark)),
      take: (console) => Number(console.port().tryReadLine() ?? -1),
      promise: async (console, options) => Number(await console.port().readLine(options)),
      sync: (console, options) => Number(console.port().readLineSync(options)),
    },
  ],
  transmit: [
    {
      name: 'output',
      queue: TRANSMIT,
      offer: (console, mark) => console.port().tryWrite(line(mark)) > 0,
      promise: (console, mark, options) => console.port().write(line(mark), options),
      sync: writeMarkSync,
      markOf,
    },
  ],
};
