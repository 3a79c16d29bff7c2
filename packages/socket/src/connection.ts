/**
 * One connection as the manager sees it: packets go in, packets that are due come out. Nothing here waits; callers that do are in
 * {@link WaitLine}s. A packet that is due and cannot be sent yet is a bit, not an entry of a queue, so that no peer can exhaust memory.
 */
import { type Transport, VirtioError } from '@virtio/core';
import { Act, type ConnectionEnd, ConnectionState } from './connection-state.ts';
import { ReceiveCredit, SendCredit } from './credit.ts';
import { type VsockHeader, VsockOp, VsockSeqFlags, VsockShutdown, VsockType } from './protocol.ts';
import { ReceiveBuffer } from './receive-buffer.ts';
import { type Waiting, WaitLine } from './wait-line.ts';

/** An address: a context ID and a port. @see VIRTIO 1.4, 5.10.6.2 */
export interface VsockAddress {
  /** The context ID: 2 is the host. */
  readonly cid: number;
  /** The port, 0 to 2^32 - 1. */
  readonly port: number;
}

/** Packets without data that have to be sent, as bits in the order in which they are sent. */
export const Due = {
  REQUEST: 1,
  RESPONSE: 2,
  CREDIT_UPDATE: 4,
  CREDIT_REQUEST: 8,
  SHUTDOWN: 16,
  RST: 32,
} as const;

/** The operation of each bit of {@link Due}, by its position. */
export const DUE_OPS = [
  VsockOp.REQUEST,
  VsockOp.RESPONSE,
  VsockOp.CREDIT_UPDATE,
  VsockOp.CREDIT_REQUEST,
  VsockOp.SHUTDOWN,
  VsockOp.RST,
] as const;

/** What has happened to a connection, as bits in the order in which it is reported. */
export const Happened = {
  REQUEST: 1,
  CONNECTED: 2,
  RECEIVED: 4,
  CREDIT: 8,
  SHUTDOWN: 16,
  DISCONNECTED: 32,
} as const;

/** What a connection needs from its manager. */
export interface ConnectionHost {
  readonly transport: Transport;
  readonly waiting: Waiting;
  /** Packets are due: sends them now, or when there is room. */
  due(connection: Connection): void;
  /** The connection is over: its addresses are free. */
  ended(connection: Connection): void;
  /** This side has shut down both directions; the peer must confirm that in time. */
  closing(connection: Connection): void;
  /** Something has happened: {@link Happened} bits. */
  happened(connection: Connection, what: number): void;
  /** The peer was asked for credit; if it grants none, it is asked again later. */
  asked(connection: Connection): void;
  /** The peer broke the specification, and nothing was at risk. */
  sloppy(message: string): void;
  /** Why the device no longer works, or `undefined`. */
  failure(): VirtioError | undefined;
}

/** What there is to read. */
export type Readiness = 'data' | 'end' | 'nothing';

/** One connection. */
export class Connection {
  readonly peer: VsockAddress;
  readonly localPort: number;
  /** One of {@link VsockType}. */
  readonly type: number;
  readonly state: ConnectionState;
  readonly credit: SendCredit;
  readonly receiveCredit: ReceiveCredit;
  readonly buffer: ReceiveBuffer;
  readonly readers: WaitLine;
  readonly writers: WaitLine;
  /** Callers that wait until the connection is established or over. */
  readonly watchers: WaitLine;

  /** {@link Due} bits. */
  due = 0;
  /** Whether the connection is in the manager's line of connections with packets due. */
  inDueLine = false;
  /** {@link Happened} bits that were not reported yet. */
  happened = 0;
  /** Whether the connection is in the manager's line of connections with events. */
  inEventLine = false;
  /** When the peer's answer is overdue, or the peer is asked for credit again, in milliseconds by the clock of the manager's deadlines. */
  deadline = Infinity;
  /** The next connection in the manager's table with the same hash. */
  next: Connection | undefined;
  /** Why the device no longer works, if that ended the connection. */
  failure: VirtioError | undefined;

  readonly #host: ConnectionHost;
  /** Whether the peer knows of the connection. */
  #known: boolean;
  #askedForCredit = false;

  constructor(
    host: ConnectionHost,
    peer: VsockAddress,
    localPort: number,
    type: number,
    bufferSize: number,
    incoming: boolean,
  ) {
    this.#host = host;
    this.peer = peer;
    this.localPort = localPort;
    this.type = type;
    this.state = new ConnectionState(incoming);
    this.#known = incoming;
    this.credit = new SendCredit();
    this.receiveCredit = new ReceiveCredit(bufferSize);
    this.buffer = new ReceiveBuffer(bufferSize);
    this.readers = new WaitLine(host.waiting);
    this.writers = new WaitLine(host.waiting);
    this.watchers = new WaitLine(host.waiting);
  }

  /** The transport of the device. */
  get transport(): Transport {
    return this.#host.transport;
  }

  get isSeqpacket(): boolean {
    return this.type === VsockType.SEQPACKET;
  }

  /** Asks the peer for the connection, or accepts the one that it asked for. */
  begin(): void {
    this.#isDue(this.state.phase === 'connecting' ? Due.REQUEST : Due.RESPONSE);
  }

  /**
   * A packet came.
   *
   * @param data its data
   * @param complete false if the device claims more data than it wrote
   * @returns whether the packet asks for a new connection in place of this one, which is over
   */
  receive(header: VsockHeader, data: Uint8Array, complete: boolean): boolean {
    const { op } = header;
    if (header.type !== this.type || (!complete && op === VsockOp.RW)) {
      // Data are missing, or were never for this kind of socket: what comes after them would be wrong.
      if (op !== VsockOp.RST) this.#act(this.state.abort('protocol'));
      return false;
    }
    const { inFlight, free } = this.credit;
    if (op !== VsockOp.RST && op !== VsockOp.REQUEST && op !== VsockOp.INVALID) this.#takeCredit(header);
    const act = this.state.receive(op, header.flags);
    if (op === VsockOp.RW) {
      this.#takeData(act, header, data);
    } else if (header.len > 0) {
      this.#host.sloppy(`a packet of operation ${op} has ${header.len} bytes of data, which is not allowed`);
    }
    this.#act(act);
    // There are devices that confirm a shutdown only if all that was sent before is gone by then.
    if (this.state.phase === 'closing' && inFlight > 0 && this.credit.inFlight === 0) {
      this.#isDue(Due.SHUTDOWN);
    }
    if (this.credit.free > free) {
      this.writers.wake();
      if (this.state.canSend) this.#host.happened(this, Happened.CREDIT);
    }
    return (act & Act.REPLACED) !== 0;
  }

  /** What there is to read. Once everything was read, throws why nothing more will come. */
  get readiness(): Readiness {
    if (this.isSeqpacket ? this.buffer.messages > 0 : this.buffer.length > 0) return 'data';
    const { state } = this;
    if (state.end !== undefined && !state.receivedAll) throw this.error(state.end);
    const isOver = state.phase !== 'connecting' && !state.canReceive;
    return isOver ? 'end' : 'nothing';
  }

  /** Throws unless data can be sent, now or later. */
  checkWritable(): void {
    const { state } = this;
    if (state.canSend || state.phase === 'connecting') return;
    if (state.end !== undefined && state.end !== 'clean') throw this.error(state.end);
    const who = (state.localShutdown & VsockShutdown.SEND) !== 0 ? 'this side has' : 'the peer has';
    throw new VirtioError(
      'SOCKET_SHUTDOWN',
      `${this.name}: ${who} shut the connection down, so nothing can be sent any more`,
    );
  }

  /** Bytes were read from the buffer. */
  consumed(bytes: number): void {
    this.receiveCredit.consumed(bytes);
    if (this.state.phase === 'closed') {
      if (this.buffer.length === 0 && this.buffer.messages === 0) this.buffer.clear();
      return;
    }
    if (this.state.phase === 'closing') return;
    const drained = this.isSeqpacket ? this.buffer.messages === 0 : this.buffer.length === 0;
    // 5.10.6.6: the beginning of a message fills the buffer, and there is nothing more to read that would make room for its end.
    if (this.isSeqpacket && drained && this.receiveCredit.free === 0) {
      this.#act(this.state.abort('protocol'));
      return;
    }
    if (this.receiveCredit.updateIsDue(drained)) this.#isDue(Due.CREDIT_UPDATE);
  }

  /** Asks the peer for credit, once each time that there is none, and again if the peer is silent for a while. */
  askForCredit(): void {
    if (this.#askedForCredit || !this.state.canSend) return;
    this.#askedForCredit = true;
    this.#host.asked(this);
    this.#isDue(Due.CREDIT_REQUEST);
  }

  /** {@link Connection.deadline} has passed. */
  expire(): void {
    if (this.state.phase !== 'established') {
      // What was received stays: if the caller does not want it, it was dropped before.
      this.#act(this.state.abort('timed-out'));
      return;
    }
    // 5.10.6.3: a peer need not tell of room that it was not asked for.
    this.deadline = Infinity;
    this.#askedForCredit = false;
    if (this.writers.anybody) this.askForCredit();
  }

  /** Tells the peer how much room there is. */
  updateCredit(): void {
    if (this.state.phase === 'established') this.#isDue(Due.CREDIT_UPDATE);
  }

  /** This side will not send, or not receive, any more: {@link VsockShutdown} bits. */
  shutdown(flags: number): void {
    this.#act(this.state.shutdown(flags));
    // Only if the caller says so: that both are done does not mean that all was read.
    if ((flags & VsockShutdown.RECEIVE) !== 0) this.#dropReceived();
  }

  /** This side ends the connection. */
  abort(end: 'aborted' | 'timed-out' | 'protocol'): void {
    this.#act(this.state.abort(end));
    this.#dropReceived();
  }

  /**
   * The device forgot all connections, or no longer works.
   *
   * @param tell whether the peer still has the connection, and must be told
   */
  lose(failure: VirtioError | undefined, tell = false): void {
    this.due = 0;
    this.failure = failure;
    const act = this.state.transportReset();
    this.#act(act !== Act.NONE && tell ? act | Act.SEND_RST : act);
  }

  /** Fills a header for a packet of this connection; its sender sets `len` and `srcCid`. */
  fill(header: VsockHeader, op: number, flags: number): void {
    header.dstCid = this.peer.cid;
    header.srcPort = this.localPort;
    header.dstPort = this.peer.port;
    header.type = this.type;
    header.op = op;
    header.flags = flags;
    header.bufAlloc = this.receiveCredit.bufAlloc;
    header.fwdCnt = this.receiveCredit.fwdCnt;
  }

  /** The next packet that is due was sent: one of {@link DUE_OPS}. */
  sent(op: number): void {
    if (op === VsockOp.REQUEST) this.#known = true;
    if (op === VsockOp.CREDIT_UPDATE) this.receiveCredit.updated();
  }

  /** The connection's name in messages. */
  get name(): string {
    const { peer, localPort } = this;
    return `${this.#host.transport.who()}: the connection of port ${localPort} with port ${peer.port} of CID ${peer.cid}`;
  }

  /** The error that tells callers why the connection is over. */
  error(end: ConnectionEnd): VirtioError {
    const { name } = this;
    switch (end) {
      case 'clean':
        return new VirtioError('SOCKET_CLOSED', `${name} is closed; make a new one`);
      case 'refused':
        return new VirtioError(
          'SOCKET_REFUSED',
          `${name} was refused: the peer does not listen on that port, or has no room for another connection`,
        );
      case 'reset':
        return new VirtioError('SOCKET_RESET', `${name} was reset by the peer; data may be missing`);
      case 'protocol':
        return new VirtioError(
          'SOCKET_PROTOCOL',
          `${name} was reset, as the peer broke the protocol: it sent too much, or a packet at the wrong time`,
        );
      case 'aborted':
        return new VirtioError('SOCKET_ABORTED', `${name} was aborted by this side`);
      case 'timed-out':
        return new VirtioError('SOCKET_TIMED_OUT', `${name}: the peer did not answer in time`);
      case 'transport-reset':
        return (
          this.#host.failure() ??
          this.failure ??
          new VirtioError(
            'SOCKET_TRANSPORT_RESET',
            `${name} was lost, as the device lost all connections; connect again`,
          )
        );
    }
  }

  #takeCredit(header: VsockHeader): void {
    const { credit } = this;
    if (!credit.update(header.bufAlloc, header.fwdCnt)) {
      this.#host.sloppy(
        `the peer reports fwd_cnt ${header.fwdCnt}, which is more than was sent, or less than before`,
      );
    }
    if (credit.free > 0 && this.#askedForCredit) {
      this.#askedForCredit = false;
      if (this.state.phase === 'established') this.deadline = Infinity;
    }
  }

  #takeData(act: number, header: VsockHeader, data: Uint8Array): void {
    if ((act & (Act.TAKE_DATA | Act.DROP_DATA)) === 0) return;
    const { receiveCredit, buffer } = this;
    if (!receiveCredit.received(header.len)) {
      this.#act(this.state.abort('protocol'));
      return;
    }
    if ((act & Act.DROP_DATA) !== 0) {
      this.consumed(header.len);
      return;
    }
    buffer.push(data);
    if (this.isSeqpacket && !this.#takeBoundary(header.flags)) {
      this.#act(this.state.abort('protocol'));
      return;
    }
    if (!this.isSeqpacket && header.len === 0) return;
    if (this.isSeqpacket && buffer.messages === 0) return;
    this.readers.wake();
    this.#host.happened(this, Happened.RECEIVED);
  }

  /** 5.10.6.6: a message ends where its flags say, and must end before the buffer is full. */
  #takeBoundary(flags: number): boolean {
    if ((flags & VsockSeqFlags.EOM) !== 0) return this.buffer.endMessage((flags & VsockSeqFlags.EOR) !== 0);
    return this.receiveCredit.free > 0 || this.buffer.messages > 0;
  }

  #dropReceived(): void {
    const { length } = this.buffer;
    this.buffer.clear();
    if (length > 0) this.consumed(length);
  }

  #isDue(bits: number): void {
    this.due |= bits;
    this.#host.due(this);
  }

  #act(act: number): void {
    if (act === Act.NONE) return;
    if ((act & Act.QUIRK) !== 0) this.#host.sloppy('a packet does not fit the state of its connection');
    if ((act & Act.CONNECTED) !== 0) {
      this.deadline = Infinity;
      this.#host.happened(this, Happened.CONNECTED);
    }
    if ((act & Act.PEER_SHUTDOWN) !== 0) this.#host.happened(this, Happened.SHUTDOWN);
    if ((act & Act.ENDED) !== 0) {
      this.due = 0;
      this.deadline = Infinity;
      // What the peer has never heard of need not be ended there.
      const isKnown = this.#known || this.state.end === 'protocol';
      if ((act & Act.SEND_RST) !== 0 && isKnown) this.due = Due.RST;
      this.#host.ended(this);
      this.#host.happened(this, Happened.DISCONNECTED);
      // Sent last: the device may answer inside the notification, and a listener there find what has happened.
      if (this.due !== 0) this.#host.due(this);
    } else {
      if ((act & Act.SEND_SHUTDOWN) !== 0) {
        if (this.state.phase === 'closing') {
          this.deadline = Infinity;
          this.#host.closing(this);
        }
        this.#isDue(Due.SHUTDOWN);
      }
      if ((act & Act.SEND_CREDIT) !== 0) this.#isDue(Due.CREDIT_UPDATE);
      if ((act & Act.SEND_RST) !== 0) this.#isDue(Due.RST);
    }
    if ((act & (Act.CONNECTED | Act.PEER_SHUTDOWN | Act.ENDED | Act.SEND_SHUTDOWN)) !== 0) {
      this.readers.wake();
      this.writers.wake();
      this.watchers.wake();
    }
  }
}
