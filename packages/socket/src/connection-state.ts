/**
 * The state machine of a connection, independent of the device: packets and calls go in, the actions to take come out, as bits. A
 * connection is over as soon as both sides know it; data received by then can still be read.
 *
 * @see VIRTIO 1.4, 5.10.6.5
 */
import { VsockOp, VsockShutdown } from './protocol.ts';

/** The actions to take, and what has happened: bits that are returned together. */
export const Act = {
  NONE: 0,
  /** Send an `RST`. */
  SEND_RST: 1,
  /** Send a `CREDIT_UPDATE`. */
  SEND_CREDIT: 2,
  /** Send a `SHUTDOWN` with {@link ConnectionState.localShutdown}. */
  SEND_SHUTDOWN: 4,
  /** Keep the packet's data for readers. */
  TAKE_DATA: 8,
  /** Drop the packet's data; their space is free again. */
  DROP_DATA: 16,
  /** The connection is established. */
  CONNECTED: 32,
  /** The peer will not send, or not receive, any more. */
  PEER_SHUTDOWN: 64,
  /** The connection is over; {@link ConnectionState.end} says why. */
  ENDED: 128,
  /** The packet asks for a new connection in place of this one, which is over. */
  REPLACED: 256,
  /** The packet makes no sense here and was ignored. */
  QUIRK: 512,
} as const;

/** The phase of a connection. */
export type ConnectionPhase =
  /** Asked for; the peer has not answered. */
  | 'connecting'
  /** Established; one of its directions may be shut down. */
  | 'established'
  /** Shut down in both directions by this side; the peer has not confirmed. */
  | 'closing'
  /** Over. */
  | 'closed';

/** Why a connection is over. */
export type ConnectionEnd =
  /** Both sides shut it down. */
  | 'clean'
  /** The peer refused it. */
  | 'refused'
  /** The peer ended it without a shutdown. */
  | 'reset'
  /** The peer broke the protocol. */
  | 'protocol'
  /** This side aborted it. */
  | 'aborted'
  /** The peer did not answer in time. */
  | 'timed-out'
  /** The device, or the transport to the peer, was reset. */
  | 'transport-reset';

const { RECEIVE, SEND, BOTH } = VsockShutdown;

/** The state of one connection. */
export class ConnectionState {
  phase: ConnectionPhase;
  /** Why it is over. */
  end: ConnectionEnd | undefined = undefined;
  /** What this side has shut down: {@link VsockShutdown} bits. */
  localShutdown = 0;
  /** What the peer has shut down: {@link VsockShutdown} bits. */
  peerShutdown = 0;

  /** @param incoming whether the peer asked for the connection, and it was accepted */
  constructor(incoming: boolean) {
    this.phase = incoming ? 'established' : 'connecting';
  }

  /** Whether the shutdowns so far allow sending data. */
  get canSend(): boolean {
    return (
      this.phase === 'established' && (this.localShutdown & SEND) === 0 && (this.peerShutdown & RECEIVE) === 0
    );
  }

  /** Whether more data can arrive. */
  get canReceive(): boolean {
    return (
      (this.phase === 'established' || this.phase === 'connecting') &&
      (this.localShutdown & RECEIVE) === 0 &&
      (this.peerShutdown & SEND) === 0
    );
  }

  /** Whether nothing is missing of what the peer sent, in a connection that is over. */
  get receivedAll(): boolean {
    if (this.end !== 'timed-out') return this.end === 'clean';
    // The peer has said that it sends no more, and only did not confirm the end.
    return (this.peerShutdown & SEND) !== 0;
  }

  /** Handles a packet from the peer. */
  receive(op: number, flags: number): number {
    if (this.phase === 'closed') return op === VsockOp.RST ? Act.NONE : Act.SEND_RST;
    if (op === VsockOp.RST) return this.#reset();
    return this.phase === 'connecting' ? this.#whileConnecting(op) : this.#whileConnected(op, flags);
  }

  /**
   * This side will not send, or not receive, any more.
   *
   * @param flags {@link VsockShutdown} bits
   */
  shutdown(flags: number): number {
    if (this.phase === 'connecting') return this.abort('aborted');
    const added = flags & ~this.localShutdown;
    if (this.phase !== 'established' || added === 0) return Act.NONE;
    this.localShutdown |= added;
    // Once nothing more can come, it makes no difference to the peer whether anybody would receive it.
    if ((this.localShutdown & SEND) !== 0 && (this.peerShutdown & SEND) !== 0) this.localShutdown = BOTH;
    if (this.localShutdown === BOTH) this.phase = 'closing';
    return Act.SEND_SHUTDOWN;
  }

  /** This side ends the connection without waiting for the peer. */
  abort(end: 'aborted' | 'timed-out' | 'protocol'): number {
    if (this.phase === 'closed') return Act.NONE;
    return Act.SEND_RST | this.#close(end);
  }

  /** The device forgot all connections. */
  transportReset(): number {
    return this.phase === 'closed' ? Act.NONE : this.#close('transport-reset');
  }

  #close(end: ConnectionEnd): number {
    this.phase = 'closed';
    this.end = end;
    return Act.ENDED;
  }

  #reset(): number {
    if (this.phase === 'connecting') return this.#close('refused');
    // The peer has said before that it would send no more: nothing is missing.
    const isClean = this.phase === 'closing' || (this.peerShutdown & SEND) !== 0;
    return this.#close(isClean ? 'clean' : 'reset');
  }

  #whileConnecting(op: number): number {
    switch (op) {
      case VsockOp.RESPONSE:
        this.phase = 'established';
        return Act.CONNECTED;
      case VsockOp.REQUEST:
      case VsockOp.SHUTDOWN:
      case VsockOp.RW:
        return this.abort('protocol');
      default:
        return Act.QUIRK;
    }
  }

  #whileConnected(op: number, flags: number): number {
    switch (op) {
      case VsockOp.RW:
        if ((this.peerShutdown & SEND) !== 0) return Act.DROP_DATA | Act.QUIRK;
        return this.canReceive ? Act.TAKE_DATA : Act.DROP_DATA;
      case VsockOp.CREDIT_UPDATE:
        return Act.NONE;
      case VsockOp.CREDIT_REQUEST:
        return Act.SEND_CREDIT;
      case VsockOp.SHUTDOWN:
        return this.#peerShutsDown(flags);
      case VsockOp.REQUEST:
        // The peer has forgotten the connection, and uses its port again.
        return this.#reset() | Act.REPLACED;
      default:
        return Act.QUIRK;
    }
  }

  #peerShutsDown(flags: number): number {
    const added = flags & BOTH & ~this.peerShutdown;
    if (added === 0) return Act.QUIRK;
    this.peerShutdown |= added;
    if (this.peerShutdown === BOTH) return Act.PEER_SHUTDOWN | Act.SEND_RST | this.#close('clean');
    if (
      this.phase === 'established' &&
      (this.localShutdown & SEND) !== 0 &&
      (this.peerShutdown & SEND) !== 0
    ) {
      // Both have sent all they had: this side closes.
      this.localShutdown = BOTH;
      this.phase = 'closing';
      return Act.PEER_SHUTDOWN | Act.SEND_SHUTDOWN;
    }
    return Act.PEER_SHUTDOWN;
  }
}
