/** The driver of socket devices, described for the contract: as packets, and as a connection with a program on the host. */
import { DeviceType, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import { type Chain, FakeDevice, type Subject } from '@virtio/testing';
import {
  VirtioSocket,
  VsockConnectionManager,
  type VsockConnection,
  VsockHeader,
  VsockOp,
  VsockType,
} from '../src/index.ts';

const RX = 0;
const TX = 1;
const GUEST = 3;
const HOST = 2;
const HOST_PORT = 1000;
const GUEST_PORT = 2000;
const HEADER = 44;

const U32 = 4;
const RW = 5;

function makeDevice(ring: bigint, queueSize: number): FakeDevice {
  const config = new Uint8Array(8);
  config[0] = GUEST;
  return new FakeDevice({
    type: DeviceType.Socket,
    features: ring,
    config,
    queues: [queueSize, queueSize, 8],
  });
}

/** A packet of the host, with a mark of four bytes as its data if it carries data. */
function packet(op: number, mark?: number): Uint8Array {
  const bytes = new Uint8Array(HEADER + (mark === undefined ? 0 : U32));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, HOST, true);
  view.setUint32(8, GUEST, true);
  view.setUint32(16, HOST_PORT, true);
  view.setUint32(20, GUEST_PORT, true);
  view.setUint32(24, bytes.length - HEADER, true);
  view.setUint16(28, 1, true);
  view.setUint16(30, op, true);
  // Room without end: the counters of the contract are never told.
  view.setUint32(36, 0xffff_ffff, true);
  if (mark !== undefined) view.setUint32(HEADER, mark, true);
  return bytes;
}

function markOf(chain: Chain): number {
  const view = new DataView(chain.readAt(0, Math.min(chain.readable, HEADER + U32)).buffer);
  return view.getUint16(30, true) === RW && view.byteLength === HEADER + U32
    ? view.getUint32(HEADER, true)
    : -1;
}

function data(mark: number): Uint8Array {
  const bytes = new Uint8Array(U32);
  new DataView(bytes.buffer).setUint32(0, mark, true);
  return bytes;
}

/** The mark of a message; -1 if a device that lies has made it shorter. */
const markIn = (bytes: Uint8Array): number =>
  bytes.length < U32 ? -1 : new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(0, true);

const header = (): VsockHeader =>
  Object.assign(new VsockHeader(), {
    ...{ dstCid: HOST, srcPort: GUEST_PORT, dstPort: HOST_PORT },
    ...{ type: VsockType.STREAM, op: VsockOp.RW },
  });

/** The packets of the device without connections. */
export const packetSubject: Subject<VirtioSocket> = {
  name: 'socket (packets)',
  device: ({ ring, queueSize }) => makeDevice(ring, queueSize),
  open: (transport, hal) => new VirtioSocket(transport, hal, { bufferSize: 64 }),
  receive: [
    {
      queue: RX,
      send: (device, mark) => device.send(RX, packet(RW, mark)),
      take: takePacket,
      promise: nextPacket,
      sync: nextPacketSync,
    },
  ],
  transmit: [
    {
      queue: TX,
      offer: (driver, mark) => driver.trySend(header(), data(mark)),
      promise: (driver, mark, options) => driver.send(header(), data(mark), options),
      sync: (driver, mark, options) => driver.sendSync(header(), data(mark), options),
      markOf,
    },
  ],
};

function takePacket(driver: VirtioSocket): number {
  let mark = -1;
  driver.poll((_header, bytes) => (mark = markIn(bytes)), 1);
  return mark;
}

async function nextPacket(driver: VirtioSocket, options: WaitOptions): Promise<number> {
  for (;;) {
    await driver.waitForPacket(options);
    const mark = takePacket(driver);
    if (mark >= 0) return mark;
  }
}

function nextPacketSync(driver: VirtioSocket, options: SpinOptions): number {
  driver.waitForPacketSync(options);
  return takePacket(driver);
}

const managers = new WeakMap<VirtioSocket, VsockConnectionManager>();
const connections = new WeakMap<VirtioSocket, VsockConnection>();

function connectionOf(driver: VirtioSocket): VsockConnection {
  const connection = connections.get(driver);
  if (connection === undefined) throw new Error('there is no connection');
  return connection;
}

function connect(driver: VirtioSocket, device: FakeDevice): void {
  const sockets = managers.get(driver);
  if (sockets === undefined) throw new Error('the driver was not made here');
  connections.set(driver, sockets.submitConnect({ cid: HOST, port: HOST_PORT }, { localPort: GUEST_PORT }));
  device.send(RX, packet(VsockOp.RESPONSE));
  driver.pollEvents();
  while (sockets.poll() !== undefined);
}

function takeMark(driver: VirtioSocket): number {
  const into = new Uint8Array(U32);
  return connectionOf(driver).tryRead(into) === 0 ? -1 : markIn(into);
}

async function readMark(driver: VirtioSocket, options: WaitOptions): Promise<number> {
  const into = new Uint8Array(U32);
  await connectionOf(driver).read(into, options);
  return markIn(into);
}

function readMarkSync(driver: VirtioSocket, options: SpinOptions): number {
  const into = new Uint8Array(U32);
  connectionOf(driver).readSync(into, options);
  return markIn(into);
}

/** A spinning write beside another, which it refuses to mix with: for the contract the same as no room. */
function writeMarkSync(driver: VirtioSocket, mark: number, options: SpinOptions): void {
  try {
    connectionOf(driver).writeSync(data(mark), options);
  } catch (error) {
    if (!VirtioError.is(error, 'ALREADY_USED')) throw error;
    throw new VirtioError('QUEUE_FULL', error.message, { cause: error });
  }
}

/** One connection, which carries messages of four bytes both ways. */
export const connectionSubject: Subject<VirtioSocket> = {
  name: 'socket (a connection)',
  device: ({ ring, queueSize }) => makeDevice(ring, queueSize),
  open: (transport, hal) => {
    const driver = new VirtioSocket(transport, hal, { bufferSize: 64 });
    managers.set(driver, new VsockConnectionManager(driver, { connectionBufferSize: 4 * 1000 }));
    return driver;
  },
  ready: async (driver, device, turn) => {
    connect(driver, device);
    await turn();
  },
  // Packets of the connection may be lost, whichever queue it was.
  queuesAreOne: true,
  // A buffer that the device returns without having written it may hold an earlier packet.
  misled: ['SOCKET_PROTOCOL'],
  // Control packets need no answer: nothing here ends, and the peer has room without end.
  other: () => undefined,
  receive: [
    {
      queue: RX,
      send: (device, mark) => device.send(RX, packet(RW, mark)),
      take: takeMark,
      promise: readMark,
      sync: readMarkSync,
    },
  ],
  transmit: [
    {
      queue: TX,
      offer: (driver, mark) => connectionOf(driver).tryWrite(data(mark)) > 0,
      promise: (driver, mark, options) => connectionOf(driver).write(data(mark), options),
      sync: writeMarkSync,
      markOf,
    },
  ],
};
