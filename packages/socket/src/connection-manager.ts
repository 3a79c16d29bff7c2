/**
 * The connections and listeners of a socket device, and the packets that they have to send. Packets are handled when they arrive, also
 * while no call waits; all memory is bounded by the number of connections and their buffers.
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
import { Connection, type ConnectionHost, Happened, type VsockAddress } from './connection.ts';
import { ConnectionTable } from './connection-table.ts';
import { Deadlines } from './deadlines.ts';
import { EventLine, type VsockEvent } from './event-line.ts';
import { VsockListener } from './listener.ts';
import type {
  ConnectionManagerOptions,
  ConnectOptions,
  ListenOptions,
  VsockTypeName,
} from './manager-options.ts';
import { Outbox } from './outbox.ts';
import { type VsockHeader, VsockOp, VsockType } from './protocol.ts';
import type { PacketHandler, VirtioSocket } from './virtio-socket.ts';
import { VsockConnection } from './vsock-connection.ts';

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
/** The first port that is chosen automatically, as in Linux; lower ports are for servers. */
const FIRST_FREE_PORT = 1024;
/** The port that means "any port". */
const PORT_ANY = 0xffffffff;
/** The milliseconds after which a peer that had no room is asked for credit again. */
const CREDIT_MS = 250;

/** A connection and the object that its caller has. */
interface Made {
  readonly connection: Connection;
  readonly public: VsockConnection;
}

/**
 * The connections of a {@link VirtioSocket}. There are three ways to use it:
 *
 * - `connect` and `listen` make connections that are read and written with promises, as Web Streams, or chunk by chunk;
 * - `connectSync`, `acceptSync`, `readSync` and so on spin, for engines without an event loop;
 * - `submitConnect`, `poll`, `tryRead` and `tryWrite` never wait. Once `poll`, `waitForEvent`, `waitForEventSync` or `submitConnect` was
 *   called, events are kept until they are polled: a connection that is over counts until its last event is taken.
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
  readonly #table = new ConnectionTable();
  readonly #public = new Map<Connection, VsockConnection>();
  readonly #listeners = new Map<number, VsockListener>();
  readonly #outbox: Outbox;
  readonly #events: EventLine;
  readonly #deadlines: Deadlines;
  #nextPort = FIRST_FREE_PORT + Math.floor(Math.random() * 0x3fffffff);
  #failure: VirtioError | undefined;
  readonly #host: ConnectionHost;
  readonly #handler: PacketHandler;

  /**
   * Makes a manager, which takes all packets of the device from now on.
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
    this.#outbox = new Outbox(driver, transport);
    this.#events = new EventLine(this.#outbox.waiting, (connection) => this.#public.delete(connection));
    this.#deadlines = new Deadlines(options.timers, () => this.#outbox.send());
    this.#host = {
      transport,
      waiting: this.#outbox.waiting,
      due: (connection) => this.#outbox.add(connection),
      ended: (connection) => this.#ended(connection),
      closing: (connection) => this.#deadlines.set(connection, this.#closeMs),
      asked: (connection) => this.#deadlines.set(connection, CREDIT_MS),
      happened: (connection, what) => this.#happened(connection, what),
      sloppy: (message) => this.driver.sloppy(message),
      failure: () => this.#failure ?? this.driver.failure,
    };
    this.#handler = {
      packet: (header, data, complete) => this.#packet(header, data, complete),
      transportReset: () => {
        this.#lose(undefined);
        // Packets may have waited for room for refusals.
        this.driver.resume();
      },
      failed: (error) => this.#failed(error),
      queueReset: (error) => {
        for (const connection of this.#table.all()) connection.lose(error, true);
      },
    };
    driver.attach(this.#handler);
    driver.drain();
  }

  /** The context ID of this guest. */
  get guestCid(): number {
    return this.driver.guestCid;
  }

  /** The number of connections, including those that are being set up or closed. */
  get size(): number {
    return this.#table.size;
  }

  /** The connections, as a new array. */
  get connections(): VsockConnection[] {
    return this.#table.all().flatMap((connection) => this.#public.get(connection) ?? []);
  }

  /**
   * Connects to a port.
   *
   * @throws {@link VirtioError} `SOCKET_REFUSED` if the peer does not listen there; `SOCKET_TIMED_OUT` if it does not answer;
   * `ALREADY_USED` if there is a connection between the same two ports; `QUEUE_FULL` if there are too many connections;
   * `SOCKET_PROTOCOL`; `INVALID_PARAM`; `UNSUPPORTED` if the device has no sockets of this type, or the transport no interrupts; `ABORTED`;
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
    const { timeoutMs = this.#connectMs } = options;
    spinTime(this.#transport, { timeoutMs });
    const { connection, public: result } = this.#connect(peer, options, Math.min(timeoutMs, MAX_MS));
    try {
      this.#spin(() => connection.state.phase !== 'connecting', { timeoutMs }, "the peer's answer");
    } catch (error) {
      connection.abort('timed-out');
      throw VirtioError.is(error, 'NOT_READY') ? connection.error('timed-out') : error;
    }
    this.#checkConnected(connection);
    return result;
  }

  /**
   * Asks for a connection without waiting. {@link VsockConnectionManager.poll} reports when it is established (`connected`) or refused
   * (`disconnected`). Throws as {@link VsockConnectionManager.connect} does.
   */
  submitConnect(peer: VsockAddress, options: ConnectOptions = {}): VsockConnection {
    this.#events.tracks = true;
    return this.#connect(peer, options).public;
  }

  /**
   * Accepts connections on a port from now on.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if there is a listener, `INVALID_PARAM`, `UNSUPPORTED` if the device has no sockets
   * of this type, or why the device no longer works
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
        `${this.#transport.who()}: port ${port} has a listener; close it first, or choose another port`,
      );
    }
    const listener = new VsockListener({ port, type, backlog, bufferSize }, this.#transport, {
      waiting: this.#outbox.waiting,
      drain: () => this.#drain(),
      fairTurn: () => this.driver.fairTurn(),
      spin: (done, spinOptions, awaited) => this.#spin(done, spinOptions, awaited),
      checkUsable: () => this.#checkUsable(),
      close: () => this.#listeners.delete(port),
    });
    this.#listeners.set(port, listener);
    return listener;
  }

  /** Stops listening on a port; connections that wait to be accepted are reset. Does nothing if there is no listener. */
  unlisten(port: number): void {
    this.#listeners.get(port)?.close();
  }

  /** Whether a listener or a connection uses a port of this side. */
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
   * Handles what the device has sent, and takes the next event.
   *
   * @returns `undefined` if there is none
   * @throws {@link VirtioError} why the device no longer works, once all events are taken
   */
  poll(): VsockEvent | undefined {
    this.#events.tracks = true;
    this.#drain();
    const event = this.#events.next();
    if (event !== undefined) {
      const { type, connection } = event;
      // Whoever polls has the connection now.
      if (type === 'connectionRequest') this.#listeners.get(connection.localPort)?.take(connection);
      return event;
    }
    this.#checkUsable();
    return undefined;
  }

  /** Waits for the next event. Throws `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works. */
  async waitForEvent(options?: WaitOptions): Promise<VsockEvent> {
    const turn = this.driver.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no event.
      requireWaitable(this.#transport, options);
      const event = this.poll();
      if (event !== undefined) return event;
      await this.#events.waiters.wait(options);
    }
  }

  /** The same as {@link VsockConnectionManager.waitForEvent}, spinning. Throws also `NOT_READY`. */
  waitForEventSync(options?: SpinOptions): VsockEvent {
    spinTime(this.driver.transport, options);
    let event = this.poll();
    if (event === undefined) this.#spin(() => (event = this.poll()) !== undefined, options, 'an event');
    return event as VsockEvent;
  }

  /** Aborts all connections, stops listening, and releases the device, which remains usable. */
  [Symbol.dispose](): void {
    if (VirtioError.is(this.#failure, 'DISPOSED')) return;
    for (const listener of [...this.#listeners.values()]) listener.close();
    for (const connection of this.#table.all()) connection.abort('aborted');
    this.#outbox.send();
    this.#failed(
      new VirtioError(
        'DISPOSED',
        `the connection manager of ${this.#transport.who()} was disposed; make a new one`,
      ),
    );
    this.driver.detach(this.#handler);
  }

  #connect(peer: VsockAddress, options: ConnectOptions, timeoutMs = this.#connectMs): Made {
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
        `${transport.who()}: port ${localPort} is already connected with port ${port} of CID ${cid}; close that connection first, ` +
          'or leave out localPort',
      );
    }
    const entry = this.#add({ cid, port }, localPort, type, bufferSize, false);
    this.#deadlines.set(entry.connection, timeoutMs);
    entry.connection.begin();
    this.#checkUsable();
    return entry;
  }

  #add(peer: VsockAddress, localPort: number, type: number, bufferSize: number, incoming: boolean): Made {
    const connection = new Connection(this.#host, peer, localPort, type, bufferSize, incoming);
    const result = new VsockConnection(connection, this.driver, {
      drain: () => this.#drain(),
      fairTurn: () => this.driver.fairTurn(),
      beforeSend: () => this.#outbox.send(),
      awaitRoom: () => this.#outbox.wantRoom(connection),
      waiting: this.#outbox.waiting,
      spin: (done, options, awaited) => this.#spin(done, options, awaited),
    });
    this.#table.add(connection);
    this.#public.set(connection, result);
    return { connection, public: result };
  }

  /** Throws if the connection was not established. One that is over by now can still have data. */
  #checkConnected(connection: Connection): void {
    const { end } = connection.state;
    if (end !== undefined && end !== 'clean' && end !== 'reset') throw connection.error(end);
  }

  #typeOf(name: VsockTypeName = 'stream'): number {
    const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
    if (type === undefined) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: the type of a socket must be 'stream' or 'seqpacket', not '${name}'`,
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
      `${this.#transport.who()} has ${this.#maxConnections} connections, which is the limit; close some, poll the events ` +
        'of those that are over, or raise maxConnections',
    );
  }

  /** A connection that is over counts as long as it has events that were not taken, or its peer could not be told. */
  #hasRoom(): boolean {
    return this.#table.size + this.#events.over + this.#outbox.leaving < this.#maxConnections;
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

  /** Handles received packets, checks deadlines, and sends what is due if there is room. */
  #drain(): void {
    if (this.driver.failure !== undefined) return;
    this.driver.drain();
    this.#outbox.send();
    this.#deadlines.check();
  }

  #spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void {
    let looks = 0;
    const look = (): boolean => {
      this.#outbox.send();
      // The clock costs more than all else.
      if (++looks % 1024 === 0) this.#deadlines.check();
      return done();
    };
    this.driver.spin(look, options, awaited);
  }

  // Packets that come

  #packet(header: VsockHeader, data: Uint8Array, complete: boolean): boolean {
    const { driver } = this;
    if (header.dstCid !== driver.guestCid) {
      driver.sloppy(`a packet is addressed to CID ${header.dstCid}, which is not this guest`);
      return true;
    }
    const { op, srcCid, srcPort, dstPort, type } = header;
    // 5.10.6.4.1: an unknown type must be refused. It can belong to no connection.
    if (!driver.supports(type)) return op === VsockOp.RST || this.#outbox.refuse(header);
    const connection = this.#table.find(srcCid, srcPort, dstPort);
    if (connection !== undefined) {
      const replaced = connection.receive(header, data, complete);
      if (!replaced) return true;
    }
    switch (op) {
      case VsockOp.RST:
        return true;
      case VsockOp.REQUEST:
        return this.#request(header);
      default:
        return this.#outbox.refuse(header);
    }
  }

  /** 5.10.6.5: a peer asks for a connection. */
  #request(header: VsockHeader): boolean {
    const { srcCid, srcPort, dstPort, type } = header;
    const listener = this.#listeners.get(dstPort);
    if (listener?.type !== type || !listener.hasRoom || !this.#hasRoom()) {
      return this.#outbox.refuse(header);
    }
    const { connection, public: accepted } = this.#add(
      { cid: srcCid, port: srcPort },
      dstPort,
      type,
      listener.bufferSize,
      true,
    );
    connection.credit.update(header.bufAlloc, header.fwdCnt);
    listener.add(accepted);
    this.#happened(connection, Happened.REQUEST);
    // Answered last: the device may go on inside the notification, and a caller there close the listener or the manager.
    connection.begin();
    return true;
  }

  #happened(connection: Connection, what: number): void {
    if (!this.#events.tracks) return;
    const result = this.#public.get(connection);
    if (result !== undefined) this.#events.add(connection, result, what);
  }

  #ended(connection: Connection): void {
    this.#table.delete(connection);
    this.#deadlines.delete(connection);
    this.#outbox.drop(connection);
    if (!this.#events.tracks) this.#public.delete(connection);
  }

  #lose(failure: VirtioError | undefined): void {
    this.#outbox.clear();
    for (const connection of this.#table.all()) connection.lose(failure);
  }

  #failed(error: VirtioError): void {
    // After anything else a reset of the driver may follow, and all goes on.
    if (VirtioError.is(error, 'DISPOSED')) this.#failure = error;
    this.#lose(error);
    for (const listener of this.#listeners.values()) listener.wake();
    this.#events.waiters.wake();
    this.#deadlines.stop();
  }
}
