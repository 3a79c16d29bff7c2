/**
 * Packets without data that wait to be sent: those that are due to connections, and refusals of packets that belong to none. What is due
 * to a connection is a bit of it, and refusals are few, so that no peer can make anything grow.
 */
import type { Transport } from '@virtio/core';
import { Cancellation } from './cancellation.ts';
import { type Connection, DUE_OPS } from './connection.ts';
import { VsockHeader, VsockOp } from './protocol.ts';
import type { VirtioSocket } from './virtio-socket.ts';
import { Waiting } from './wait-line.ts';

/** Refusals that may wait for room to be sent; then no more packets are handled. */
const MAX_REFUSALS = 64;

/** A refusal of a packet that belongs to no connection. */
interface Refusal {
  readonly cid: number;
  readonly peerPort: number;
  readonly localPort: number;
  readonly type: number;
}

/** What waits for room in the transmit queue. */
export class Outbox {
  /** Those who wait for anything. While somebody does, room is waited for, too. */
  readonly waiting: Waiting;
  readonly #driver: VirtioSocket;
  readonly #header = new VsockHeader();
  /** Connections to which packets are due. */
  readonly #line: Connection[] = [];
  readonly #refusals: Refusal[] = [];
  /** Connections that have data to send and no buffer for them. */
  readonly #writers = new Set<Connection>();
  /** While the device is to say that it has used a buffer. */
  #wait: Cancellation | undefined;

  constructor(driver: VirtioSocket, transport: Transport) {
    this.#driver = driver;
    this.waiting = new Waiting(transport, () => this.#awaitRoom());
  }

  /** Packets are due to a connection: sends them now, or when there is room. */
  add(connection: Connection): void {
    if (!connection.inDueLine) {
      connection.inDueLine = true;
      this.#line.push(connection);
    }
    this.send();
  }

  /** Answers a packet that belongs to no connection. Returns false if that must wait for room, and the packet with it. */
  refuse({ srcCid, srcPort, dstPort, type }: VsockHeader): boolean {
    if (this.#refusals.length >= MAX_REFUSALS) this.send();
    if (this.#refusals.length >= MAX_REFUSALS) return false;
    this.#refusals.push({ cid: srcCid, peerPort: srcPort, localPort: dstPort, type });
    this.send();
    return true;
  }

  /** A connection has data to send and found no buffer: those who write look again when there is one. */
  wantRoom(connection: Connection): void {
    this.#writers.add(connection);
    this.#awaitRoom();
  }

  /** Sends what is due, as far as there is room. */
  send(): void {
    const line = this.#line;
    const refusals = this.#refusals;
    if (line.length + refusals.length === 0 || this.#driver.failure !== undefined) return;
    const wereFull = refusals.length >= MAX_REFUSALS;
    let refused = 0;
    while (refused < refusals.length && this.#sendRefusal(refusals[refused] as Refusal)) refused += 1;
    if (refused > 0) refusals.splice(0, refused);
    let sent = false;
    let done = 0;
    while (refusals.length === 0 && done < line.length) {
      const connection = line[done] as Connection;
      while (connection.due !== 0 && this.#sendNext(connection)) sent = true;
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
   * Goes on when the device has used a buffer: with what is due, and with those who have data to send. Nobody is kept alive for that who
   * does not wait: without them it goes on when the next packet comes, or with the next call.
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
