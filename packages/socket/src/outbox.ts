/**
 * Packets without data that wait to be sent: those of connections, and refusals of packets that belong to none. A packet of a connection
 * is a bit in it, and the number of refusals is limited, so that no peer can exhaust memory.
 */
import type { Transport } from '@virtio/core';
import { Cancellation } from './cancellation.ts';
import { type Connection, DUE_OPS } from './connection.ts';
import { VsockHeader, VsockOp } from './protocol.ts';
import type { VirtioSocket } from './virtio-socket.ts';
import { Waiting } from './wait-line.ts';

/** How many refusals may wait for room to be sent; beyond that, no more packets are handled. */
const MAX_REFUSALS = 64;

/** A refusal of a packet that belongs to no connection. */
interface Refusal {
  readonly cid: number;
  readonly peerPort: number;
  readonly localPort: number;
  readonly type: number;
}

/** The packets that wait for room in the transmit queue. */
export class Outbox {
  /** Callers that wait for anything. While there are any, room is waited for, too. */
  readonly waiting: Waiting;
  readonly #driver: VirtioSocket;
  readonly #header = new VsockHeader();
  /** Connections with packets that are due. */
  readonly #line: Connection[] = [];
  readonly #refusals: Refusal[] = [];
  /** Connections that have data to send, but no buffer. */
  readonly #writers = new Set<Connection>();
  /** How many times everything was forgotten. */
  #clears = 0;
  /** The wait for a buffer to be used, if there is one. */
  #wait: Cancellation | undefined;

  constructor(driver: VirtioSocket, transport: Transport) {
    this.#driver = driver;
    this.waiting = new Waiting(transport, () => this.#awaitRoom());
  }

  /** Sends the packets that a connection has due, now or when there is room. */
  add(connection: Connection): void {
    if (!connection.inDueLine) {
      connection.inDueLine = true;
      this.#line.push(connection);
    }
    this.send();
  }

  /** The number of connections that are over, and whose peer could not be told yet. */
  get leaving(): number {
    let count = 0;
    for (const { state } of this.#line) if (state.phase === 'closed') count += 1;
    return count;
  }

  /** A connection is over: forgets it, unless its peer must be told. */
  drop(connection: Connection): void {
    this.#writers.delete(connection);
    if (!connection.inDueLine || connection.due !== 0) return;
    connection.inDueLine = false;
    this.#line.splice(this.#line.indexOf(connection), 1);
  }

  /** Refuses a packet that belongs to no connection. Returns false if there is no room for a refusal; the packet must then wait. */
  refuse({ srcCid, srcPort, dstPort, type }: VsockHeader): boolean {
    if (this.#refusals.length >= MAX_REFUSALS) this.send();
    if (this.#refusals.length >= MAX_REFUSALS) return false;
    this.#refusals.push({ cid: srcCid, peerPort: srcPort, localPort: dstPort, type });
    this.send();
    return true;
  }

  /** A connection has data to send and found no buffer: its writers are woken when there is one. */
  wantRoom(connection: Connection): void {
    this.#writers.add(connection);
    this.#awaitRoom();
  }

  /** Sends what is due, as far as there is room. */
  send(): void {
    const line = this.#line;
    const refusals = this.#refusals;
    if (line.length + refusals.length === 0 || this.#driver.failure !== undefined) return;
    const clears = this.#clears;
    const wereFull = refusals.length >= MAX_REFUSALS;
    let refused = 0;
    while (refused < refusals.length && this.#sendRefusal(refusals[refused] as Refusal)) refused += 1;
    // Where there was no buffer, the device may have failed, and a listener have reset it: what waits now is not what was sent.
    if (this.#clears !== clears) return;
    if (refused > 0) refusals.splice(0, refused);
    let sent = false;
    let done = 0;
    while (refusals.length === 0 && done < line.length) {
      const connection = line[done] as Connection;
      while (connection.due !== 0 && this.#sendNext(connection)) sent = true;
      if (this.#clears !== clears) return;
      if (connection.due !== 0) break;
      connection.inDueLine = false;
      done += 1;
    }
    if (done === line.length) line.length = 0;
    else if (done > 0) line.splice(0, done);
    if (sent || refused > 0) this.#driver.kick();
    if (line.length + refusals.length > 0) this.#awaitRoom();
    if (wereFull && refused > 0) this.#driver.resume();
  }

  /** Forgets everything: the device has lost all connections. */
  clear(): void {
    this.#clears += 1;
    this.#refusals.length = 0;
    for (const connection of this.#line) connection.inDueLine = false;
    this.#line.length = 0;
  }

  #sendNext(connection: Connection): boolean {
    const number = this.#driver.takeBuffer();
    if (number < 0) return false;
    const index = 31 - Math.clz32(connection.due & -connection.due);
    const op = DUE_OPS[index] as number;
    connection.due &= connection.due - 1;
    connection.fill(this.#header, op, op === VsockOp.SHUTDOWN ? connection.state.localShutdown : 0);
    this.#driver.sendBuffer(number, this.#header, undefined, 0, 0);
    connection.sent(op);
    return true;
  }

  #sendRefusal({ cid, peerPort, localPort, type }: Refusal): boolean {
    const number = this.#driver.takeBuffer();
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
    this.#driver.sendBuffer(number, header, undefined, 0, 0);
    return true;
  }

  /**
   * Continues when the device has used a buffer: with packets that are due, and with connections that have data to send. If no caller
   * waits, the event loop is not kept alive for this: it continues with the next packet or call.
   */
  #awaitRoom(): void {
    const wanted = this.#line.length + this.#refusals.length + this.#writers.size > 0;
    if (!wanted || !this.waiting.anybody) {
      this.#wait?.abort();
      this.#wait = undefined;
      return;
    }
    if (this.#wait !== undefined) return;
    const wait = new Cancellation();
    this.#wait = wait;
    this.#driver.waitForRoom({ signal: wait }).then(
      () => {
        if (this.#wait === wait) this.#wait = undefined;
        this.send();
        const writers = [...this.#writers];
        this.#writers.clear();
        for (const { writers: line } of writers) line.wake();
      },
      () => {
        // Nobody waits any more, or the device no longer works, which is told elsewhere.
        if (this.#wait === wait) this.#wait = undefined;
      },
    );
  }
}
