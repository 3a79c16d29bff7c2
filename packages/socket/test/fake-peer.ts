/**
 * The far side of a socket device for tests: it reads and writes packets byte by byte, by offsets of its own, and keeps its own account of
 * credit in plain numbers that never wrap. It shares no code with the driver, and says at once when the driver breaks a rule.
 */
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport, type FakeTransportOptions } from '@virtio/testing';
import {
  type ConnectionManagerOptions,
  type SocketOptions,
  VirtioSocket,
  VsockConnectionManager,
} from '../src/index.ts';

export const OPS = [
  'INVALID',
  'REQUEST',
  'RESPONSE',
  'RST',
  'SHUTDOWN',
  'RW',
  'CREDIT_UPDATE',
  'CREDIT_REQUEST',
] as const;
export type Op = (typeof OPS)[number];

export const GUEST = 66;
export const HOST = 2;

/** A packet as the peer sees it. */
export interface Packet {
  readonly srcCid: number;
  readonly dstCid: number;
  readonly srcPort: number;
  readonly dstPort: number;
  readonly type: number;
  readonly op: Op;
  readonly flags: number;
  readonly bufAlloc: number;
  readonly fwdCnt: number;
  readonly data: Uint8Array;
}

/** What {@link FakePeer.send} may be told; the rest is zero, or from the host to the guest. */
export interface PacketToSend extends Partial<Omit<Packet, 'op'>> {
  readonly op: Op | number;
  readonly srcPort: number;
  readonly dstPort: number;
  /** The length that the header claims, if not that of `data`. */
  readonly len?: number;
  /** The used length that the device claims. */
  readonly used?: number;
  readonly cidHigh?: number;
}

export interface PeerOptions extends FakeTransportOptions {
  readonly features?: bigint;
  readonly cid?: bigint;
  readonly queueSizes?: readonly number[];
  readonly driver?: SocketOptions;
  readonly manager?: ConnectionManagerOptions;
}

export class FakePeer {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly driver: VirtioSocket;
  readonly sockets: VsockConnectionManager;
  /** Packets that the driver sent and that no test has taken. */
  readonly packets: Packet[] = [];
  /** Called with each packet of the driver before it is kept; true if it was handled. */
  onPacket: ((packet: Packet) => boolean) | undefined;
  /** Whether the driver looks at packets as soon as they are sent; otherwise by interrupts only. */
  prompt = true;
  /** While true, packets of the driver stay in the queue. */
  deaf = false;
  /** Packets that wait for a buffer of the driver's, oldest first. */
  readonly #late: PacketToSend[] = [];

  constructor({
    features = 0n,
    cid = BigInt(GUEST),
    queueSizes = [16, 16, 8],
    driver,
    manager,
    ...rest
  }: PeerOptions = {}) {
    const config = new Uint8Array(8);
    new DataView(config.buffer).setBigUint64(0, cid, true);
    this.device = new FakeDevice({ type: DeviceType.Socket, features, config, queues: queueSizes });
    this.device.onNotify = (queue) => {
      if (queue === 1) this.listen();
      else this.#sendLate();
    };
    this.transport = new FakeTransport(this.device, rest);
    this.driver = new VirtioSocket(this.transport, this.device.hal, {
      buffers: 8,
      bufferSize: 1024,
      ...driver,
    });
    this.sockets = new VsockConnectionManager(this.driver, manager);
  }

  /** Takes the packets of the driver out of the queue. */
  listen(): void {
    const queue = this.device.queue(1);
    for (;;) {
      const chain = this.deaf ? undefined : queue.pop();
      if (chain === undefined) return;
      const bytes = chain.bytes();
      chain.complete(0);
      this.#take(bytes);
    }
  }

  /** Sends a packet as soon as the driver has a buffer for it. */
  post(packet: PacketToSend): void {
    this.#late.push(packet);
    this.#sendLate();
    if (this.#late.length === 0) return;
    // The driver gives some back when it looks, unless it is looking: then it does afterwards.
    this.driver.pollEvents();
    this.#sendLate();
  }

  /** Whether packets wait. */
  get hasLate(): boolean {
    return this.#late.length > 0;
  }

  #sendLate(): void {
    for (;;) {
      const packet = this.#late.shift();
      if (packet === undefined) return;
      if (this.send(packet)) continue;
      this.#late.unshift(packet);
      return;
    }
  }

  /** Sends a packet. Returns false if the driver has no buffer for it. */
  send(packet: PacketToSend): boolean {
    const { data = new Uint8Array(0), op } = packet;
    const bytes = new Uint8Array(44 + data.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, packet.srcCid ?? HOST, true);
    view.setUint32(4, packet.cidHigh ?? 0, true);
    view.setUint32(8, packet.dstCid ?? GUEST, true);
    view.setUint32(16, packet.srcPort, true);
    view.setUint32(20, packet.dstPort, true);
    view.setUint32(24, packet.len ?? data.length, true);
    view.setUint16(28, packet.type ?? 1, true);
    view.setUint16(30, typeof op === 'number' ? op : OPS.indexOf(op), true);
    view.setUint32(32, packet.flags ?? 0, true);
    view.setUint32(36, packet.bufAlloc ?? 65536, true);
    view.setUint32(40, packet.fwdCnt ?? 0, true);
    bytes.set(data, 44);
    const chain = this.device.queue(0).pop();
    if (chain === undefined) return false;
    chain.write(bytes);
    chain.complete(packet.used ?? bytes.length);
    // The driver sees it now, in the middle of whatever it is doing, rather than at the interrupt.
    if (this.prompt) this.driver.pollEvents();
    return true;
  }

  /** Reports an event. */
  event(id: number, length = 4): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, id, true);
    this.device.send(2, bytes.subarray(0, length));
    if (this.prompt) this.driver.pollEvents();
  }

  /** The operations of the packets that were kept, which are forgotten. */
  ops(): Op[] {
    return this.packets.splice(0).map(({ op }) => op);
  }

  /** The next packet that was kept. */
  take(): Packet {
    const packet = this.packets.shift();
    if (packet === undefined) throw new Error('the driver sent nothing');
    return packet;
  }

  /** Ends the test: nothing may be left, and no rule broken. */
  end(): void {
    this.sockets[Symbol.dispose]();
    this.driver[Symbol.dispose]();
    this.device.assertClean();
  }

  #take(bytes: Uint8Array): void {
    if (bytes.length < 44) throw this.device.violated(`a packet has ${bytes.length} bytes`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const number = view.getUint16(30, true);
    const op = OPS[number];
    if (op === undefined || op === 'INVALID') {
      throw this.device.violated(`the driver sent operation ${number}`);
    }
    const packet: Packet = {
      srcCid: view.getUint32(0, true),
      dstCid: view.getUint32(8, true),
      srcPort: view.getUint32(16, true),
      dstPort: view.getUint32(20, true),
      type: view.getUint16(28, true),
      op,
      flags: view.getUint32(32, true),
      bufAlloc: view.getUint32(36, true),
      fwdCnt: view.getUint32(40, true),
      data: bytes.slice(44),
    };
    if (view.getUint32(4, true) + view.getUint32(12, true) !== 0) {
      throw this.device.violated('the upper half of a CID is not zero [5.10.6]');
    }
    if (view.getUint32(24, true) !== packet.data.length) {
      throw this.device.violated(
        `a packet with ${packet.data.length} bytes of data says ${view.getUint32(24, true)}`,
      );
    }
    if (op !== 'RW' && packet.data.length > 0) throw this.device.violated(`${op} has data`);
    if (this.onPacket?.(packet) !== true) this.packets.push(packet);
  }
}

/** A program at the far side: it has connections, reads and writes, and checks the driver's account of credit. */
export class FarProgram {
  readonly peer: FakePeer;
  readonly connections = new Map<string, FarConnection>();
  /** Ports on which it accepts connections. */
  readonly listening = new Set<number>();
  /** The buffer of each of its connections. */
  bufAlloc = 4096;
  /** Called with each connection that the guest makes. */
  onConnection: ((connection: FarConnection) => void) | undefined;
  /** RSTs for connections that it does not know. */
  strayResets = 0;

  constructor(peer: FakePeer) {
    this.peer = peer;
    peer.onPacket = (packet) => this.#take(packet);
  }

  /** Asks for a connection. */
  connect(srcPort: number, dstPort: number, type = 1): FarConnection {
    const connection = new FarConnection(this, srcPort, dstPort, type);
    this.connections.set(`${srcPort}:${dstPort}`, connection);
    connection.say('REQUEST');
    return connection;
  }

  #take(packet: Packet): boolean {
    const { peer } = this;
    if (packet.srcCid !== peer.driver.guestCid) {
      throw peer.device.violated(`a packet comes from CID ${packet.srcCid} [5.10.6.4.1]`);
    }
    const key = `${packet.dstPort}:${packet.srcPort}`;
    const known = this.connections.get(key);
    if (packet.op === 'REQUEST') {
      if (known !== undefined && !known.over) throw peer.device.violated(`${key} was asked for twice`);
      const connection = new FarConnection(this, packet.dstPort, packet.srcPort, packet.type);
      connection.learn(packet);
      if (!this.listening.has(packet.dstPort)) {
        connection.say('RST');
        return true;
      }
      this.connections.set(key, connection);
      connection.established = true;
      connection.say('RESPONSE');
      this.onConnection?.(connection);
      return true;
    }
    if (known === undefined || known.over) {
      if (packet.op === 'RST') this.strayResets += 1;
      else peer.post({ op: 'RST', srcPort: packet.dstPort, dstPort: packet.srcPort, type: packet.type });
      return true;
    }
    known.take(packet);
    return true;
  }
}

/** A connection of a {@link FarProgram}. */
export class FarConnection {
  readonly program: FarProgram;
  readonly port: number;
  readonly guestPort: number;
  readonly type: number;
  established = false;
  over = false;
  wasReset = false;
  /** What the guest has shut down. */
  guestShutdown = 0;
  /** What was received and not read, in pieces. */
  readonly received: number[] = [];
  /** What was read. */
  readonly read: number[] = [];
  readonly messages: { readonly data: number[]; readonly eor: boolean }[] = [];
  /** Read at once what comes. */
  eager = true;
  /** Tell of credit without being asked. */
  tells = true;
  creditRequests = 0;
  creditUpdates = 0;
  #message: number[] = [];
  /** Counters that never wrap. */
  #got = 0;
  #taken = 0;
  #sent = 0;
  #guestTaken = 0;
  #guestBufAlloc = 0;
  #told = 0;
  readonly #queue: number[] = [];

  constructor(program: FarProgram, port: number, guestPort: number, type: number) {
    this.program = program;
    this.port = port;
    this.guestPort = guestPort;
    this.type = type;
  }

  /** Bytes that the guest has room for. */
  get guestRoom(): number {
    return this.#guestBufAlloc - (this.#sent - this.#guestTaken);
  }

  /** Bytes that wait to be sent. */
  get unsent(): number {
    return this.#queue.length;
  }

  /** Sends a packet. */
  say(op: Op, more: Partial<PacketToSend> = {}): void {
    this.#told = this.#taken;
    this.#sent += op === 'RW' ? (more.data?.length ?? 0) : 0;
    const { peer } = this.program;
    const packet = {
      ...{ op, srcPort: this.port, dstPort: this.guestPort, type: this.type },
      ...{ bufAlloc: this.program.bufAlloc, fwdCnt: this.#taken % 2 ** 32, ...more },
    };
    peer.post(packet);
    if (op === 'RST') this.over = true;
  }

  /** Sends data as far as the guest has room; the rest is sent when it has more. */
  write(data: ArrayLike<number>): void {
    for (let n = 0; n < data.length; n += 1) this.#queue.push(data[n] as number);
    this.push();
  }

  /** Sends what waits. */
  push(): void {
    // Behind what waits for a buffer.
    while (this.#queue.length > 0 && !this.over && !this.program.peer.hasLate) {
      const count = Math.min(this.#queue.length, this.guestRoom, this.program.peer.driver.maxData);
      if (count <= 0) return;
      const data = Uint8Array.from(this.#queue.splice(0, count));
      // The guest may answer before `send` returns.
      this.#sent += count;
      const { peer } = this.program;
      const sent = peer.send({
        op: 'RW',
        srcPort: this.port,
        dstPort: this.guestPort,
        type: this.type,
        bufAlloc: this.program.bufAlloc,
        fwdCnt: this.#taken % 2 ** 32,
        data,
      });
      if (sent) continue;
      this.#sent -= count;
      this.#queue.unshift(...data);
      return;
    }
  }

  /** Reads so many bytes of what was received. */
  readSome(count = Infinity): void {
    const taken = this.received.splice(0, count);
    this.read.push(...taken);
    this.#taken += taken.length;
    if (this.tells && taken.length > 0 && (this.#taken - this.#told) * 2 >= this.program.bufAlloc) {
      this.say('CREDIT_UPDATE');
    }
  }

  /** Takes what the guest says of credit. */
  learn({ bufAlloc, fwdCnt }: Packet): void {
    const { device } = this.program.peer;
    this.#guestBufAlloc = bufAlloc;
    const before = this.#guestTaken % 2 ** 32;
    const step = (fwdCnt - before + 2 ** 32) % 2 ** 32;
    this.#guestTaken += step;
    if (this.#guestTaken > this.#sent) {
      throw device.violated(`fwd_cnt ${fwdCnt} is more than was sent [5.10.6.3.1]`);
    }
  }

  take(packet: Packet): void {
    const { peer } = this.program;
    const { op } = packet;
    if (packet.type !== this.type) throw peer.device.violated(`${op} has type ${packet.type}`);
    if (op === 'RST') {
      this.over = true;
      this.wasReset = true;
      return;
    }
    this.learn(packet);
    switch (op) {
      case 'RESPONSE':
        if (this.established) throw peer.device.violated('RESPONSE twice');
        this.established = true;
        break;
      case 'RW':
        this.#got += packet.data.length;
        if (this.#got - this.#taken > this.program.bufAlloc) {
          throw peer.device.violated(
            `RW without credit: ${this.#got - this.#taken} of ${this.program.bufAlloc} [5.10.6.3.1]`,
          );
        }
        if ((this.guestShutdown & 2) !== 0) {
          throw peer.device.violated('RW after SHUTDOWN of sending [5.10.6.5]');
        }
        this.received.push(...packet.data);
        if (this.type === 2) this.#boundary(packet);
        if (this.eager) this.readSome();
        break;
      case 'CREDIT_UPDATE':
        this.creditUpdates += 1;
        break;
      case 'CREDIT_REQUEST':
        this.creditRequests += 1;
        if (this.tells) this.say('CREDIT_UPDATE');
        break;
      case 'SHUTDOWN':
        if ((packet.flags & ~this.guestShutdown) === 0) break;
        this.guestShutdown |= packet.flags;
        if (this.guestShutdown === 3) this.say('RST');
        break;
      default:
        throw peer.device.violated(`${op} on an established connection`);
    }
    this.push();
  }

  #boundary({ data, flags }: Packet): void {
    this.#message.push(...data);
    if ((flags & 1) === 0) return;
    this.messages.push({ data: this.#message, eor: (flags & 2) !== 0 });
    this.#message = [];
  }
}

/** Lets everything that is under way happen. */
export async function turns(count = 6): Promise<void> {
  for (let n = 0; n < count; n += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Bytes that differ. */
export const bytes = (length: number, seed = 1): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, n) => (n * 7 + (n >> 8) * 13 + seed * 31) & 0xff);
