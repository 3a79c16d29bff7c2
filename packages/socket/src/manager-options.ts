/** Options of connections, listeners and their manager. */
import type { Timers } from './deadlines.ts';

/** Options of {@link VsockConnectionManager}. */
export interface ConnectionManagerOptions {
  /** The receive buffer of each connection in bytes: what a peer can send before it is read (default 262,144). */
  readonly connectionBufferSize?: number;
  /** The largest number of connections at a time (default 1024). */
  readonly maxConnections?: number;
  /** The milliseconds after which a connection that the peer does not answer fails with `SOCKET_TIMED_OUT` (default 2000). */
  readonly connectTimeoutMs?: number;
  /** The milliseconds after which a closed connection is reset if the peer does not confirm the end (default 8000). */
  readonly closeTimeoutMs?: number;
  /**
   * Timers for these two, and for asking a peer that had no room again. Without them, time is checked only when packets arrive and when
   * a method is called.
   */
  readonly timers?: Timers;
}

/** The type of a socket by name. */
export type VsockTypeName = 'stream' | 'seqpacket';

/** Options of a new connection. */
export interface ConnectOptions {
  /** The port on this side (default: a free one). */
  readonly localPort?: number;
  /** A byte stream (default), or messages. */
  readonly type?: VsockTypeName;
  /** The receive buffer in bytes (default: `connectionBufferSize` of the manager). */
  readonly bufferSize?: number;
}

/** Options of a listener. */
export interface ListenOptions {
  /** The port. */
  readonly port: number;
  /** A stream of bytes (default), or messages. */
  readonly type?: VsockTypeName;
  /** How many connections may wait to be accepted (default 128); further peers are refused. */
  readonly backlog?: number;
  /** The receive buffer of each connection in bytes (default: `connectionBufferSize` of the manager). */
  readonly bufferSize?: number;
}
