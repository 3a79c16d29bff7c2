/** Options of connections and of those who make them. */
import type { Timers } from './deadlines.ts';

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
  /**
   * Timers for these two, and for asking a peer again that had no room. Without them time is only looked at when packets come and when
   * something is called.
   */
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
