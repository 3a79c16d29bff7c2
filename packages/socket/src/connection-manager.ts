/**
 * The connections of a socket device: who listens, who is connected with whom, what is due to be sent. Packets are handled as they
 * come, also while nobody waits for anything; all memory is bounded by the number of connections and their buffers.
 */
import {
  requireInteger,
  requireWaitable,
  type SpinOptions,
  spinTime,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { Cancellation } from './cancellation.ts';
import { Connection, type ConnectionHost, DUE_OPS, Happened, type VsockAddress } from './connection.ts';
import { ConnectionTable } from './connection-table.ts';
import { VsockListener } from './listener.ts';
import { VsockHeader, VsockOp, VsockType } from './protocol.ts';
import type { PacketHandler, VirtioSocket } from './virtio-socket.ts';
import { VsockConnection } from './vsock-connection.ts';
import { Waiting, WaitLine } from './wait-line.ts';

/** Timers, where there are some: `globalThis` of Node.js and of browsers. */
export interface Timers {
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: never): void;
}

/** Options of {@link VsockConnectionManager}. */
export interface ConnectionManagerOptions {
  /** Bytes that each connection can receive before they are read (default 262,144). */
  readonly connectionBufferSize?: number;
  /** The most connections at a time (default 1024). */
  readonly maxConnections?: number;
  /** After how many milliseconds a peer that does not answer has refused a connection (default 2000). */
  readonly connectTimeoutMs?: number;
  /** After how many milliseconds a connection ends whose peer does not confirm that (default 8000). */
  readonly closeTimeoutMs?: number;
  /** Timers for these two. Without them time is only looked at when packets come and when something is called. */
  readonly timers?: Timers;
}

/** The type of a socket by name. */
export type VsockTypeName = 'stream' | 'seqpacket';

/** Options of a new connection. */
export interface ConnectOptions {
  /** The port on this side (default: one that is free). */
  readonly localPort?: number;
  /** A stream of bytes (default), or messages. */
  readonly type?: VsockTypeName;
  /** Bytes that can be received before they are read (default: that of the manager). */
  readonly bufferSize?: number;
}

/** Options of a listener. */
export interface ListenOptions {
  /** The port. */
  readonly port: number;
  /** A stream of bytes (default), or messages. */
  readonly type?: VsockTypeName;
  /** How many connections may wait to be accepted (default 128); beyond that peers are refused. */
  readonly backlog?: number;
  /** Bytes that each connection can receive before they are read (default: that of the manager). */
  readonly bufferSize?: number;
}

/** What {@link VsockConnectionManager.poll} tells. */
export type VsockEventType =
  /** A peer has connected to a port on which somebody listens; it was accepted. */
  | 'connectionRequest'
  /** The peer has accepted a connection that was asked for. */
  | 'connected'
  /** There is something to read. */
  | 'received'
  /** More can be sent than before. */
  | 'creditUpdate'
  /** The peer will not send, or not receive, any more. */
  | 'shutdown'
  /** The connection is over; what was received before can still be read. */
  | 'disconnected';

/** Something that has happened to a connection. Events of one kind are told once until they are taken. */
export interface VsockEvent {
  readonly type: VsockEventType;
  readonly connection: VsockConnection;
}

const EVENT_TYPES = [
  [Happened.REQUEST, 'connectionRequest'],
  [Happened.CONNECTED, 'connected'],
  [Happened.RECEIVED, 'received'],
  [Happened.CREDIT, 'creditUpdate'],
  [Happened.SHUTDOWN, 'shutdown'],
  [Happened.DISCONNECTED, 'disconnected'],
] as const;

const TYPES = { stream: VsockType.STREAM, seqpacket: VsockType.SEQPACKET } as const;

const DEFAULT_BUFFER_SIZE = 262_144;
const MAX_BUFFER_SIZE = 2 ** 30;
const DEFAULT_MAX_CONNECTIONS = 1024;
const MAX_CONNECTIONS = 1_000_000;
const DEFAULT_BACKLOG = 128;
const DEFAULT_CONNECT_MS = 2000;
const DEFAULT_CLOSE_MS = 8000;
const MAX_MS = 2 ** 31 - 1;
const MAX_U32 = 0xffffffff;
/** Ports that are chosen for connections begin here, as in Linux; lower ones are for servers. */
const FIRST_FREE_PORT = 1024;
/** The port that stands for any. */
const PORT_ANY = 0xffffffff;
/** Refusals that may wait for room to be sent; then no more packets are handled. */
const MAX_REFUSALS = 64;

/** A refusal of a packet that belongs to no connection. */
interface Refusal {
  readonly cid: number;
  readonly peerPort: number;
  readonly localPort: number;
  readonly type: number;
}

/** A connection with the object that callers have of it. */
interface Entry {
  readonly connection: Connection;
  readonly public: VsockConnection;
}

/**
 * The connections of a {@link VirtioSocket}. There are three ways to use it:
 *
 * - `connect` and `listen` give connections that are read and written with promises, as Web Streams, or piece by piece;
 * - `connectSync`, `acceptSync`, `readSync` and so on spin, for engines without an event loop;
 * - `submitConnect`, `poll`, `tryRead` and `tryWrite` never wait. Once `poll`, one of its relatives or `submitConnect` was called, events
 *   are kept until they are polled: a connection that is over has its place until its last event was taken.
 *
 * @example
 * ```ts
 * import { VsockConnectionManager, type VirtioSocket } from '@virtio/socket';
 *
 * export async function echo(device: VirtioSocket): Promise<void> {
 *   using sockets = new VsockConnectionManager(device);
 *   for await (const connection of sockets.listen({ port: 7 })) {
 *     void connection
 *       .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
 *       .pipeTo(connection.writable(WritableStream<Uint8Array>));
 *   }
 * }
 * ```
 *
 * @see VIRTIO 1.4, 5.10.6
 */
export class VsockConnectionManager implements Disposable {
  /** The device. */
  readonly driver: VirtioSocket;

  readonly #transport: Transport;
  readonly #bufferSize: number;
  readonly #maxConnections: number;
  readonly #connectMs: number;
  readonly #closeMs: number;
  readonly #timers: Timers | undefined;
  readonly #table = new ConnectionTable();
  readonly #public = new Map<Connection, VsockConnection>();
  readonly #listeners = new Map<number, VsockListener>();
  readonly #header = new VsockHeader();
  /** Connections to which packets are due. */
  readonly #dueLine: Connection[] = [];
  readonly #refusals: Refusal[] = [];
  /** Connections that have data to send and no buffer for them. */
  readonly #roomWaiters = new Set<Connection>();
  readonly #eventLine: Entry[] = [];
  readonly #waiting: Waiting;
  readonly #eventWaiters: WaitLine;
  /** Connections with a deadline. */
  readonly #timed = new Set<Connection>();
  #timer: unknown;
  #timerDue = Infinity;
  #tracksEvents = false;
  /** While the device is to say that it has used a buffer. */
  #roomWait: Cancellation | undefined;
  #nextPort = FIRST_FREE_PORT + Math.floor(Math.random() * 0x3fffffff);
  #failure: VirtioError | undefined;
  readonly #host: ConnectionHost;
  readonly #handler: PacketHandler;

  /**
   * Takes the packets of the device from now on.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `ALREADY_USED` if the device has a manager, or why the device no longer works
   */
  constructor(driver: VirtioSocket, options: ConnectionManagerOptions = {}) {
    const { transport } = driver;
    const integer = (
      name: keyof ConnectionManagerOptions,
      fallback: number,
      min: number,
      max: number,
    ): number => requireInteger(transport, name, options[name] ?? fallback, min, max);
    this.driver = driver;
    this.#transport = transport;
    this.#bufferSize = integer('connectionBufferSize', DEFAULT_BUFFER_SIZE, 1, MAX_BUFFER_SIZE);
    this.#maxConnections = integer('maxConnections', DEFAULT_MAX_CONNECTIONS, 1, MAX_CONNECTIONS);
    this.#connectMs = integer('connectTimeoutMs', DEFAULT_CONNECT_MS, 1, MAX_MS);
    this.#closeMs = integer('closeTimeoutMs', DEFAULT_CLOSE_MS, 1, MAX_MS);
    this.#timers = options.timers;
    this.#waiting = new Waiting(transport, () => this.#awaitRoom());
    this.#eventWaiters = new WaitLine(this.#waiting);
    this.#host = {
      transport,
      waiting: this.#waiting,
      due: (connection) => this.#isDue(connection),
      ended: (connection) => this.#ended(connection),
      closing: (connection) => this.#setDeadline(connection, this.#closeMs),
      happened: (connection, what) => this.#happened(connection, what),
      sloppy: (message) => this.driver.sloppy(message),
      failure: () => this.#failure ?? this.driver.failure,
    };
    this.#handler = {
      packet: (header, bytes, complete) => this.#packet(header, bytes, complete),
      transportReset: () => this.#lose(undefined),
      failed: (error) => this.#failed(error),
    };
    driver.attach(this.#handler);
    driver.drain();
  }

  /** The context ID of this guest. */
  get guestCid(): number {
    return this.driver.guestCid;
  }

  /** How many connections there are, with those that are on their way to begin or to end. */
  get size(): number {
    return this.#table.size;
  }

  /** The connections. */
  get connections(): VsockConnection[] {
    return this.#table.all().flatMap((connection) => this.#public.get(connection) ?? []);
  }

  /**
   * Connects to a port.
   *
   * @throws {@link VirtioError} `SOCKET_REFUSED` if nobody listens there; `SOCKET_TIMED_OUT` if the peer does not answer;
   * `ALREADY_USED` if there is a connection between the same two ports; `QUEUE_FULL` if there are too many connections;
   * `SOCKET_PROTOCOL`; `INVALID_PARAM`; `UNSUPPORTED` if the device has no such sockets, or the transport no interrupts; `ABORTED`;
   * or why the device no longer works
   */
  async connect(peer: VsockAddress, options: ConnectOptions & WaitOptions = {}): Promise<VsockConnection> {
    requireWaitable(this.#transport, options);
    const { connection, public: result } = this.#connect(peer, options);
    try {
      while (connection.state.phase === 'connecting') await connection.watchers.wait(options);
    } catch (error) {
      connection.abort('aborted');
      throw error;
    }
    this.#checkConnected(connection);
    return result;
  }

  /** The same as {@link VsockConnectionManager.connect}, spinning; the time is `timeoutMs` (default: `connectTimeoutMs`). */
  connectSync(peer: VsockAddress, options: ConnectOptions & SpinOptions = {}): VsockConnection {
    const { connection, public: result } = this.#connect(peer, options);
    const { timeoutMs = this.#connectMs } = options;
    try {
      this.#spin(() => connection.state.phase !== 'connecting', { timeoutMs }, 'the answer of the peer');
    } catch (error) {
      connection.abort('timed-out');
      throw VirtioError.is(error, 'NOT_READY') ? connection.error('timed-out') : error;
    }
    this.#checkConnected(connection);
    return result;
  }

  /**
   * Asks for a connection without waiting. {@link VsockConnectionManager.poll} tells when it is established (`connected`) or refused
   * (`disconnected`). Throws as {@link VsockConnectionManager.connect} does.
   */
  submitConnect(peer: VsockAddress, options: ConnectOptions = {}): VsockConnection {
    this.#tracksEvents = true;
    return this.#connect(peer, options).public;
  }

  /**
   * Accepts connections on a port from now on.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if somebody listens there, `INVALID_PARAM`, `UNSUPPORTED` if the device has no such
   * sockets, or why the device no longer works
   */
  listen(options: ListenOptions): VsockListener {
    this.#checkUsable();
    const { port } = options;
    requireInteger(this.#transport, 'port', port, 0, PORT_ANY - 1);
    const type = this.#typeOf(options.type);
    const backlog = requireInteger(
      this.#transport,
      'backlog',
      options.backlog ?? DEFAULT_BACKLOG,
      1,
      MAX_CONNECTIONS,
    );
    const bufferSize = this.#bufferSizeOf(options.bufferSize);
    if (this.#listeners.has(port)) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#transport.who()}: somebody listens on port ${port}; close that listener first, or take another port`,
      );
    }
    const listener = new VsockListener({ port, type, backlog, bufferSize }, this.#transport, {
      waiting: this.#waiting,
      drain: () => this.#drain(),
      spin: (done, spinOptions, awaited) => this.#spin(done, spinOptions, awaited),
      checkUsable: () => this.#checkUsable(),
      close: () => this.#listeners.delete(port),
    });
    this.#listeners.set(port, listener);
    return listener;
  }

  /** Accepts no more connections on a port; those that wait to be accepted are reset. Does nothing if nobody listens there. */
  unlisten(port: number): void {
    this.#listeners.get(port)?.close();
  }

  /** Whether somebody listens on a port of this side, or a connection has it. */
  isLocalPortUsed(port: number): boolean {
    return this.#listeners.has(port) || this.#table.usesOf(port) > 0;
  }

  /** The connection with these addresses, if there is one. */
  connection(peer: VsockAddress, localPort: number): VsockConnection | undefined {
    const found = this.#table.find(peer.cid, peer.port, localPort);
    return found === undefined ? undefined : this.#public.get(found);
  }

  /** Whether there is an established connection with these addresses. */
  isConnectionEstablished(peer: VsockAddress, localPort: number): boolean {
    this.#drain();
    return this.#table.find(peer.cid, peer.port, localPort)?.state.phase === 'established';
  }

  /**
   * Looks what the device has sent, and tells the next event.
   *
   * @returns `undefined` if nothing has happened
   * @throws {@link VirtioError} why the device no longer works, once all events are taken
   */
  poll(): VsockEvent | undefined {
    this.#tracksEvents = true;
    this.#drain();
    for (let entry = this.#eventLine[0]; entry !== undefined; entry = this.#eventLine[0]) {
      const { connection } = entry;
      for (const [bit, type] of EVENT_TYPES) {
        if ((connection.happened & bit) === 0) continue;
        connection.happened &= ~bit;
        if (connection.happened === 0) this.#leaveEventLine();
        // Whoever polls has the connection now.
        if (type === 'connectionRequest') this.#listeners.get(connection.localPort)?.take(entry.public);
        return { type, connection: entry.public };
      }
      this.#leaveEventLine();
    }
    this.#checkUsable();
    return undefined;
  }

  /** Waits for the next event. Throws `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works. */
  async waitForEvent(options?: WaitOptions): Promise<VsockEvent> {
    for (;;) {
      const event = this.poll();
      if (event !== undefined) return event;
      await this.#eventWaiters.wait(options);
    }
  }

  /** The same as {@link VsockConnectionManager.waitForEvent}, spinning. Throws also `NOT_READY`. */
  waitForEventSync(options?: SpinOptions): VsockEvent {
    spinTime(this.driver.transport, options);
    let event = this.poll();
    if (event === undefined) this.#spin(() => (event = this.poll()) !== undefined, options, 'an event');
    return event as VsockEvent;
  }

  /** Aborts all connections, stops listening, and lets go of the device, which goes on to work. */
  [Symbol.dispose](): void {
    if (VirtioError.is(this.#failure, 'DISPOSED')) return;
    for (const listener of [...this.#listeners.values()]) listener.close();
    for (const connection of this.#table.all()) connection.abort('aborted');
    this.#sendDue();
    this.#failed(
      new VirtioError(
        'DISPOSED',
        `the connection manager of ${this.#transport.who()} is disposed; make a new one`,
      ),
    );
    this.driver.detach(this.#handler);
  }

  #connect(peer: VsockAddress, options: ConnectOptions): Entry {
    this.#drain();
    this.#checkUsable();
    const transport = this.#transport;
    const cid = requireInteger(transport, 'cid', peer.cid, 0, MAX_U32 - 1);
    const port = requireInteger(transport, 'port', peer.port, 0, PORT_ANY - 1);
    const type = this.#typeOf(options.type);
    const bufferSize = this.#bufferSizeOf(options.bufferSize);
    this.#checkRoom();
    const localPort =
      options.localPort === undefined
        ? this.#freePort()
        : requireInteger(transport, 'localPort', options.localPort, 0, PORT_ANY - 1);
    if (this.#table.find(cid, port, localPort) !== undefined) {
      throw new VirtioError(
        'ALREADY_USED',
        `${transport.who()}: there is a connection of port ${localPort} with port ${port} of CID ${cid}; close it first, or ` +
          'leave out localPort',
      );
    }
    const entry = this.#add({ cid, port }, localPort, type, bufferSize, false);
    this.#setDeadline(entry.connection, this.#connectMs);
    entry.connection.begin();
    return entry;
  }

  #add(peer: VsockAddress, localPort: number, type: number, bufferSize: number, incoming: boolean): Entry {
    const connection = new Connection(this.#host, peer, localPort, type, bufferSize, incoming);
    const result = new VsockConnection(connection, this.driver, {
      drain: () => this.#drain(),
      beforeSend: () => this.#sendDue(),
      awaitRoom: () => {
        this.#roomWaiters.add(connection);
        this.#awaitRoom();
      },
      waiting: this.#waiting,
      spin: (done, options, awaited) => this.#spin(done, options, awaited),
    });
    this.#table.add(connection);
    this.#public.set(connection, result);
    return { connection, public: result };
  }

  /** The peer has answered, or nobody can: says what came of it. A connection that is over by now can still have data. */
  #checkConnected(connection: Connection): void {
    const { end } = connection.state;
    if (end !== undefined && end !== 'clean' && end !== 'reset') throw connection.error(end);
  }

  #typeOf(name: VsockTypeName = 'stream'): number {
    const type = (TYPES as Partial<Record<string, number>>)[name];
    if (type === undefined) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: sockets are of the type 'stream' or 'seqpacket', not '${name}'`,
      );
    }
    if (this.driver.supports(type)) return type;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#transport.who()} has no ${name} sockets: it offers ${String(this.driver.features)}`,
    );
  }

  #bufferSizeOf(size = this.#bufferSize): number {
    return requireInteger(this.#transport, 'bufferSize', size, 1, MAX_BUFFER_SIZE);
  }

  #checkRoom(): void {
    if (this.#hasRoom()) return;
    throw new VirtioError(
      'QUEUE_FULL',
      `${this.#transport.who()} has ${this.#maxConnections} connections, and may have no more; close some, poll the events ` +
        'of those that are over, or allow more (maxConnections)',
    );
  }

  /** A connection that is over has its place as long as events of it wait. */
  #hasRoom(): boolean {
    const over = this.#eventLine.filter(({ connection }) => connection.state.phase === 'closed').length;
    return this.#table.size + over < this.#maxConnections;
  }

  #freePort(): number {
    for (;;) {
      const port = this.#nextPort;
      this.#nextPort = port + 1 >= PORT_ANY ? FIRST_FREE_PORT : port + 1;
      if (!this.isLocalPortUsed(port)) return port;
    }
  }

  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.driver.failure !== undefined) throw this.driver.failure;
  }

  /** Looks what has come, at the clock, and whether there is room for what is due. */
  #drain(): void {
    if (this.driver.failure !== undefined) return;
    this.driver.drain();
    this.#sendDue();
    this.#checkDeadlines();
  }

  #spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void {
    let looks = 0;
    const look = (): boolean => {
      this.#sendDue();
      // The clock costs more than all else.
      if (++looks % 1024 === 0) this.#checkDeadlines();
      return done();
    };
    this.driver.spin(look, options, awaited);
  }

  // Packets that come

  #packet(header: VsockHeader, bytes: Uint8Array, complete: boolean): boolean {
    const { driver } = this;
    if (header.dstCid !== driver.guestCid) {
      driver.sloppy(`a packet is for CID ${header.dstCid}, which is not here`);
      return true;
    }
    const { op, srcCid, srcPort, dstPort, type } = header;
    // 5.10.6.4.1: an unknown type must be refused. It can belong to no connection.
    if (!driver.supports(type)) return op === VsockOp.RST || this.#refuse(header);
    const connection = this.#table.find(srcCid, srcPort, dstPort);
    if (connection !== undefined) {
      const replaced = connection.receive(header, bytes, complete);
      if (!replaced) return true;
    }
    switch (op) {
      case VsockOp.RST:
        return true;
      case VsockOp.REQUEST:
        return this.#request(header);
      default:
        return this.#refuse(header);
    }
  }

  /** 5.10.6.5: a peer asks for a connection. */
  #request(header: VsockHeader): boolean {
    const { srcCid, srcPort, dstPort, type } = header;
    const listener = this.#listeners.get(dstPort);
    if (listener?.type !== type || !listener.hasRoom || !this.#hasRoom()) {
      return this.#refuse(header);
    }
    const { connection, public: accepted } = this.#add(
      { cid: srcCid, port: srcPort },
      dstPort,
      type,
      listener.bufferSize,
      true,
    );
    connection.credit.update(header.bufAlloc, header.fwdCnt);
    connection.begin();
    listener.add(accepted);
    this.#happened(connection, Happened.REQUEST);
    return true;
  }

  /** Answers a packet that belongs to no connection. Returns false if that must wait for room. */
  #refuse({ srcCid, srcPort, dstPort, type }: VsockHeader): boolean {
    if (this.#refusals.length >= MAX_REFUSALS) this.#sendDue();
    if (this.#refusals.length >= MAX_REFUSALS) return false;
    this.#refusals.push({ cid: srcCid, peerPort: srcPort, localPort: dstPort, type });
    this.#sendDue();
    return true;
  }

  // Packets that are due

  #isDue(connection: Connection): void {
    if (!connection.inDueLine) {
      connection.inDueLine = true;
      this.#dueLine.push(connection);
    }
    this.#sendDue();
  }

  /** Sends what is due, as far as there is room. */
  #sendDue(): void {
    if (this.#dueLine.length + this.#refusals.length === 0 || this.driver.failure !== undefined) return;
    const wereFull = this.#refusals.length >= MAX_REFUSALS;
    let sent = 0;
    let refused = 0;
    for (const refusal of this.#refusals) {
      if (!this.#sendRefusal(refusal)) break;
      refused += 1;
    }
    this.#refusals.splice(0, refused);
    let done = 0;
    for (const connection of this.#refusals.length === 0 ? this.#dueLine : []) {
      while (connection.due !== 0 && this.#sendNext(connection)) sent += 1;
      if (connection.due !== 0) break;
      connection.inDueLine = false;
      done += 1;
    }
    this.#dueLine.splice(0, done);
    if (sent + refused > 0) this.driver.kick();
    if (this.#dueLine.length + this.#refusals.length > 0) this.#awaitRoom();
    if (wereFull && refused > 0) this.driver.resume();
  }

  #sendNext(connection: Connection): boolean {
    const number = this.driver.takeBuffer();
    if (number < 0) return false;
    const index = 31 - Math.clz32(connection.due & -connection.due);
    const op = DUE_OPS[index] as number;
    connection.due &= connection.due - 1;
    connection.fill(this.#header, op, op === VsockOp.SHUTDOWN ? connection.state.localShutdown : 0);
    this.driver.sendBuffer(number, this.#header, undefined, 0, 0);
    connection.sent(op);
    return true;
  }

  #sendRefusal({ cid, peerPort, localPort, type }: Refusal): boolean {
    const number = this.driver.takeBuffer();
    if (number < 0) return false;
    const header = this.#header;
    header.dstCid = cid;
    header.srcPort = localPort;
    header.dstPort = peerPort;
    header.type = type;
    header.op = VsockOp.RST;
    header.flags = 0;
    header.bufAlloc = 0;
    header.fwdCnt = 0;
    this.driver.sendBuffer(number, header, undefined, 0, 0);
    return true;
  }

  /**
   * Goes on when the device has used a buffer: with what is due, and with those who have data to send. Nobody is kept alive for that who
   * does not wait: without them it goes on when the next packet comes, or with the next call.
   */
  #awaitRoom(): void {
    const wanted = this.#dueLine.length + this.#refusals.length + this.#roomWaiters.size > 0;
    if (!wanted || !this.#waiting.anybody) {
      this.#roomWait?.abort();
      this.#roomWait = undefined;
      return;
    }
    if (this.#roomWait !== undefined) return;
    const wait = new Cancellation();
    this.#roomWait = wait;
    this.driver.waitForRoom({ signal: wait }).then(
      () => {
        if (this.#roomWait === wait) this.#roomWait = undefined;
        this.#sendDue();
        const waiting = [...this.#roomWaiters];
        this.#roomWaiters.clear();
        for (const connection of waiting) connection.writers.wake();
      },
      () => {
        // Nobody waits any more, or the device no longer works, which is told elsewhere.
        if (this.#roomWait === wait) this.#roomWait = undefined;
      },
    );
  }

  // Events

  #happened(connection: Connection, what: number): void {
    if (!this.#tracksEvents) return;
    connection.happened |= what;
    if (!connection.inEventLine) {
      const result = this.#public.get(connection);
      if (result === undefined) return;
      connection.inEventLine = true;
      this.#eventLine.push({ connection, public: result });
    }
    this.#eventWaiters.wake();
  }

  #leaveEventLine(): void {
    const entry = this.#eventLine.shift();
    if (entry === undefined) return;
    entry.connection.inEventLine = false;
    if (entry.connection.state.phase === 'closed') this.#public.delete(entry.connection);
  }

  #ended(connection: Connection): void {
    this.#table.delete(connection);
    this.#timed.delete(connection);
    if (!this.#tracksEvents) this.#public.delete(connection);
  }

  #lose(failure: VirtioError | undefined): void {
    this.#refusals.length = 0;
    for (const connection of this.#dueLine.splice(0)) connection.inDueLine = false;
    for (const connection of this.#table.all()) connection.lose(failure);
  }

  #failed(error: VirtioError): void {
    // After anything else a reset of the driver may follow, and all goes on.
    if (VirtioError.is(error, 'DISPOSED')) this.#failure = error;
    this.#lose(error);
    for (const listener of this.#listeners.values()) listener.wake();
    this.#eventWaiters.wake();
    this.#setTimer();
  }

  // Time

  #setDeadline(connection: Connection, milliseconds: number): void {
    if (connection.state.phase === 'closed' || connection.deadline !== Infinity) return;
    connection.deadline = Date.now() + milliseconds;
    this.#timed.add(connection);
    this.#setTimer();
  }

  #checkDeadlines(): void {
    if (this.#timed.size === 0) return;
    const now = Date.now();
    for (const connection of [...this.#timed]) {
      if (connection.deadline === Infinity) this.#timed.delete(connection);
      else if (connection.deadline <= now) connection.abort('timed-out');
    }
    this.#sendDue();
  }

  #setTimer(): void {
    const timers = this.#timers;
    if (timers === undefined) return;
    let next = Infinity;
    for (const { deadline } of this.#timed) next = Math.min(next, deadline);
    if (next === this.#timerDue) return;
    if (this.#timer !== undefined) timers.clearTimeout(this.#timer as never);
    this.#timer = undefined;
    this.#timerDue = next;
    if (next === Infinity) return;
    const timer = timers.setTimeout(
      () => {
        this.#timer = undefined;
        this.#timerDue = Infinity;
        this.#checkDeadlines();
        this.#setTimer();
      },
      Math.max(1, next - Date.now()),
    );
    // In Node.js: who waits keeps the event loop alive, a time limit does not.
    (timer as { unref?: () => void }).unref?.();
    this.#timer = timer;
  }
}
