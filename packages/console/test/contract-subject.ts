/** The driver of console devices, described for the contract: with one port, whose messages are lines with their mark. */
import { DeviceType, type SpinOptions, VirtioError } from '@virtio/core';
import { type Chain, FakeDevice, type Subject } from '@virtio/testing';
import { type ConsolePort, VirtioConsole } from '../src/index.ts';
import { ADD, MULTIPORT, OPEN, PORT_READY, READY, REMOVE } from './console-model.ts';

const RECEIVE = 0;
const TRANSMIT = 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

const line = (mark: number): Uint8Array => encoder.encode(`${mark}\n`);

const markOf = (chain: Chain): number => Number(decoder.decode(chain.bytes()).trim());

/** The port; it may not be there after a reset. */
const portOf = (console: VirtioConsole): ConsolePort => console.port(0, { timeoutMs: 0 });

/** Where another write is pending, this one is refused, as if the queue were full. */
function writeMarkSync(console: VirtioConsole, mark: number, options: SpinOptions): void {
  try {
    portOf(console).writeSync(line(mark), options);
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
      take: (console) => Number(portOf(console).tryReadLine() ?? -1),
      promise: async (console, options) => Number(await portOf(console).readLine(options)),
      sync: (console, options) => Number(portOf(console).readLineSync(options)),
    },
  ],
  transmit: [
    {
      name: 'output',
      queue: TRANSMIT,
      offer: (console, mark) => portOf(console).tryWrite(line(mark)) > 0,
      promise: async (console, mark, options) => portOf(console).write(line(mark), options),
      sync: writeMarkSync,
      markOf,
    },
  ],
};

const CONTROL_RECEIVE = 2;
const CONTROL_TRANSMIT = 3;
const PORTS = 2;

/** Sends a control message; there may be no buffer for it. */
const tell = (device: FakeDevice, id: number, event: number, value: number): boolean =>
  device.queues[CONTROL_RECEIVE]?.ring !== undefined &&
  device.send(CONTROL_RECEIVE, [id, 0, 0, 0, event, 0, value, 0]);

/**
 * For the fuzzer: with control messages that the driver sends of its own accord, as the device says that a port is there. Not for the
 * contract, whose calls outlive a reset: the port is another one afterwards.
 */
export const multiportConsoleSubject: Subject<VirtioConsole> = {
  ...consoleSubject,
  name: 'console with several ports',
  device: ({ ring, queueSize }) => {
    const config = Uint8Array.of(80, 0, 25, 0, PORTS, 0, 0, 0, 0, 0, 0, 0);
    const queues = [queueSize, queueSize, 32, 32, queueSize, queueSize];
    return new FakeDevice({ type: DeviceType.Console, features: ring | MULTIPORT, config, queues });
  },
  async ready(console, device, turn) {
    const open = (): boolean => {
      const port = console.findPort(0);
      return port !== undefined && port.hostOpen && port.isOpen;
    };
    for (let n = 0; n < 30 && !open(); n += 1) {
      // As it may have had no buffer for what it said before.
      if (n % 5 === 4) tell(device, 0, ADD, 0);
      console.pollEvents();
      await turn();
      console.findPort(0)?.open();
    }
  },
  unready: ['DEVICE_RESET', 'DEVICE_REMOVED', 'NOT_READY'],
  own: [
    {
      name: 'answer to a port that comes',
      queue: CONTROL_TRANSMIT,
      provoke(device) {
        tell(device, 1, REMOVE, 0);
        tell(device, 1, ADD, 0);
      },
      matches: () => true,
      answer(chain, device) {
        const [id = 0, , , , event, , value] = chain.bytes();
        if (event === READY) for (let port = 0; port < PORTS; port += 1) tell(device, port, ADD, 0);
        if (event === PORT_READY && value === 1) tell(device, id, OPEN, 1);
      },
    },
  ],
};
