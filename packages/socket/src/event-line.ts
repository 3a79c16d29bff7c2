/**
 * The events of connections that were not polled yet, ordered by the first event of each connection. For each connection they are a set
 * of bits, so that a peer cannot exhaust memory; a connection that is over counts until its last event is taken.
 */
import { type Connection, Happened } from './connection.ts';
import type { VsockConnection } from './vsock-connection.ts';
import { type Waiting, WaitLine } from './wait-line.ts';

/** The types of events that {@link VsockConnectionManager.poll} reports. */
export type VsockEventType =
  /** A peer has connected to a port with a listener. */
  | 'connectionRequest'
  /** The peer has accepted a connection that this side asked for. */
  | 'connected'
  /** There is something to read. */
  | 'received'
  /** The peer has granted more credit. */
  | 'creditUpdate'
  /** The peer will not send, or not receive, any more. */
  | 'shutdown'
  /** The connection is over; what was received before can still be read. */
  | 'disconnected';

/** An event of a connection. Each type is pending at most once per connection until it is taken. */
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

/** A connection and the object that its caller has. */
interface Entry {
  readonly connection: Connection;
  readonly public: VsockConnection;
}

/** The events of all connections. */
export class EventLine {
  /** Callers that wait for an event. */
  readonly waiters: WaitLine;
  /** Whether events are polled; until then none is kept. */
  tracks = false;
  readonly #line: Entry[] = [];
  readonly #left: (connection: Connection) => void;
  #over = 0;

  /** @param left called when a connection that is over has no more events */
  constructor(waiting: Waiting, left: (connection: Connection) => void) {
    this.waiters = new WaitLine(waiting);
    this.#left = left;
  }

  /** The number of connections that are over and have events that were not taken. */
  get over(): number {
    return this.#over;
  }

  /** Something has happened: {@link Happened} bits. */
  add(connection: Connection, result: VsockConnection, what: number): void {
    connection.happened |= what;
    if (what === Happened.DISCONNECTED) this.#over += 1;
    if (!connection.inEventLine) {
      connection.inEventLine = true;
      this.#line.push({ connection, public: result });
    }
    this.waiters.wake();
  }

  /** Takes the next event. */
  next(): VsockEvent | undefined {
    const entry = this.#line[0];
    if (entry === undefined) return undefined;
    const { connection, public: result } = entry;
    const [bit, type] = EVENT_TYPES.find(([one]) => (connection.happened & one) !== 0) ?? EVENT_TYPES[5];
    connection.happened &= ~bit;
    if (connection.happened === 0) {
      this.#line.shift();
      connection.inEventLine = false;
      if (connection.state.phase === 'closed') {
        this.#over -= 1;
        this.#left(connection);
      }
    }
    return { type, connection: result };
  }
}
