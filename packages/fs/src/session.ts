/** A session with the server: its beginning, its end, and what was negotiated. */
import { requireInteger, VirtioError } from '@virtio/core';
import { claim, FileError, isDirectory, MAX_ID, QidType, release, type Task } from '@virtio/files';
import { Exchange, notConnected } from './exchange.ts';
import { type FuseFid, Nodes } from './nodes.ts';
import { FUSE_VERSION, In, InitFlag, Opcode, Out, ROOT_ID } from './protocol.ts';
import { qidOf } from './replies.ts';
import { getattrOf } from './requests.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** Names the client in messages about arguments, which concern no device. */
const CLIENT = 'FUSE';

export const PAGE = 4096;
/** The size of one read or write in bytes: without `MAX_PAGES`, and the maximum with it. */
const SMALL_CHUNK = 32 * PAGE;
const LARGEST_CHUNK = 256 * PAGE;

/** The oldest minor version whose structures are those declared here. */
const MIN_MINOR = 23;

/** All flags of `INIT` that this client requests. */
const WANTED = Object.values(InitFlag).reduce((sum: number, flag) => sum | flag, 0);

/** Options of {@link FuseClient.connect}. */
export interface ConnectOptions {
  /** The number of the user for whom requests are sent (default 0). */
  readonly uid?: number;
  /** The number of the user's group (default 0). */
  readonly gid?: number;
}

/** A session with the server, or none. */
export class Session {
  readonly device: VirtioFs;
  readonly exchange: Exchange;
  readonly nodes: Nodes;
  /** The minor version of FUSE 7, and the flags of `INIT`, as negotiated. */
  minor = 0;
  flags = 0;
  /** The most data of one read or write, in bytes. */
  chunk = SMALL_CHUNK;
  /** Whether the server knows `COPY_FILE_RANGE`, and `FLUSH`: until it says that it does not. */
  copies = true;
  flushes = true;

  #root: FuseFid | undefined;

  constructor(device: VirtioFs) {
    this.device = device;
    this.exchange = new Exchange(device);
    this.nodes = new Nodes(this.exchange);
  }

  /** The root of the tree. @throws {@link VirtioError} `NOT_READY` without a session */
  get root(): FuseFid {
    if (this.#root !== undefined) return this.#root;
    throw notConnected();
  }

  /** Whether a fid is that of the root, which stays until the session ends. */
  isRoot(fid: FuseFid): boolean {
    return fid === this.#root;
  }

  /** Whether a fid belongs to the current session. */
  isCurrent(fid: FuseFid): boolean {
    return fid.session === this.exchange.session && this.exchange.isCurrent;
  }

  /** Begins a session (`INIT`); see {@link FuseClient.connect}. */
  *connect({ uid = 0, gid = 0 }: ConnectOptions): Task<FuseFid> {
    const { device, exchange, nodes } = this;
    requireInteger(CLIENT, 'uid', uid, 0, MAX_ID);
    requireInteger(CLIENT, 'gid', gid, 0, MAX_ID);
    claim(device, exchange.tags);
    try {
      exchange.restart({ uid, gid });
      this.#root = undefined;
      nodes.clear();
      yield* this.#negotiate();
      const root = nodes.root({ type: QidType.DIRECTORY, version: 0, path: ROOT_ID });
      const qid = qidOf((yield* exchange.call(getattrOf(root))).values);
      if (!isDirectory(qid)) throw exchange.lie(Opcode.GETATTR, 'the root is not a directory');
      root.qid = qid;
      this.#root = root;
      return root;
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  /** Ends the session (`DESTROY`), unless the device failed or a reset has ended it already. */
  *disconnect(): Task<void> {
    const { exchange } = this;
    const root = this.#root;
    this.#root = undefined;
    try {
      if (root === undefined || !this.isCurrent(root)) return;
      yield* exchange.tags.quiesce();
      const { session } = root;
      yield* exchange.call(
        { opcode: Opcode.DESTROY, nodeid: 0n, session, layout: In.none, values: {}, out: Out.none },
        true,
      );
    } catch (error) {
      // Not every server knows the request.
      if (!FileError.is(error)) throw error;
    } finally {
      this.#end();
    }
  }

  *#negotiate(): Task<void> {
    const { device, exchange } = this;
    const { values } = yield* exchange.call({
      opcode: Opcode.INIT,
      nodeid: 0n,
      session: undefined,
      layout: In.init,
      values: { ...FUSE_VERSION, maxReadahead: LARGEST_CHUNK, flags: WANTED },
      out: Out.init,
      // Later versions have more fields.
      room: new Uint8Array(256),
    });
    if (values.major !== FUSE_VERSION.major || values.minor < MIN_MINOR) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${device.transport.who()}: the server has FUSE version ${values.major}.${values.minor}; use one with 7.${MIN_MINOR} or later`,
      );
    }
    this.minor = Math.min(values.minor, FUSE_VERSION.minor);
    this.flags = values.flags & WANTED;
    const pages = (this.flags & InitFlag.MAX_PAGES) === 0 ? SMALL_CHUNK / PAGE : Math.max(1, values.maxPages);
    // Some servers leave the field 0. As Linux does, they get a page at once.
    this.chunk = Math.min(LARGEST_CHUNK, pages * PAGE, Math.max(PAGE, values.maxWrite));
    this.copies = true;
    this.flushes = true;
  }

  #end(): void {
    this.#root = undefined;
    this.exchange.end();
    this.nodes.clear();
    release(this.device, this.exchange.tags);
  }
}
