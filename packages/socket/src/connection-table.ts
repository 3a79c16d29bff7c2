/**
 * The connections by their addresses. A lookup allocates nothing: the key is a small integer hash of the addresses, and
 * connections with the same hash are chained.
 */
import type { Connection } from './connection.ts';

/** A table of connections. */
export class ConnectionTable {
  readonly #byHash = new Map<number, Connection>();
  readonly #byLocalPort = new Map<number, number>();
  #size = 0;

  /** How many connections there are. */
  get size(): number {
    return this.#size;
  }

  /** The connection with these addresses. */
  find(peerCid: number, peerPort: number, localPort: number): Connection | undefined {
    let connection = this.#byHash.get(hash(peerCid, peerPort, localPort));
    while (connection !== undefined) {
      const { peer } = connection;
      if (connection.localPort === localPort && peer.port === peerPort && peer.cid === peerCid) break;
      connection = connection.next;
    }
    return connection;
  }

  /** Adds a connection; there must be none with its addresses. */
  add(connection: Connection): void {
    const { peer, localPort } = connection;
    const key = hash(peer.cid, peer.port, localPort);
    connection.next = this.#byHash.get(key);
    this.#byHash.set(key, connection);
    this.#byLocalPort.set(localPort, this.usesOf(localPort) + 1);
    this.#size += 1;
  }

  /** Removes a connection. */
  delete(connection: Connection): void {
    const { peer, localPort } = connection;
    const key = hash(peer.cid, peer.port, localPort);
    let before: Connection | undefined;
    let here = this.#byHash.get(key);
    while (here !== undefined && here !== connection) {
      before = here;
      here = here.next;
    }
    if (here === undefined) return;
    if (before !== undefined) before.next = here.next;
    else if (here.next !== undefined) this.#byHash.set(key, here.next);
    else this.#byHash.delete(key);
    here.next = undefined;
    const uses = this.usesOf(localPort) - 1;
    if (uses > 0) this.#byLocalPort.set(localPort, uses);
    else this.#byLocalPort.delete(localPort);
    this.#size -= 1;
  }

  /** How many connections have a local port. */
  usesOf(localPort: number): number {
    return this.#byLocalPort.get(localPort) ?? 0;
  }

  /** All connections, as they are now. */
  all(): Connection[] {
    const all: Connection[] = [];
    for (const first of this.#byHash.values()) {
      for (let one: Connection | undefined = first; one !== undefined; one = one.next) all.push(one);
    }
    return all;
  }
}

/** A small integer that depends on all bits of the addresses. */
function hash(peerCid: number, peerPort: number, localPort: number): number {
  let mixed =
    Math.imul(peerPort, 0x9e3779b1) ^ Math.imul(localPort, 0x85ebca6b) ^ Math.imul(peerCid, 0xc2b2ae35);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return (mixed ^ (mixed >>> 13)) & 0x3fffffff;
}
