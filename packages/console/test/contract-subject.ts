/** The driver of console devices, described for the contract: with one port, whose messages are lines with their mark. */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, type Subject } from '@virtio/testing';
import { VirtioConsole } from '../src/index.ts';

const RECEIVE = 0;
const TRANSMIT = 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const line = (mark: number): Uint8Array => encoder.encode(`${mark}\n`);

const markOf = (chain: Chain): number => Number(decoder.decode(chain.bytes()).trim());

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
      sync: (console, mark, options) => console.port().writeSync(line(mark), options),
      markOf,
    },
  ],
};
