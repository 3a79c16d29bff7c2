/**
 * The protocol 9P2000.L: each message as a task, with typed fids, and operations of many messages of one kind as one task.
 * `P9FileSystem` is built on it; use it directly for operations that a file system API does not have.
 */
import { requireInteger, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import {
  claim,
  FileError as P9Error,
  isDirectory,
  MAX_ID,
  refuse,
  release,
  requireString,
  type Task,
  WINDOW,
} from '@virtio/files';
import type {
  AttributeChanges,
  Attributes,
  ConnectOptions,
  LockRequest,
  RawDirectoryEntry,
  RawStatFs,
  Walk,
} from './client-types.ts';
import { type Copied, copyData } from './copy-data.ts';
import { readEntries } from './directory-entries.ts';
import { Exchange, notConnected } from './exchange.ts';
import { FidTable, NO_QID, type P9Fid } from './fid.ts';
import { ATTRIBUTES, FileAttributes } from './file-attributes.ts';
import { IO_HEADER_SIZE } from './messages.ts';
import { pipeline } from './pipeline.ts';
import { type Message, NO_FID, type Qid, R, T, VERSION } from './protocol.ts';
import { readData, writeData } from './transfer.ts';
import type { Virtio9p } from './virtio-9p.ts';
import { Walker } from './walker.ts';

/** Whose arguments are refused, for messages that stand for no device. */
const CLIENT = '9P';

/** Data of a large read or write goes in messages of this size, unless the server wants smaller ones. */
const DEFAULT_DATA_SIZE = 524288;

/** The smallest message size that a server may insist on: below it, names of the usual length do not fit. */
const MIN_MSIZE = 4096;

/** The largest message size that can be asked for: 16 MiB of data. */
const MAX_MSIZE = 16777216 + IO_HEADER_SIZE;

/** The longest value of an extended attribute, and the longest list of their names, that Linux allows. */
const MAX_XATTR = 65536;

/**
 * A client of 9P2000.L on a VirtIO device. Its operations are tasks: {@link P9Client.run} or {@link P9Client.runSync} runs
 * them. {@link P9Client.connect} comes first.
 */
export class P9Client {
  /** The device. */
  readonly device: Virtio9p;

  readonly #fids = new FidTable();
  readonly #exchange: Exchange;
  readonly #attributes: FileAttributes;
  readonly #walker: Walker;
  #root: P9Fid | undefined;
  #msize = 0;

  /**
   * @param device the device, which nothing else may use while the client is connected
   * @throws {@link VirtioError} `UNSUPPORTED` if the device's queue is too small
   */
  constructor(device: Virtio9p) {
    this.device = device;
    this.#exchange = new Exchange(device, this.#fids);
    this.#attributes = new FileAttributes(this.#exchange, this.#fids);
    this.#walker = new Walker(this.#exchange, this.#fids, this.#attributes);
  }

  /** The largest message in bytes, as negotiated. */
  get msize(): number {
    return this.#msize;
  }

  /** The most data of one read or write. */
  get dataSize(): number {
    return this.#msize - IO_HEADER_SIZE;
  }

  /** The largest number of requests that tasks can have in flight. */
  get capacity(): number {
    return this.#exchange.tags.capacity;
  }

  /** How many requests are in flight. */
  get inFlight(): number {
    return this.#exchange.tags.inFlight;
  }

  /** How many fids the server knows, or may know. */
  get fidsInUse(): number {
    return this.#fids.used;
  }

  /**
   * Whether the types in the server's qids tell directories and links from files. Where the qid of the root does not (v86's
   * server), each file that a walk leads to is asked for its attributes, as Linux's client asks all.
   */
  get qidsTellKinds(): boolean {
    return this.#attributes.qidsTellKinds;
  }

  /**
   * The root of the tree that {@link P9Client.connect} attached to.
   *
   * @throws {@link VirtioError} `NOT_READY` before that
   */
  get root(): P9Fid {
    if (this.#root !== undefined) return this.#root;
    throw notConnected();
  }

  /**
   * Runs a task with promises.
   *
   * @param options `signal` cancels it: requests in flight are flushed, and the promise rejects when the server has answered that
   * @returns what the task returns
   * @throws {@link VirtioError} `ABORTED`; `UNSUPPORTED` on a transport without interrupts; what the task throws
   */
  run<V>(task: Task<V>, options?: WaitOptions): Promise<V> {
    return this.#exchange.run(task, options);
  }

  /**
   * Runs a task and spins until it ends.
   *
   * @param options `timeoutMs`: how long the server may take for an answer (default 60,000)
   * @throws {@link VirtioError} `NOT_READY` if it takes longer, `QUEUE_FULL` if tasks that run with promises have all tags; what
   * the task throws
   */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    return this.#exchange.runSync(task, options);
  }

  /** Whether a fid belongs to the current session. */
  isCurrent(fid: P9Fid): boolean {
    return this.#exchange.isCurrent(fid);
  }

  /** The most data of one read or write of an open file. */
  chunkSize({ iounit }: P9Fid): number {
    return iounit > 0 ? Math.min(iounit, this.dataSize) : this.dataSize;
  }

  /**
   * Negotiates version and message size (`Tversion`), and attaches to a tree (`Tattach`). Ends an earlier session.
   *
   * @returns the root
   * @throws {@link VirtioError} `ALREADY_USED` if another client is connected to the device, `DEVICE_BUSY` if it has requests of
   * another user in flight, `UNSUPPORTED` if the server does not speak 9P2000.L, `INVALID_PARAM`, `DMA_ERROR`
   */
  *connect(options: ConnectOptions = {}): Task<P9Fid> {
    const { msize = DEFAULT_DATA_SIZE + IO_HEADER_SIZE, userName = 'root', uid = 0, tree = '' } = options;
    requireInteger(CLIENT, 'msize', msize, MIN_MSIZE, MAX_MSIZE);
    requireInteger(CLIENT, 'uid', uid, 0, MAX_ID);
    requireString('userName', userName);
    requireString('tree', tree);
    claim(this.device, this.#exchange.tags);
    try {
      this.#exchange.restart();
      this.#root = undefined;
      const agreed = yield* this.#exchange.call(T.version, { msize, version: VERSION }, R.version);
      if (agreed.version !== VERSION) {
        throw new VirtioError(
          'UNSUPPORTED',
          `the 9P server speaks ${JSON.stringify(agreed.version.slice(0, 32))}, not ${VERSION}; share the tree with a server that does`,
        );
      }
      if (agreed.msize < MIN_MSIZE) {
        throw this.#exchange.lie(
          T.version,
          `it was offered messages of ${msize} bytes and chose ${agreed.msize}`,
        );
      }
      // Some servers name the largest that they have, as Linux's client accepts.
      this.#msize = Math.min(agreed.msize, msize);
      this.#exchange.limit = this.#msize;
      this.#attributes.qidsTellKinds = true;
      const root = yield* this.attach(userName, uid, tree);
      if (!isDirectory(root.qid)) {
        this.#attributes.qidsTellKinds = false;
        yield* this.#attributes.askKind(root);
      }
      this.#root = root;
      return root;
    } catch (error) {
      this.#root = undefined;
      this.#exchange.end();
      release(this.device, this.#exchange.tags);
      throw error;
    }
  }

  /** Ends the session: clunks the root, unless the device failed or a reset has ended the session already. */
  *disconnect(): Task<void> {
    const root = this.#root;
    this.#root = undefined;
    try {
      if (root === undefined || this.device.failure !== undefined || !this.isCurrent(root)) return;
      yield* this.#exchange.tags.quiesce();
      yield* this.clunk(root);
    } finally {
      this.#exchange.end();
      release(this.device, this.#exchange.tags);
    }
  }

  /** Attaches a user to a tree (`Tattach`). @returns the root of the tree as that user sees it */
  *attach(userName: string, uid: number, tree: string): Task<P9Fid> {
    const { qid, fid } = yield* this.#create((id) =>
      this.#exchange.call(T.attach, { fid: id, authFid: NO_FID, userName, tree, uid }, R.attach),
    );
    fid.qid = qid;
    yield* this.#attributes.askKind(fid);
    return fid;
  }

  /**
   * Walks from a directory down a path (`Twalk`).
   *
   * @param from the directory, which stays as it is
   * @param names up to 16 names; none for another fid of the same file
   * @returns what it reached. The server gives a reason only if the first name fails, which then is the error of the task
   */
  walk(from: P9Fid, names: readonly string[]): Task<Walk> {
    return this.#walker.to(from, names);
  }

  /**
   * Walks to each of many entries of a directory, with many requests in flight.
   *
   * @returns their fids, `undefined` for those that do not exist
   */
  walkEach(directory: P9Fid, names: readonly string[]): Task<(P9Fid | undefined)[]> {
    return this.#walker.toEach(directory, names);
  }

  /** Makes another fid of the same file, not open (`Twalk` without names). */
  *clone(fid: P9Fid): Task<P9Fid> {
    return (yield* this.walk(fid, [])).fid as P9Fid;
  }

  /** Opens a file or a directory (`Tlopen`). `flags` are a sum of `OpenFlag`. */
  *open(fid: P9Fid, flags: number): Task<void> {
    this.#fids.check(fid, T.open);
    const { qid, iounit } = yield* this.#exchange.call(T.open, { fid: fid.id, flags }, R.open);
    fid.qid = this.#attributes.qid(qid, fid.qid.type);
    fid.iounit = iounit;
  }

  /** Creates a file in a directory and opens it (`Tlcreate`): `fid`, which was the directory's, becomes the file's. */
  *create(fid: P9Fid, name: string, flags: number, mode: number, gid: number): Task<void> {
    this.#fids.check(fid, T.create);
    const values = { fid: fid.id, name, flags, mode, gid };
    const { qid, iounit } = yield* this.#exchange.call(T.create, values, R.create);
    fid.qid = this.#attributes.qid(qid, 0);
    fid.iounit = iounit;
  }

  /**
   * Clunks a fid, which closes its file (`Tclunk`).
   *
   * @throws {@link P9Error} what went wrong while it was closed; the fid is gone in any case
   */
  *clunk(fid: P9Fid): Task<void> {
    this.#fids.check(fid, T.clunk);
    const tag = yield* this.#sendLast(fid, T.clunk, true);
    yield* this.#receiveLast(fid, tag, R.clunk, true);
  }

  /** Clunks a fid without waiting for the answer; errors are ignored. */
  // eslint-disable-next-line require-yield -- a task as the others
  *forget(fid: P9Fid | undefined): Task<void> {
    if (fid !== undefined && fid !== this.#root) this.#exchange.drop(fid);
  }

  /** Removes the file of a fid, and clunks the fid (`Tremove`). */
  *remove(fid: P9Fid): Task<void> {
    this.#fids.check(fid, T.remove);
    const tag = yield* this.#sendLast(fid, T.remove, false);
    try {
      yield* this.#receiveLast(fid, tag, R.remove, false);
    } catch (error) {
      // The server was told to forget the request, and still knows the fid.
      if (VirtioError.is(error, 'ABORTED')) this.#dropAgain(fid);
      throw error;
    }
  }

  /**
   * Reads from an open file (`Tread`), with many requests in flight if the buffer is large.
   *
   * @param offset bytes from the start of the file
   * @returns the bytes read: fewer than the buffer holds at the end of the file, or if the server gives fewer; 0 at the end
   */
  *read(fid: P9Fid, buffer: Uint8Array, offset: number): Task<number> {
    this.#fids.check(fid, T.read);
    // Servers differ in what they say to this.
    if (isDirectory(fid.qid)) throw refuse('EISDIR', T.read.name);
    return yield* readData(this.#exchange, fid, buffer, offset, this.chunkSize(fid));
  }

  /**
   * Reads the first piece of an open file, and asks for the file's size at the same time.
   *
   * @param buffer where to; its first {@link P9Client.chunkSize} bytes are used at most
   * @returns how many bytes were read, and the size of the whole file
   */
  *readFirst(fid: P9Fid, buffer: Uint8Array, offset: number): Task<{ count: number; size: number }> {
    this.#fids.check(fid, T.read);
    if (isDirectory(fid.qid)) throw refuse('EISDIR', T.read.name);
    const exchange = this.#exchange;
    const room = buffer.subarray(0, this.chunkSize(fid));
    const pending = [yield* exchange.send(T.getattr, { fid: fid.id, mask: ATTRIBUTES })];
    try {
      // If no tag is free, the read waits for its turn: who holds a tag must not wait for another one.
      const reading = exchange.trySend(T.read, { fid: fid.id, offset, count: room.length }, { room });
      if (reading >= 0) pending.push(reading);
      const { size } = yield* exchange.receive(pending.shift() as number, R.getattr);
      if (reading < 0) return { count: yield* this.read(fid, room, offset), size };
      pending.length = 0;
      const { count } = yield* exchange.receive(reading, R.read);
      return { count, size };
    } finally {
      for (const tag of pending) yield* exchange.discard(tag);
    }
  }

  /**
   * Writes all bytes to an open file (`Twrite`), with many requests in flight if there are many.
   *
   * @param offset bytes from the start of the file
   * @param window how many requests are in flight (default 32): 1 for a file that is open to append, so that the order is kept
   */
  *write(fid: P9Fid, bytes: Uint8Array, offset: number, window = WINDOW): Task<void> {
    this.#fids.check(fid, T.write);
    requireInteger(CLIENT, 'window', window, 1, WINDOW);
    yield* writeData(this.#exchange, fid, bytes, offset, this.chunkSize(fid), window);
  }

  /**
   * Copies the contents of one open file to another, from the beginning, with many requests in flight.
   *
   * @param size the reported size of the source in bytes
   */
  *copy(from: P9Fid, to: P9Fid, size: number): Task<Copied> {
    this.#fids.check(from, T.read);
    this.#fids.check(to, T.write);
    if (isDirectory(from.qid)) throw refuse('EISDIR', T.read.name);
    const chunk = Math.min(this.chunkSize(from), this.chunkSize(to));
    return yield* copyData(this.#exchange, { from, to, size, chunk });
  }

  /**
   * Reads entries of an open directory (`Treaddir`).
   *
   * @param cookie 0, or the `offset` of the entry after which to go on
   * @param room memory for the answer, whose length is the most that the server may give
   * @returns the entries, `.` and `..` among them; none at the end
   */
  *readdir(fid: P9Fid, cookie: bigint, room: Uint8Array): Task<RawDirectoryEntry[]> {
    this.#fids.check(fid, T.readdir);
    const part = room.subarray(0, this.dataSize);
    const request = { fid: fid.id, offset: cookie, count: part.length };
    const tag = yield* this.#exchange.send(T.readdir, request, { room: part });
    const { count } = yield* this.#exchange.receive(tag, R.readdir);
    return readEntries(this.#exchange, part.subarray(0, count), cookie);
  }

  /** Reads the attributes of a file (`Tgetattr`). */
  getattr(fid: P9Fid): Task<Attributes> {
    return this.#attributes.get(fid);
  }

  /**
   * Reads the attributes of many files, with many requests in flight.
   *
   * @returns the attributes, `undefined` for files that the server refuses
   */
  getattrEach(fids: readonly P9Fid[]): Task<(Attributes | undefined)[]> {
    return this.#attributes.getEach(fids);
  }

  /** Changes the attributes of a file (`Tsetattr`). */
  *setattr(fid: P9Fid, changes: AttributeChanges): Task<void> {
    this.#fids.check(fid, T.setattr);
    yield* this.#exchange.call(T.setattr, { fid: fid.id, ...changes }, R.setattr);
  }

  /** Makes a directory (`Tmkdir`). */
  *mkdir(directory: P9Fid, name: string, mode: number, gid: number): Task<Qid> {
    this.#fids.check(directory, T.mkdir);
    return (yield* this.#exchange.call(T.mkdir, { fid: directory.id, name, mode, gid }, R.mkdir)).qid;
  }

  /** Makes a device node, a FIFO or a socket (`Tmknod`): `mode` is a `FileType` and permissions. */
  *mknod(directory: P9Fid, name: string, mode: number, major: number, minor: number, gid: number): Task<Qid> {
    this.#fids.check(directory, T.mknod);
    const values = { fid: directory.id, name, mode, major, minor, gid };
    return (yield* this.#exchange.call(T.mknod, values, R.mknod)).qid;
  }

  /** Makes a symbolic link (`Tsymlink`). */
  *symlink(directory: P9Fid, name: string, target: string, gid: number): Task<Qid> {
    this.#fids.check(directory, T.symlink);
    return (yield* this.#exchange.call(T.symlink, { fid: directory.id, name, target, gid }, R.symlink)).qid;
  }

  /** Gives a file another name (`Tlink`). */
  *link(directory: P9Fid, fid: P9Fid, name: string): Task<void> {
    this.#fids.check(directory, T.link);
    this.#fids.check(fid, T.link);
    yield* this.#exchange.call(T.link, { directory: directory.id, fid: fid.id, name }, R.link);
  }

  /** Reads the target of a symbolic link (`Treadlink`). */
  *readlink(fid: P9Fid): Task<string> {
    this.#fids.check(fid, T.readlink);
    const { target } = yield* this.#exchange.call(T.readlink, { fid: fid.id }, R.readlink);
    if (target.includes('\0')) throw this.#exchange.lie(T.readlink, 'the target has a zero byte');
    return target;
  }

  /** Renames the file of a fid (`Trename`), on servers that do not know {@link P9Client.renameat}. */
  *rename(fid: P9Fid, directory: P9Fid, name: string): Task<void> {
    this.#fids.check(fid, T.rename);
    this.#fids.check(directory, T.rename);
    yield* this.#exchange.call(T.rename, { fid: fid.id, directory: directory.id, name }, R.rename);
  }

  /** Renames an entry of a directory (`Trenameat`). */
  *renameat(directory: P9Fid, name: string, newDirectory: P9Fid, newName: string): Task<void> {
    this.#fids.check(directory, T.renameat);
    this.#fids.check(newDirectory, T.renameat);
    const values = { directory: directory.id, name, newDirectory: newDirectory.id, newName };
    yield* this.#exchange.call(T.renameat, values, R.renameat);
  }

  /** Removes an entry of a directory (`Tunlinkat`). `flags` is 0, or `AT_REMOVEDIR` for a directory. */
  *unlinkat(directory: P9Fid, name: string, flags: number): Task<void> {
    this.#fids.check(directory, T.unlinkat);
    yield* this.#exchange.call(T.unlinkat, { directory: directory.id, name, flags }, R.unlinkat);
  }

  /**
   * Removes many files of a directory, with many requests in flight.
   *
   * @param refused called for each file that the server does not remove; an error that it throws ends the task
   */
  *unlinkEach(
    directory: P9Fid,
    names: Iterable<string>,
    refused: (name: string, error: P9Error) => void,
  ): Task<void> {
    this.#fids.check(directory, T.unlinkat);
    const exchange = this.#exchange;
    yield* pipeline(exchange, names, {
      request: (name) => [T.unlinkat, { directory: directory.id, name, flags: 0 }],
      *receive(name, tag) {
        try {
          yield* exchange.receive(tag, R.unlinkat);
        } catch (error) {
          if (!P9Error.is(error)) throw error;
          refused(name, error);
        }
        return true;
      },
    });
  }

  /** Writes what the server caches of an open file to the disk (`Tfsync`). */
  *fsync(fid: P9Fid, dataOnly: boolean): Task<void> {
    this.#fids.check(fid, T.fsync);
    yield* this.#exchange.call(T.fsync, { fid: fid.id, dataOnly: dataOnly ? 1 : 0 }, R.fsync);
  }

  /** Reads the statistics of the file system (`Tstatfs`). */
  *statfs(fid: P9Fid): Task<RawStatFs> {
    this.#fids.check(fid, T.statfs);
    return yield* this.#exchange.call(T.statfs, { fid: fid.id }, R.statfs);
  }

  /**
   * Reads an extended attribute, or the names of all, each followed by a zero byte (`Txattrwalk`).
   *
   * @param name the attribute; empty for the list of names
   */
  *getxattr(fid: P9Fid, name: string): Task<Uint8Array<ArrayBuffer>> {
    this.#fids.check(fid, T.xattrwalk);
    const { size, fid: value } = yield* this.#create((id) =>
      this.#exchange.call(T.xattrwalk, { fid: fid.id, newFid: id, name }, R.xattrwalk),
    );
    try {
      if (size > MAX_XATTR) throw refuse('E2BIG', T.xattrwalk.name);
      const bytes = new Uint8Array(size);
      let at = 0;
      while (at < size) {
        const count = yield* this.read(value, bytes.subarray(at), at);
        if (count === 0) throw this.#exchange.lie(T.xattrwalk, `it has ${at} of ${size} bytes`);
        at += count;
      }
      return bytes;
    } finally {
      yield* this.forget(value);
    }
  }

  /**
   * Sets an extended attribute (`Txattrcreate`).
   *
   * @param flags 1: it must not exist; 2: it must exist
   */
  *setxattr(fid: P9Fid, name: string, value: Uint8Array, flags: number): Task<void> {
    this.#fids.check(fid, T.xattrcreate);
    const target = yield* this.clone(fid);
    try {
      const size = value.length;
      yield* this.#exchange.call(T.xattrcreate, { fid: target.id, name, size, flags }, R.xattrcreate);
      yield* this.write(target, value, 0);
      // The attribute is set when the fid is clunked.
      yield* this.clunk(target);
    } finally {
      yield* this.forget(target);
    }
  }

  /** Sets or removes a lock (`Tlock`). @returns a number of `LockStatus` */
  *lock(fid: P9Fid, request: LockRequest, flags: number): Task<number> {
    this.#fids.check(fid, T.lock);
    return (yield* this.#exchange.call(T.lock, { fid: fid.id, flags, ...request }, R.lock)).status;
  }

  /** Looks for a lock that conflicts with this one (`Tgetlock`). @returns it; its type is `LockType.UNLOCK` if there is none */
  *getlock(fid: P9Fid, request: LockRequest): Task<LockRequest> {
    this.#fids.check(fid, T.getlock);
    return yield* this.#exchange.call(T.getlock, { fid: fid.id, ...request }, R.getlock);
  }

  /** Sends the last request for a fid. If that fails, the fid is dropped. @param hold whether that is cleaning up; see `Exchange.call` */
  *#sendLast(fid: P9Fid, message: Message<typeof T.clunk.fields>, hold: boolean): Task<number> {
    fid.live = false;
    try {
      return yield* this.#exchange.send(message, { fid: fid.id }, undefined, hold);
    } catch (error) {
      this.#dropAgain(fid);
      throw error;
    }
  }

  /** Waits for the answer to that. The server has forgotten the fid even if it reports an error. */
  *#receiveLast(fid: P9Fid, tag: number, reply: Message<typeof R.clunk.fields>, hold: boolean): Task<void> {
    try {
      yield* this.#exchange.receive(tag, reply, hold);
    } catch (error) {
      if (P9Error.is(error)) this.#fids.release(fid.id);
      throw error;
    }
    this.#fids.release(fid.id);
  }

  #dropAgain(fid: P9Fid): void {
    fid.live = true;
    this.#exchange.drop(fid);
  }

  /** Runs what makes the server know a new fid. */
  *#create<V>(make: (id: number) => Task<V>): Task<V & { readonly fid: P9Fid }> {
    const id = this.#fids.take();
    try {
      const values = yield* make(id);
      return { ...values, fid: this.#fids.create(id, NO_QID) };
    } catch (error) {
      this.#fids.releaseUnmade(id, error);
      throw error;
    }
  }
}
