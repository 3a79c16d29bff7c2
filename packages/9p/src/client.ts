/**
 * The protocol 9P2000.L: each message as a task, with typed fids, and what takes many messages of one kind as one task.
 * `P9FileSystem` is built on it; use it directly for what has no place in a file system API.
 */
import { VirtioError } from '@virtio/core';
import { MalformedError, Reader } from './codec.ts';
import { IO_HEADER_SIZE, P9Engine, type RequestData } from './engine.ts';
import type { P9Fid } from './fid.ts';
import {
  DirectoryEntry,
  type Fields,
  GetattrMask,
  type Message,
  type MessageValues,
  NO_FID,
  type Qid,
  QidType,
  R,
  T,
  VERSION,
} from './messages.ts';
import { P9Error, refuse } from './p9-error.ts';
import { CHECK, type Task } from './task.ts';

/** Data of a large read or write goes in messages of this size, unless the server wants smaller ones. */
const DEFAULT_DATA_SIZE = 524288;

/** The smallest message size that a server may insist on: below it, names of the usual length do not fit. */
const MIN_MSIZE = 4096;

/** The largest message size that can be asked for: 16 MiB of data. */
const MAX_MSIZE = 16777216 + IO_HEADER_SIZE;

/** How many requests one task has in flight. */
export const WINDOW = 32;

/** The longest value of an extended attribute, and the longest list of their names, that Linux allows. */
const MAX_XATTR = 65536;

/** Of a fid that stands for no file, or for one of which nothing is known yet. */
const NO_QID: Qid = { type: 0, version: 0, path: 0n };

/** What is asked of a file. */
const ATTRIBUTES = GetattrMask.BASIC | GetattrMask.BTIME;

/** How a client introduces itself. */
export interface ConnectOptions {
  /** The largest message in bytes (default 524,312: data of 512 KiB); the server may choose a smaller one. */
  readonly msize?: number;
  /** The name of the user (default `root`). */
  readonly userName?: string;
  /** The number of the user (default 0). Servers that map owners give it to new files. */
  readonly uid?: number;
  /** Which tree of the server's (default the empty name: the one that the mount tag names). */
  readonly tree?: string;
}

/** The attributes of a file as the server reports them. */
export type Attributes = MessageValues<typeof R.getattr.fields>;

/** Changes of a file's attributes; see `SetattrValid`. */
export type AttributeChanges = Omit<MessageValues<typeof T.setattr.fields>, 'fid'>;

/** One entry of a directory, as the server reports it. */
export type RawDirectoryEntry = MessageValues<typeof DirectoryEntry>;

/** What the server says of its file system. */
export type RawStatFs = MessageValues<typeof R.statfs.fields>;

/** A lock on a part of a file. */
export type LockRequest = Omit<MessageValues<typeof T.lock.fields>, 'fid' | 'flags'>;

/** How far a walk came. */
export interface Walk {
  /** The file at the end, if the walk came there. */
  readonly fid: P9Fid | undefined;
  /** The files on the way, from the first name on. */
  readonly qids: readonly Qid[];
}

/** A client of 9P2000.L on a VirtIO device. {@link P9Client.connect} is the first of its tasks. */
export class P9Client extends P9Engine {
  #root: P9Fid | undefined;
  #msize = 0;

  /** The largest message in bytes, as negotiated. */
  get msize(): number {
    return this.#msize;
  }

  /** The most data of one read or write. */
  get dataSize(): number {
    return this.#msize - IO_HEADER_SIZE;
  }

  /** The most data of one read or write of an open file. */
  chunkSize({ iounit }: P9Fid): number {
    return iounit > 0 ? Math.min(iounit, this.dataSize) : this.dataSize;
  }

  /**
   * The root of the tree that {@link P9Client.connect} attached to.
   *
   * @throws {@link VirtioError} `NOT_READY` before that
   */
  get root(): P9Fid {
    if (this.#root !== undefined) return this.#root;
    throw new VirtioError(
      'NOT_READY',
      'this 9P client is not connected, or no longer; run its task connect(), or mount the file system anew',
    );
  }

  /**
   * Negotiates version and message size, and attaches to a tree. Ends the session that was going on, if there was one.
   *
   * @returns the root
   * @throws {@link VirtioError} `UNSUPPORTED` if the server does not speak 9P2000.L, `INVALID_PARAM`
   */
  *connect(options: ConnectOptions = {}): Task<P9Fid> {
    const { msize = DEFAULT_DATA_SIZE + IO_HEADER_SIZE, userName = 'root', uid = 0, tree = '' } = options;
    if (!(Number.isInteger(msize) && msize >= MIN_MSIZE && msize <= MAX_MSIZE)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `msize is ${msize}; messages can have ${MIN_MSIZE} to ${MAX_MSIZE} bytes`,
      );
    }
    this.restart();
    this.#root = undefined;
    const agreed = yield* this.call(T.version, { msize, version: VERSION }, R.version);
    if (agreed.version !== VERSION) {
      throw new VirtioError(
        'UNSUPPORTED',
        `the 9P server speaks ${JSON.stringify(agreed.version.slice(0, 32))}, not ${VERSION}; share the tree with a server that does`,
      );
    }
    if (agreed.msize < MIN_MSIZE || agreed.msize > msize) {
      throw this.#lie(T.version, `it was offered messages of ${msize} bytes and chose ${agreed.msize}`);
    }
    this.#msize = agreed.msize;
    this.limit = agreed.msize;
    this.#root = yield* this.attach(userName, uid, tree);
    return this.#root;
  }

  /** Takes leave: the server forgets the root. A server that is gone, or has forgotten the session, needs no goodbye. */
  *disconnect(): Task<void> {
    const root = this.#root;
    this.#root = undefined;
    if (root === undefined || this.device.failure !== undefined || !this.isCurrent(root)) return;
    yield* this.quiesce();
    yield* this.clunk(root);
  }

  /** Introduces a user. @returns the root of the tree as that user sees it */
  *attach(userName: string, uid: number, tree: string): Task<P9Fid> {
    const { qid, fid } = yield* this.#create((id) =>
      this.call(T.attach, { fid: id, authFid: NO_FID, userName, tree, uid }, R.attach),
    );
    fid.qid = qid;
    return fid;
  }

  /**
   * Goes down from a directory.
   *
   * @param from where to begin, which stays as it is
   * @param names up to 16 names; none for another fid of the same file
   * @returns how far it came; the server tells no reason if that is not the end, unless it is the first name that failed
   */
  *walk(from: P9Fid, names: readonly string[]): Task<Walk> {
    this.check(from, T.walk);
    const id = this.numbers.take();
    let qids: readonly Qid[];
    try {
      const tag = yield* this.send(T.walk, { fid: from.id, newFid: id, names });
      qids = (yield* this.receive(tag, R.walk)).qids;
    } catch (error) {
      if (isAnswer(error)) this.numbers.release(id);
      throw error;
    }
    if (qids.length > names.length || (qids.length === 0 && names.length > 0)) {
      throw this.#lie(T.walk, `it went ${qids.length} steps of ${names.length}`);
    }
    if (qids.length < names.length) {
      this.numbers.release(id);
      return { fid: undefined, qids };
    }
    return { fid: this.#newFid(id, qids.at(-1) ?? from.qid), qids };
  }

  /**
   * Takes one step to each of many entries of a directory, with many requests in flight.
   *
   * @returns their fids, `undefined` for those that do not exist
   */
  *walkEach(directory: P9Fid, names: readonly string[]): Task<(P9Fid | undefined)[]> {
    this.check(directory, T.walk);
    const steps = names.map((name, index) => ({ name, index, id: this.numbers.take() }));
    let sent = 0;
    const fids: (P9Fid | undefined)[] = [];
    let failure: Error | undefined;
    // No answer may be left out, as each may have made a fid: after an error the others are received all the same.
    const receive = function* (this: P9Client, { id }: { id: number }, tag: number): Task<boolean> {
      try {
        const { qids } = yield* this.receive(tag, R.walk);
        const [qid] = qids;
        if (qid === undefined || qids.length > 1) {
          throw this.#lie(T.walk, `it went ${qids.length} steps of 1`);
        }
        fids.push(this.#newFid(id, qid));
      } catch (error) {
        if (isAnswer(error)) this.numbers.release(id);
        fids.push(undefined);
        if (!P9Error.is(error, 'ENOENT')) failure ??= error as Error;
      }
      return failure === undefined;
    };
    try {
      yield* this.pipeline(
        steps,
        ({ name, index, id }) => {
          sent = index + 1;
          return [T.walk, { fid: directory.id, newFid: id, names: [name] }];
        },
        receive,
      );
      if (failure !== undefined) throw failure;
      return fids;
    } catch (error) {
      for (const { id } of steps.slice(sent)) this.numbers.release(id);
      for (const fid of fids) yield* this.forget(fid);
      throw error;
    }
  }

  /** Another fid of the same file, not open. */
  *clone(fid: P9Fid): Task<P9Fid> {
    return (yield* this.walk(fid, [])).fid as P9Fid;
  }

  /** Opens a file or a directory. `flags` are those of `OpenFlag`. */
  *open(fid: P9Fid, flags: number): Task<void> {
    this.check(fid, T.open);
    const { qid, iounit } = yield* this.call(T.open, { fid: fid.id, flags }, R.open);
    fid.qid = qid;
    fid.iounit = iounit;
  }

  /** Creates a file in a directory and opens it: `fid`, which was the directory's, becomes the file's. */
  *create(fid: P9Fid, name: string, flags: number, mode: number, gid: number): Task<void> {
    this.check(fid, T.create);
    const { qid, iounit } = yield* this.call(T.create, { fid: fid.id, name, flags, mode, gid }, R.create);
    fid.qid = qid;
    fid.iounit = iounit;
  }

  /**
   * Has the server forget a fid, which closes its file.
   *
   * @throws {@link P9Error} what went wrong while it was closed; the fid is gone in any case
   */
  *clunk(fid: P9Fid): Task<void> {
    this.check(fid, T.clunk);
    fid.live = false;
    try {
      yield* this.call(T.clunk, { fid: fid.id }, R.clunk, true);
    } catch (error) {
      if (P9Error.is(error)) this.numbers.release(fid.id);
      throw error;
    }
    this.numbers.release(fid.id);
  }

  /** Has the server forget a fid as soon as possible; nothing that goes wrong is of consequence. */
  forget(fid: P9Fid | undefined): Task<void> {
    return fid === undefined || fid === this.#root ? nothing() : this.drop(fid);
  }

  /** Removes the file that a fid stands for, and has the server forget the fid. */
  *remove(fid: P9Fid): Task<void> {
    this.check(fid, T.remove);
    fid.live = false;
    try {
      yield* this.call(T.remove, { fid: fid.id }, R.remove);
    } catch (error) {
      if (P9Error.is(error)) this.numbers.release(fid.id);
      throw error;
    }
    this.numbers.release(fid.id);
  }

  /**
   * Reads from an open file, with many requests in flight if the buffer is large.
   *
   * @param offset bytes from the start of the file
   * @returns how many bytes were read: fewer than the buffer holds at the end of the file, or if the server had no more at hand;
   * 0 at the end
   */
  *read(fid: P9Fid, buffer: Uint8Array, offset: number): Task<number> {
    this.check(fid, T.read);
    // Servers differ in what they say to this.
    if (isDirectory(fid.qid)) throw refuse('EISDIR', T.read.name);
    let total = 0;
    let ended = false;
    yield* this.pipeline(
      this.#chunks(fid, buffer),
      (room) => {
        const at = offset + room.byteOffset - buffer.byteOffset;
        return [T.read, { fid: fid.id, offset: at, count: room.length }, { room }];
      },
      function* (this: P9Client, room, tag) {
        const { count } = yield* this.receive(tag, R.read);
        // What is behind a short answer does not follow what is before it.
        if (!ended) total += count;
        if (count < room.length) ended = true;
        return !ended;
      },
    );
    return total;
  }

  /**
   * Reads the beginning of what is to be read of an open file, and asks for the file's size at the same time.
   *
   * @param buffer where to; its first {@link P9Client.chunkSize} bytes are used at most
   * @returns how many bytes were read, and the size of the whole file
   */
  *readFirst(fid: P9Fid, buffer: Uint8Array, offset: number): Task<{ count: number; size: number }> {
    this.check(fid, T.read);
    if (isDirectory(fid.qid)) throw refuse('EISDIR', T.read.name);
    const room = buffer.subarray(0, this.chunkSize(fid));
    const pending = [yield* this.send(T.getattr, { fid: fid.id, mask: ATTRIBUTES })];
    try {
      // If no tag is free, the read waits for its turn: who holds a tag must not wait for another one.
      const reading = this.trySend(T.read, { fid: fid.id, offset, count: room.length }, { room });
      if (reading >= 0) pending.push(reading);
      const { size } = yield* this.receive(pending.shift() as number, R.getattr);
      if (reading < 0) return { count: yield* this.read(fid, room, offset), size };
      pending.length = 0;
      const { count } = yield* this.receive(reading, R.read);
      return { count, size };
    } finally {
      for (const tag of pending) yield* this.discard(tag);
    }
  }

  /**
   * Writes all bytes to an open file, with many requests in flight if there are many.
   *
   * @param offset bytes from the start of the file
   * @param window how many requests are in flight (default 32): 1 for a file that is open to append, so that the order is kept
   */
  *write(fid: P9Fid, bytes: Uint8Array, offset: number, window = WINDOW): Task<void> {
    this.check(fid, T.write);
    yield* this.pipeline(
      this.#chunks(fid, bytes),
      (data) => {
        const at = offset + data.byteOffset - bytes.byteOffset;
        return [T.write, { fid: fid.id, offset: at, count: data.length }, { data }];
      },
      function* (this: P9Client, data, tag) {
        let rest = data;
        let sent = tag;
        for (;;) {
          rest = rest.subarray(yield* this.receiveWrite(sent, rest.length));
          if (rest.length === 0) return true;
          const at = offset + rest.byteOffset - bytes.byteOffset;
          sent = yield* this.send(T.write, { fid: fid.id, offset: at, count: rest.length }, { data: rest });
        }
      },
      window,
    );
  }

  /** Waits for the reply to a `Twrite` of `length` bytes. @returns how many of them were written: one at least */
  *receiveWrite(tag: number, length: number): Task<number> {
    const { count } = yield* this.receive(tag, R.write);
    if (count > length) throw this.#lie(T.write, `it wrote ${count} of ${length} bytes`);
    if (count === 0) throw refuse('EIO', T.write.name);
    return count;
  }

  /**
   * Reads entries of an open directory.
   *
   * @param cookie 0, or the `offset` of the entry after which to go on
   * @param room memory for the answer, as many bytes as the server may use
   * @returns the entries, `.` and `..` among them; none at the end
   */
  *readdir(fid: P9Fid, cookie: bigint, room: Uint8Array): Task<RawDirectoryEntry[]> {
    this.check(fid, T.readdir);
    const part = room.subarray(0, this.dataSize);
    const request = { fid: fid.id, offset: cookie, count: part.length };
    const tag = yield* this.send(T.readdir, request, { room: part });
    const { count } = yield* this.receive(tag, R.readdir);
    return this.#entries(part.subarray(0, count), cookie);
  }

  /** Reads the attributes of a file. */
  *getattr(fid: P9Fid): Task<Attributes> {
    this.check(fid, T.getattr);
    return yield* this.call(T.getattr, { fid: fid.id, mask: ATTRIBUTES }, R.getattr);
  }

  /**
   * Reads the attributes of many files, with many requests in flight.
   *
   * @returns them, `undefined` for what the server refuses to tell
   */
  *getattrEach(fids: readonly P9Fid[]): Task<(Attributes | undefined)[]> {
    const all: (Attributes | undefined)[] = [];
    yield* this.pipeline(
      fids,
      (fid) => [T.getattr, { fid: fid.id, mask: ATTRIBUTES }],
      function* (_fid, tag) {
        try {
          all.push(yield* this.receive(tag, R.getattr));
        } catch (error) {
          if (!P9Error.is(error)) throw error;
          all.push(undefined);
        }
        return true;
      },
    );
    return all;
  }

  /** Changes the attributes of a file. */
  *setattr(fid: P9Fid, changes: AttributeChanges): Task<void> {
    this.check(fid, T.setattr);
    yield* this.call(T.setattr, { fid: fid.id, ...changes }, R.setattr);
  }

  /** Makes a directory. */
  *mkdir(directory: P9Fid, name: string, mode: number, gid: number): Task<Qid> {
    this.check(directory, T.mkdir);
    return (yield* this.call(T.mkdir, { fid: directory.id, name, mode, gid }, R.mkdir)).qid;
  }

  /** Makes a device node, a FIFO or a socket: what it is stands in the upper bits of `mode`. */
  *mknod(directory: P9Fid, name: string, mode: number, major: number, minor: number, gid: number): Task<Qid> {
    this.check(directory, T.mknod);
    const values = { fid: directory.id, name, mode, major, minor, gid };
    return (yield* this.call(T.mknod, values, R.mknod)).qid;
  }

  /** Makes a symbolic link. */
  *symlink(directory: P9Fid, name: string, target: string, gid: number): Task<Qid> {
    this.check(directory, T.symlink);
    return (yield* this.call(T.symlink, { fid: directory.id, name, target, gid }, R.symlink)).qid;
  }

  /** Gives a file another name. */
  *link(directory: P9Fid, fid: P9Fid, name: string): Task<void> {
    this.check(directory, T.link);
    this.check(fid, T.link);
    yield* this.call(T.link, { directory: directory.id, fid: fid.id, name }, R.link);
  }

  /** Reads where a symbolic link points. */
  *readlink(fid: P9Fid): Task<string> {
    this.check(fid, T.readlink);
    const { target } = yield* this.call(T.readlink, { fid: fid.id }, R.readlink);
    if (target.includes('\0')) throw this.#lie(T.readlink, 'the target has a zero byte');
    return target;
  }

  /** Renames the file that a fid stands for, for servers that do not know {@link P9Client.renameat}. */
  *rename(fid: P9Fid, directory: P9Fid, name: string): Task<void> {
    this.check(fid, T.rename);
    this.check(directory, T.rename);
    yield* this.call(T.rename, { fid: fid.id, directory: directory.id, name }, R.rename);
  }

  /** Renames an entry of a directory. */
  *renameat(directory: P9Fid, name: string, newDirectory: P9Fid, newName: string): Task<void> {
    this.check(directory, T.renameat);
    this.check(newDirectory, T.renameat);
    const values = { directory: directory.id, name, newDirectory: newDirectory.id, newName };
    yield* this.call(T.renameat, values, R.renameat);
  }

  /** Removes an entry of a directory. `flags` is 0, or `AT_REMOVEDIR` for a directory. */
  *unlinkat(directory: P9Fid, name: string, flags: number): Task<void> {
    this.check(directory, T.unlinkat);
    yield* this.call(T.unlinkat, { directory: directory.id, name, flags }, R.unlinkat);
  }

  /** Writes what is cached of an open file to the disk. */
  *fsync(fid: P9Fid, dataOnly: boolean): Task<void> {
    this.check(fid, T.fsync);
    yield* this.call(T.fsync, { fid: fid.id, dataOnly: dataOnly ? 1 : 0 }, R.fsync);
  }

  /** Asks about the file system. */
  *statfs(fid: P9Fid): Task<RawStatFs> {
    this.check(fid, T.statfs);
    return yield* this.call(T.statfs, { fid: fid.id }, R.statfs);
  }

  /**
   * Reads an extended attribute, or the names of all with a zero byte behind each.
   *
   * @param name the attribute; the empty name stands for the list
   */
  *getxattr(fid: P9Fid, name: string): Task<Uint8Array<ArrayBuffer>> {
    this.check(fid, T.xattrwalk);
    const { size, fid: value } = yield* this.#create((id) =>
      this.call(T.xattrwalk, { fid: fid.id, newFid: id, name }, R.xattrwalk),
    );
    try {
      if (size > MAX_XATTR) throw refuse('E2BIG', T.xattrwalk.name);
      const bytes = new Uint8Array(size);
      let at = 0;
      while (at < size) {
        const count = yield* this.read(value, bytes.subarray(at), at);
        if (count === 0) throw this.#lie(T.xattrwalk, `it has ${at} of ${size} bytes`);
        at += count;
      }
      return bytes;
    } finally {
      yield* this.drop(value);
    }
  }

  /**
   * Sets an extended attribute.
   *
   * @param flags 1: it must not exist; 2: it must exist
   */
  *setxattr(fid: P9Fid, name: string, value: Uint8Array, flags: number): Task<void> {
    this.check(fid, T.xattrcreate);
    const target = yield* this.clone(fid);
    try {
      const size = value.length;
      yield* this.call(T.xattrcreate, { fid: target.id, name, size, flags }, R.xattrcreate);
      yield* this.write(target, value, 0);
      // The attribute is set when the fid is clunked.
      yield* this.clunk(target);
    } finally {
      yield* this.drop(target);
    }
  }

  /** Sets or removes a lock. @returns a number of `LockStatus` */
  *lock(fid: P9Fid, request: LockRequest, flags: number): Task<number> {
    this.check(fid, T.lock);
    return (yield* this.call(T.lock, { fid: fid.id, flags, ...request }, R.lock)).status;
  }

  /** Asks for a lock that would stand in the way of this one. @returns it; its type is `LockType.UNLOCK` if there is none */
  *getlock(fid: P9Fid, request: LockRequest): Task<LockRequest> {
    this.check(fid, T.getlock);
    return yield* this.call(T.getlock, { fid: fid.id, ...request }, R.getlock);
  }

  /**
   * Sends a request for each item, many in flight, and handles the answers in the order of the items.
   *
   * @param items for what
   * @param request the request for an item
   * @param receive receives the answer to it; `false` ends the sending, the answers that are on their way are still received
   * @param window how many are in flight
   */
  *pipeline<I, F extends Fields>(
    items: Iterable<I>,
    request: (item: I) => [Message<F>, MessageValues<F>, RequestData?],
    receive: (this: this, item: I, tag: number) => Task<boolean>,
    window = WINDOW,
  ): Task<void> {
    const inFlight: { readonly item: I; readonly tag: number }[] = [];
    const source = items[Symbol.iterator]();
    let next = source.next();
    let more = true;
    let cancelled: unknown;
    try {
      while (inFlight.length > 0 || (more && next.done !== true)) {
        try {
          yield CHECK;
        } catch (error) {
          // The answers that are on their way still count.
          cancelled = error;
          more = false;
        }
        while (more && next.done !== true && inFlight.length < window) {
          const [message, values, data] = request(next.value);
          // With requests of its own in flight, the task need not wait for a tag: it will free one itself.
          const tag =
            inFlight.length === 0
              ? yield* this.send(message, values, data)
              : this.trySendMore(message, values, data ?? {});
          if (tag < 0) break;
          inFlight.push({ item: next.value, tag });
          next = source.next();
        }
        const first = inFlight.shift();
        if (first === undefined) break;
        more = (yield* receive.call(this, first.item, first.tag)) && more;
      }
    } finally {
      // After an error, buffers may be given back to the caller only when no request uses them any more.
      for (const { tag } of inFlight) yield* this.discard(tag);
    }
    if (cancelled !== undefined) throw cancelled as Error;
  }

  /** Checks that a fid can be used. */
  protected check(fid: P9Fid, message: Message): void {
    if (!fid.live) throw refuse('EBADF', message.name);
    if (fid.session !== this.session) throw refuse('ESTALE', message.name);
  }

  /** Runs what makes the server know a new fid. */
  *#create<V>(make: (id: number) => Task<V>): Task<V & { readonly fid: P9Fid }> {
    const id = this.numbers.take();
    try {
      const values = yield* make(id);
      return { ...values, fid: this.#newFid(id, NO_QID) };
    } catch (error) {
      if (isAnswer(error)) this.numbers.release(id);
      throw error;
    }
  }

  #newFid(id: number, qid: Qid): P9Fid {
    return { id, qid, iounit: 0, live: true, session: this.session };
  }

  /** Cuts a buffer into what one request can carry. */
  *#chunks(fid: P9Fid, buffer: Uint8Array): Generator<Uint8Array, undefined> {
    const size = this.chunkSize(fid);
    for (let at = 0; at < buffer.length; at += size) yield buffer.subarray(at, at + size);
    return undefined;
  }

  #entries(bytes: Uint8Array, cookie: bigint): RawDirectoryEntry[] {
    const reader = new Reader(bytes);
    const entries: RawDirectoryEntry[] = [];
    try {
      while (reader.left > 0) entries.push(reader.fields(DirectoryEntry));
    } catch (error) {
      if (error instanceof MalformedError) throw this.#lie(T.readdir, error.message);
      throw error;
    }
    for (const { name } of entries) {
      if (name === '' || name.includes('/') || name.includes('\0')) {
        throw this.#lie(T.readdir, `${JSON.stringify(name)} cannot be the name of a file`);
      }
    }
    if (entries.at(-1)?.offset === cookie) {
      throw this.#lie(T.readdir, 'it leads back to where it began');
    }
    return entries;
  }

  #lie(message: Message, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.device.transport.who()}: the server's reply to ${message.name} makes no sense: ${what}`,
    );
  }
}

/** Whether a file is a directory. */
export function isDirectory({ type }: Qid): boolean {
  return (type & QidType.DIRECTORY) !== 0;
}

/** Whether a file is a symbolic link. */
export function isSymlink({ type }: Qid): boolean {
  return (type & QidType.SYMLINK) !== 0;
}

/** Whether an error tells that the server has not made a new fid: it refused, or was never asked, or was told to forget it. */
function isAnswer(error: unknown): boolean {
  return P9Error.is(error) || VirtioError.is(error, 'ABORTED') || VirtioError.is(error, 'QUEUE_FULL');
}

function* nothing(): Task<void> {
  // There is nothing to wait for.
}
