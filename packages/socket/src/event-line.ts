/**
 * What has happened to connections and was not polled yet, in the order in which it began. Of each connection it is a set of bits, so that
 * a peer cannot make it grow; a connection that is over keeps its place until its last event was taken.
 */
import { type Connection, Happened } from './connection.ts';
import type { VsockConnection } from './vsock-connection.ts';
import { type Waiting, WaitLine } from './wait-line.ts';

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

/** A connection with the object that callers have of it. */
interface Entry {
  readonly connection: Connection;
  readonly public: VsockConnection;
}

/** The events of all connections. */
export class EventLine {
  /** Those who wait for an event. */
  readonly waiters: WaitLine;
  /** Whether anybody polls; until then nothing is kept. */
  tracks = false;
  readonly #line: Entry[] = [];
  readonly #left: (connection: Connection) => void;
  #over = 0;

  /** @param left called when a connection that is over has no more events */
  constructor(waiting: Waiting, left: (connection: Connection) => void) {
    this.waiters = new WaitLine(waiting);
    this.#left = left;
  }

  /** How many connections are over and have events that nobody has taken. */
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
