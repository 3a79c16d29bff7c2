/**
 * The nodes of the server that fids stand for. The server counts the lookups of each node, and keeps the node until `FORGET` has taken
 * them all back. So they are counted here, too; a node whose last fid is gone is forgotten.
 */
import { type Fid, isDirectory, type Qid, refuse } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import { type EntryValues, ROOT_ID } from './protocol.ts';
import { qidOf } from './replies.ts';

/** A node of the server, and the number of its lookups. */
interface Node {
  readonly id: bigint;
  /** The number of lookups. */
  lookups: number;
  /** The number of fids that stand for it. */
  fids: number;
  /** Whether it is the root, which needs no lookup. */
  readonly root: boolean;
}

/** A fid: a file or a directory of the server. */
export interface FuseFid extends Fid {
  /** @internal */
  node: Node;
  /** The handle of the file, while it is open. */
  fh: bigint | undefined;
  /** The flags that it was opened with. */
  flags: number;
  /** The processes that have locked parts of it through this fid. */
  owners: Set<number> | undefined;
  /** Whether it is in use, i.e. not forgotten. */
  live: boolean;
  /** The number of the session that it belongs to. */
  readonly session: number;
}

/** The nodes of a session. */
export class Nodes {
  readonly #exchange: Exchange;
  #map = new Map<bigint, Node>();
  #nextId = 1;

  constructor(exchange: Exchange) {
    this.#exchange = exchange;
  }

  /** How many nodes the server keeps, without the root. */
  get size(): number {
    return this.#map.size;
  }

  /** A session begins or ends: the server has forgotten all of them. */
  clear(): void {
    this.#map = new Map();
  }

  /** The fid of the root. */
  root(qid: Qid): FuseFid {
    return this.#fid({ id: ROOT_ID, lookups: 0, fids: 1, root: true }, qid);
  }

  /** A fid for the entry in a reply. The server counts a lookup, whether the entry makes sense or not. */
  entry({ nodeid, ...attr }: EntryValues, opcode: number): FuseFid {
    // Node 0 means that there is no such entry.
    if (nodeid === 0n) throw refuse('ENOENT', 'lookup');
    if (nodeid === ROOT_ID) throw this.#exchange.lie(opcode, 'an entry of a directory is the root');
    let node = this.#map.get(nodeid);
    if (node === undefined) {
      node = { id: nodeid, lookups: 0, fids: 0, root: false };
      this.#map.set(nodeid, node);
    }
    node.lookups += 1;
    node.fids += 1;
    return this.#fid(node, qidOf(attr));
  }

  #fid(node: Node, qid: Qid): FuseFid {
    const id = this.#nextId;
    this.#nextId += 1;
    return {
      id,
      node,
      qid,
      fh: undefined,
      flags: 0,
      owners: undefined,
      live: true,
      session: this.#exchange.session,
    };
  }

  /** Another fid of the same node. */
  copy({ node, qid }: FuseFid): FuseFid {
    node.fids += 1;
    return this.#fid(node, qid);
  }

  /** Removes a fid of a node; the node is forgotten with its last fid. */
  leave(node: Node): void {
    node.fids -= 1;
    if (node.fids > 0 || node.root || this.#map.get(node.id) !== node) return;
    this.#map.delete(node.id);
    this.#exchange.forget(node.id, node.lookups);
  }

  /** Refuses a fid that was forgotten, or belongs to an earlier session. */
  check({ live, session }: FuseFid, operation: string): void {
    if (!live) throw refuse('EBADF', operation);
    if (session !== this.#exchange.session) throw refuse('ESTALE', operation);
  }

  /** The handle of an open file. */
  handle(fid: FuseFid, operation: string, directory = false): bigint {
    this.check(fid, operation);
    if (isDirectory(fid.qid) !== directory) throw refuse(directory ? 'ENOTDIR' : 'EISDIR', operation);
    if (fid.fh === undefined) throw refuse('EBADF', operation);
    return fid.fh;
  }
}
