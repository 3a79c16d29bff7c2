/**
 * The client of FUSE, as a file system needs it: fids that stand for nodes of the server, open or not, and a task for each operation on
 * them.
 */
import {
  decodeUtf8Lossless,
  type FieldTable,
  type Layout,
  requireInteger,
  type SpinOptions,
  type Values,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  type AttributeChanges,
  type Attributes,
  claim,
  type Copied,
  type FileClient,
  FileError,
  FileType,
  isDirectory,
  type LockRequest,
  LockStatus,
  LockType,
  MAX_ID,
  MAX_WALK,
  OpenFlag,
  type Qid,
  QidType,
  type RawDirectoryEntry,
  type RawStatFs,
  refuse,
  release,
  SetattrValid,
  type Task,
  type Walk,
  WINDOW,
} from '@virtio/files';
import { Exchange, notConnected } from './exchange.ts';
import { type FuseFid, Nodes } from './nodes.ts';
import { pipeline } from './pipeline.ts';
import { FSYNC_DATA, FUSE_VERSION, In, InitFlag, Opcode, Out, ROOT_ID } from './protocol.ts';
import { attributes, directoryEntries } from './replies.ts';
import {
  flushOf,
  getattrOf,
  LAST,
  lockValues,
  lookupOf,
  readOf,
  releaseOf,
  setattrValues,
  toName,
  unlinkOf,
} from './requests.ts';
import { type FileData, readData, writeData } from './transfer.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** Names the client in messages about arguments, which concern no device. */
const CLIENT = 'FUSE';

const PAGE = 4096;
/** The size of one read or write in bytes: without `MAX_PAGES`, and the maximum with it. */
const SMALL_CHUNK = 32 * PAGE;
const LARGEST_CHUNK = 256 * PAGE;

/** The oldest minor version whose structures are those declared here. */
const MIN_MINOR = 23;

/** The longest value of an extended attribute, and the longest list of their names, that Linux allows. */
const MAX_XATTR = 65536;

/** The longest target of a link. */
const MAX_TARGET = 4096;

/** The number of bytes of one `COPY_FILE_RANGE`. */
const COPY_RANGE = 1 << 30;

/** Flags of `open` that this client obeys, not the server. */
const OWN_FLAGS = OpenFlag.CREAT | OpenFlag.EXCL | OpenFlag.NOCTTY;

/** Options of {@link FuseClient.connect}. */
export interface ConnectOptions {
  /** The number of the user for whom requests are sent (default 0). */
  readonly uid?: number;
  /** The number of the user's group (default 0). */
  readonly gid?: number;
}

/** No changes of attributes. With the size marked as valid, they truncate a file. */
const NO_CHANGES: AttributeChanges = {
  valid: 0,
  mode: 0,
  uid: 0,
  gid: 0,
  size: 0,
  atime: 0,
  atimeNs: 0,
  mtime: 0,
  mtimeNs: 0,
};

/** The errors of servers that cannot copy, or cannot copy these files. */
const NO_COPY: readonly string[] = ['ENOSYS', 'EXDEV', 'EOPNOTSUPP', 'EINVAL', 'EBADF'];

/** A client of FUSE on a VirtIO device. Its operations are tasks; {@link FuseClient.connect} comes first. */
export class FuseClient implements FileClient {
  /** The device. */
  readonly device: VirtioFs;
  /** Always true: the server reports the type of each file. */
  readonly qidsTellKinds = true;

  readonly #exchange: Exchange;
  readonly #nodes: Nodes;
  #root: FuseFid | undefined;
  #minor = 0;
  #flags = 0;
  #chunk = SMALL_CHUNK;
  #copies = true;
  #flushes = true;

  /**
   * @param device the device, which nothing else may use while the client is connected
   * @throws {@link VirtioError} `UNSUPPORTED` if the device's queue is too small
   */
  constructor(device: VirtioFs) {
    this.device = device;
    this.#exchange = new Exchange(device);
    this.#nodes = new Nodes(this.#exchange);
  }

  /** The minor version of FUSE 7, as negotiated. */
  get minor(): number {
    return this.#minor;
  }

  /** The flags of `INIT`, as negotiated; see `InitFlag`. */
  get flags(): number {
    return this.#flags;
  }

  /** The most data of one read or write, in bytes. */
  get chunkSize(): number {
    return this.#chunk;
  }

  /** How many requests are in flight. */
  get inFlight(): number {
    return this.#exchange.inFlight;
  }

  /** How many nodes the server keeps for this client, without the root. */
  get nodesInUse(): number {
    return this.#nodes.size;
  }

  /**
   * The root of the tree.
   *
   * @throws {@link VirtioError} `NOT_READY` before {@link FuseClient.connect}
   */
  get root(): FuseFid {
    if (this.#root !== undefined) return this.#root;
    throw notConnected();
  }

  /** Runs a task with promises. @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` without interrupts; what the task throws */
  run<V>(task: Task<V>, options?: WaitOptions): Promise<V> {
    return this.#exchange.run(task, options);
  }

  /** Runs a task and spins until it ends. @throws {@link VirtioError} `NOT_READY`, `QUEUE_FULL`; what the task throws */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    return this.#exchange.runSync(task, options);
  }

  /** Whether a fid belongs to the current session. */
  isCurrent(fid: FuseFid): boolean {
    return fid.session === this.#exchange.session && this.#exchange.isCurrent;
  }

  /**
   * Begins a session (`INIT`). Ends an earlier session.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if another client is connected to the device, `DEVICE_BUSY` if it has requests of another
   * user in flight, `UNSUPPORTED` if the server's version of FUSE is not supported, `INVALID_PARAM`
   */
  *connect({ uid = 0, gid = 0 }: ConnectOptions = {}): Task<FuseFid> {
    requireInteger(CLIENT, 'uid', uid, 0, MAX_ID);
    requireInteger(CLIENT, 'gid', gid, 0, MAX_ID);
    // Answers that came after an earlier session was cut short.
    this.#exchange.look();
    claim(this.device, this);
    try {
      this.#exchange.restart({ uid, gid });
      this.#root = undefined;
      this.#nodes.clear();
      const wanted = Object.values(InitFlag).reduce((sum: number, flag) => sum | flag, 0);
      const { values } = yield* this.#exchange.call({
        opcode: Opcode.INIT,
        nodeid: 0n,
        layout: In.init,
        values: { ...FUSE_VERSION, maxReadahead: LARGEST_CHUNK, flags: wanted },
        out: Out.init,
        // Later versions have more fields.
        room: new Uint8Array(256),
      });
      if (values.major !== FUSE_VERSION.major || values.minor < MIN_MINOR) {
        throw new VirtioError(
          'UNSUPPORTED',
          `${this.device.transport.who()}: the server has FUSE version ${values.major}.${values.minor}; use one with 7.${MIN_MINOR} or later`,
        );
      }
      if (values.maxWrite < PAGE) {
        throw this.#exchange.lie(Opcode.INIT, `it limits writes to ${values.maxWrite} bytes`);
      }
      this.#minor = Math.min(values.minor, FUSE_VERSION.minor);
      this.#flags = values.flags & wanted;
      const pages =
        (this.#flags & InitFlag.MAX_PAGES) === 0 ? SMALL_CHUNK / PAGE : Math.max(1, values.maxPages);
      this.#chunk = Math.min(LARGEST_CHUNK, pages * PAGE, values.maxWrite);
      this.#copies = true;
      this.#flushes = true;
      this.#root = this.#nodes.root({ type: QidType.DIRECTORY, version: 0, path: ROOT_ID });
      const { qid } = yield* this.getattr(this.#root);
      if (!isDirectory(qid)) throw this.#exchange.lie(Opcode.GETATTR, 'the root is not a directory');
      this.#root.qid = qid;
      return this.#root;
    } catch (error) {
      this.#root = undefined;
      this.#exchange.end();
      this.#nodes.clear();
      release(this.device, this);
      throw error;
    }
  }

  /** Ends the session (`DESTROY`), unless the device failed or a reset has ended it already. */
  *disconnect(): Task<void> {
    const root = this.#root;
    this.#root = undefined;
    try {
      if (root === undefined || !this.isCurrent(root)) return;
      yield* this.#exchange.quiesce();
      yield* this.#exchange.call(
        { opcode: Opcode.DESTROY, nodeid: 0n, layout: In.none, values: {}, out: Out.none },
        true,
      );
    } catch (error) {
      // Not every server knows the request.
      if (!FileError.is(error)) throw error;
    } finally {
      this.#exchange.end();
      this.#nodes.clear();
      release(this.device, this);
    }
  }

  *walk(from: FuseFid, names: readonly string[]): Task<Walk & { readonly fid: FuseFid | undefined }> {
    this.#nodes.check(from, 'lookup');
    if (names.length === 0) return { fid: this.#nodes.copy(from), qids: [] };
    if (names.length > MAX_WALK) throw refuse('ENAMETOOLONG', 'lookup');
    const qids: Qid[] = [];
    let at = from;
    for (const [step, name] of names.entries()) {
      let next: FuseFid;
      try {
        if (!isDirectory(at.qid)) throw refuse('ENOTDIR', 'lookup');
        const { values } = yield* this.#exchange.call(lookupOf(at, name));
        next = this.#nodes.entry(values, Opcode.LOOKUP);
      } catch (error) {
        if (at !== from) yield* this.forget(at);
        if (step > 0 && FileError.is(error)) return { fid: undefined, qids };
        throw error;
      }
      if (at !== from) yield* this.forget(at);
      qids.push(next.qid);
      at = next;
    }
    return { fid: at, qids };
  }

  *walkEach(directory: FuseFid, names: readonly string[]): Task<(FuseFid | undefined)[]> {
    this.#nodes.check(directory, 'lookup');
    const fids: (FuseFid | undefined)[] = [];
    const nodes = this.#nodes;
    let failure: Error | undefined;
    try {
      yield* pipeline(
        this.#exchange,
        names,
        (name) => lookupOf(directory, name),
        // Each answer must be received, even after an error, as the server counts the lookup.
        function* (_name, answer) {
          try {
            fids.push(nodes.entry((yield* answer).values, Opcode.LOOKUP));
          } catch (error) {
            fids.push(undefined);
            if (!FileError.is(error, 'ENOENT')) failure ??= error as Error;
          }
          return failure === undefined;
        },
        WINDOW,
      );
      if (failure !== undefined) throw failure;
      return fids;
    } catch (error) {
      for (const fid of fids) yield* this.forget(fid);
      throw error;
    }
  }

  // eslint-disable-next-line require-yield -- a task as the others
  *clone(fid: FuseFid): Task<FuseFid> {
    this.#nodes.check(fid, 'lookup');
    return this.#nodes.copy(fid);
  }

  /** Opens a file or a directory (`OPEN`, `OPENDIR`). */
  *open(fid: FuseFid, flags: number): Task<void> {
    this.#nodes.check(fid, 'open');
    const directory = isDirectory(fid.qid);
    const truncates = (flags & OpenFlag.TRUNC) !== 0 && !directory;
    const atomic = (this.#flags & InitFlag.ATOMIC_O_TRUNC) !== 0;
    const sent = flags & ~(atomic ? OWN_FLAGS : OWN_FLAGS | OpenFlag.TRUNC);
    const { values } = yield* this.#exchange.call({
      opcode: directory ? Opcode.OPENDIR : Opcode.OPEN,
      nodeid: fid.node.id,
      layout: In.open,
      values: { flags: sent },
      out: Out.open,
    });
    fid.fh = values.fh;
    fid.flags = sent;
    if (truncates && !atomic) yield* this.setattr(fid, { ...NO_CHANGES, valid: SetattrValid.SIZE });
  }

  /** Creates a file and opens it (`CREATE`). */
  *create(fid: FuseFid, name: string, flags: number, mode: number, gid: number): Task<void> {
    this.#nodes.check(fid, 'create');
    const { values } = yield* this.#exchange.call({
      opcode: Opcode.CREATE,
      nodeid: fid.node.id,
      layout: In.create,
      values: { flags: flags & ~OpenFlag.NOCTTY, mode: FileType.FILE | mode },
      out: Out.create,
      names: [toName(name)],
      gid,
    });
    const made = this.#nodes.entry(values, Opcode.CREATE);
    const { node } = fid;
    fid.node = made.node;
    fid.qid = made.qid;
    fid.fh = values.fh;
    fid.flags = flags & ~OWN_FLAGS;
    this.#nodes.leave(node);
  }

  /** Closes a file (`FLUSH`, `RELEASE`) and forgets its fid. @throws FileError what went wrong while it was closed */
  *clunk(fid: FuseFid): Task<void> {
    this.#nodes.check(fid, 'flush');
    const { fh } = fid;
    if (fh === undefined) {
      this.#leave(fid);
      return;
    }
    let failure: FileError | undefined;
    // The server releases the locks of the process that it is told.
    const owners = isDirectory(fid.qid) ? [] : (fid.owners ?? [fid.id]);
    for (const owner of owners) {
      if (!this.#flushes) break;
      try {
        yield* this.#exchange.call(flushOf(fid, fh, owner), true);
      } catch (error) {
        if (!FileError.is(error)) {
          // Nobody waits any more, but the server must know that the file is closed.
          yield* this.forget(fid);
          throw error;
        }
        if (error.code === 'ENOSYS') this.#flushes = false;
        else failure ??= error;
      }
    }
    const call = releaseOf(fid, fh);
    let tag: number;
    try {
      tag = yield* this.#exchange.send(call, true);
    } catch (error) {
      this.#leave(fid);
      throw error;
    }
    fid.live = false;
    yield* this.#exchange.receive(tag, call, true, () => this.#leave(fid));
    if (failure !== undefined) throw failure;
  }

  /** A fid is no longer used: its node is forgotten with its last fid. */
  #leave(fid: FuseFid): void {
    fid.live = false;
    if (fid.session === this.#exchange.session) this.#nodes.leave(fid.node);
  }

  /** Closes a file, if it is open, without waiting for the answer; errors are ignored. */
  *forget(fid: FuseFid | undefined): Task<void> {
    if (fid === undefined || fid === this.#root || !fid.live) return;
    fid.live = false;
    const { fh } = fid;
    const left = (): void => this.#leave(fid);
    if (!this.isCurrent(fid)) return;
    if (fh === undefined) {
      left();
      return;
    }
    const call = releaseOf(fid, fh);
    try {
      if (this.#exchange.drop(call, left)) return;
      yield* this.#exchange.call(call, true);
    } catch {
      // No task waits for the answer.
    }
    left();
  }

  /** Reads from an open file (`READ`), with many requests in flight if the buffer is large. */
  *read(fid: FuseFid, buffer: Uint8Array, offset: number): Task<number> {
    return yield* readData(this.#exchange, this.#data(fid, 'read', WINDOW), buffer, offset);
  }

  *readFirst(fid: FuseFid, buffer: Uint8Array, offset: number): Task<{ count: number; size: number }> {
    const { size } = yield* this.getattr(fid);
    return { count: yield* this.read(fid, buffer.subarray(0, this.#chunk), offset), size };
  }

  /**
   * Writes all bytes to an open file (`WRITE`), with many requests in flight if there are many.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the caller transfers or resizes the bytes meanwhile
   */
  *write(fid: FuseFid, bytes: Uint8Array, offset: number, window = WINDOW): Task<void> {
    yield* writeData(this.#exchange, this.#data(fid, 'write', window), bytes, offset);
  }

  /** Copies the contents of an open file to another: on the server (`COPY_FILE_RANGE`), or if it cannot, by reads and writes. */
  *copy(from: FuseFid, to: FuseFid, size: number): Task<Copied> {
    const fhIn = this.#nodes.handle(from, 'read');
    const fhOut = this.#nodes.handle(to, 'write');
    let at = 0;
    while (this.#copies) {
      const position = BigInt(at);
      try {
        const { values } = yield* this.#exchange.call({
          opcode: Opcode.COPY_FILE_RANGE,
          nodeid: from.node.id,
          layout: In.copyFileRange,
          values: {
            fhIn,
            offIn: position,
            nodeidOut: to.node.id,
            fhOut,
            offOut: position,
            len: BigInt(COPY_RANGE),
          },
          out: Out.write,
        });
        if (values.size > COPY_RANGE) {
          throw this.#exchange.lie(Opcode.COPY_FILE_RANGE, `it copied ${values.size} bytes`);
        }
        // Files that report that they are empty, but may not be, are read below.
        if (values.size === 0 && (at > 0 || size > 0)) return { end: at, written: at };
        if (values.size === 0) break;
        at += values.size;
      } catch (error) {
        if (!FileError.is(error) || !NO_COPY.includes(error.code)) throw error;
        if (error.code === 'ENOSYS') this.#copies = false;
        break;
      }
    }
    const buffer = new Uint8Array(Math.min(Math.max(size - at, PAGE), WINDOW * this.#chunk));
    for (;;) {
      const count = yield* this.read(from, buffer, at);
      if (count === 0) return { end: at, written: at };
      yield* this.write(to, buffer.subarray(0, count), at);
      at += count;
    }
  }

  /** Reads entries of an open directory (`READDIR`). */
  *readdir(fid: FuseFid, cookie: bigint, room: Uint8Array): Task<RawDirectoryEntry[]> {
    const fh = this.#nodes.handle(fid, 'readdir', true);
    const part = room.subarray(0, this.#chunk);
    const call = readOf(fid, fh, part, 0);
    const { count } = yield* this.#exchange.call({
      ...call,
      opcode: Opcode.READDIR,
      values: { ...call.values, offset: cookie },
    });
    return directoryEntries(this.#exchange, part.subarray(0, count), cookie);
  }

  /** Reads the attributes of a file (`GETATTR`). */
  *getattr(fid: FuseFid): Task<Attributes> {
    this.#nodes.check(fid, 'getattr');
    const { values } = yield* this.#exchange.call(getattrOf(fid));
    return attributes(values);
  }

  *getattrEach(fids: readonly FuseFid[]): Task<(Attributes | undefined)[]> {
    const all: (Attributes | undefined)[] = [];
    yield* pipeline(
      this.#exchange,
      fids,
      (fid) => {
        this.#nodes.check(fid, 'getattr');
        return getattrOf(fid);
      },
      function* (_fid, answer) {
        try {
          all.push(attributes((yield* answer).values));
        } catch (error) {
          if (!FileError.is(error)) throw error;
          all.push(undefined);
        }
        return true;
      },
      WINDOW,
    );
    return all;
  }

  /** Changes the attributes of a file (`SETATTR`). */
  *setattr(fid: FuseFid, changes: AttributeChanges): Task<void> {
    this.#nodes.check(fid, 'setattr');
    yield* this.#exchange.call({
      opcode: Opcode.SETATTR,
      nodeid: fid.node.id,
      layout: In.setattr,
      values: setattrValues(fid, changes),
      out: Out.attr,
    });
  }

  /** Reads the statistics of the file system (`STATFS`). Type and identifier are 0, as FUSE does not report them. */
  *statfs(fid: FuseFid): Task<RawStatFs> {
    this.#nodes.check(fid, 'statfs');
    const { values } = yield* this.#exchange.call({
      opcode: Opcode.STATFS,
      nodeid: fid.node.id,
      layout: In.none,
      values: {},
      out: Out.statfs,
    });
    return {
      type: 0,
      bsize: values.bsize,
      blocks: Number(values.blocks),
      bfree: Number(values.bfree),
      bavail: Number(values.bavail),
      files: Number(values.files),
      ffree: Number(values.ffree),
      fsid: 0n,
      namelen: values.namelen,
    };
  }

  /** Reads an extended attribute (`GETXATTR`), or the names of all (`LISTXATTR`). */
  *getxattr(fid: FuseFid, name: string): Task<Uint8Array<ArrayBuffer>> {
    this.#nodes.check(fid, 'getxattr');
    const room = new Uint8Array(MAX_XATTR);
    try {
      const { count } = yield* this.#exchange.call({
        opcode: name === '' ? Opcode.LISTXATTR : Opcode.GETXATTR,
        nodeid: fid.node.id,
        layout: In.getxattr,
        values: { size: room.length },
        out: Out.none,
        names: name === '' ? [] : [toName(name)],
        room,
      });
      return room.slice(0, count);
    } catch (error) {
      throw FileError.is(error, 'ERANGE') ? refuse('E2BIG', 'getxattr') : error;
    }
  }

  /** Sets an extended attribute (`SETXATTR`), or if the value is empty, removes it (`REMOVEXATTR`), as in 9P. */
  *setxattr(fid: FuseFid, name: string, value: Uint8Array, flags: number): Task<void> {
    this.#nodes.check(fid, 'setxattr');
    const removes = value.length === 0;
    const names = [toName(name)];
    const nodeid = fid.node.id;
    if (removes) {
      const call = { opcode: Opcode.REMOVEXATTR, nodeid, layout: In.none, values: {}, out: Out.none, names };
      yield* this.#exchange.call(call);
      return;
    }
    const values = { size: value.length, flags };
    const call = { opcode: Opcode.SETXATTR, nodeid, layout: In.setxattr, values, out: Out.none, names };
    yield* this.#exchange.call({ ...call, data: value });
  }

  /** Makes a directory (`MKDIR`). */
  *mkdir(directory: FuseFid, name: string, mode: number, gid: number): Task<Qid> {
    return yield* this.#make(directory, Opcode.MKDIR, In.mkdir, { mode }, [name], gid);
  }

  /** Makes a device node, a FIFO or a socket (`MKNOD`). */
  *mknod(
    directory: FuseFid,
    name: string,
    mode: number,
    major: number,
    minor: number,
    gid: number,
  ): Task<Qid> {
    // Linux packs a device number into 32 bits in this way: 12 for the major one, 20 for the minor one.
    if (major > 0xfff || minor > 0xfffff) throw refuse('EINVAL', 'mknod');
    const rdev = ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
    return yield* this.#make(directory, Opcode.MKNOD, In.mknod, { mode, rdev }, [name], gid);
  }

  /** Makes a symbolic link (`SYMLINK`). */
  *symlink(directory: FuseFid, name: string, target: string, gid: number): Task<Qid> {
    return yield* this.#make(directory, Opcode.SYMLINK, In.none, {}, [name, target], gid);
  }

  /** Makes a hard link: another name of a file (`LINK`). */
  *link(directory: FuseFid, fid: FuseFid, name: string): Task<void> {
    this.#nodes.check(fid, 'link');
    yield* this.#make(directory, Opcode.LINK, In.link, { oldNodeid: fid.node.id }, [name]);
  }

  /** Reads the target of a symbolic link (`READLINK`). */
  *readlink(fid: FuseFid): Task<string> {
    this.#nodes.check(fid, 'readlink');
    const room = new Uint8Array(MAX_TARGET);
    const { count } = yield* this.#exchange.call({
      opcode: Opcode.READLINK,
      nodeid: fid.node.id,
      layout: In.none,
      values: {},
      out: Out.none,
      room,
    });
    const target = decodeUtf8Lossless(room.subarray(0, count));
    if (target.includes('\0')) throw this.#exchange.lie(Opcode.READLINK, 'the target has a zero byte');
    return target;
  }

  /** Renames an entry of a directory (`RENAME`). */
  *renameat(directory: FuseFid, name: string, newDirectory: FuseFid, newName: string): Task<void> {
    this.#nodes.check(directory, 'rename');
    this.#nodes.check(newDirectory, 'rename');
    yield* this.#exchange.call({
      opcode: Opcode.RENAME,
      nodeid: directory.node.id,
      layout: In.rename,
      values: { newDirectory: newDirectory.node.id },
      out: Out.none,
      names: [toName(name), toName(newName)],
    });
  }

  /** There is no such request: every server knows {@link FuseClient.renameat}. */
  rename(): Task<void> {
    throw refuse('ENOSYS', 'rename');
  }

  /** Removes an entry of a directory (`UNLINK`, `RMDIR`). */
  *unlinkat(directory: FuseFid, name: string, flags: number): Task<void> {
    this.#nodes.check(directory, 'unlink');
    yield* this.#exchange.call(unlinkOf(directory, name, flags));
  }

  *unlinkEach(
    directory: FuseFid,
    names: Iterable<string>,
    refused: (name: string, error: FileError) => void,
  ): Task<void> {
    this.#nodes.check(directory, 'unlink');
    yield* pipeline(
      this.#exchange,
      names,
      (name) => unlinkOf(directory, name, 0),
      function* (name, answer) {
        try {
          yield* answer;
        } catch (error) {
          if (!FileError.is(error)) throw error;
          refused(name, error);
        }
        return true;
      },
      WINDOW,
    );
  }

  /** There is no such request: every server knows {@link FuseClient.unlinkat}. */
  remove(): Task<void> {
    throw refuse('ENOSYS', 'unlink');
  }

  /** Writes what the server caches of an open file to the disk (`FSYNC`, `FSYNCDIR`). */
  *fsync(fid: FuseFid, dataOnly: boolean): Task<void> {
    const fh = this.#nodes.handle(fid, 'fsync', isDirectory(fid.qid));
    yield* this.#exchange.call({
      opcode: isDirectory(fid.qid) ? Opcode.FSYNCDIR : Opcode.FSYNC,
      nodeid: fid.node.id,
      layout: In.fsync,
      values: { fh, flags: dataOnly ? FSYNC_DATA : 0 },
      out: Out.none,
    });
  }

  /** Sets or removes a lock (`SETLK`). */
  *lock(fid: FuseFid, request: LockRequest): Task<number> {
    try {
      const values = lockValues(this.#nodes.handle(fid, 'lock'), request);
      const call = { opcode: Opcode.SETLK, nodeid: fid.node.id, layout: In.lock, values, out: Out.none };
      if (request.type !== LockType.UNLOCK) (fid.owners ??= new Set()).add(request.process);
      yield* this.#exchange.call(call);
      return LockStatus.SUCCESS;
    } catch (error) {
      if (FileError.is(error, 'EAGAIN') || FileError.is(error, 'EACCES')) return LockStatus.BLOCKED;
      throw error;
    }
  }

  /** Looks for a lock that conflicts with this one (`GETLK`). */
  *getlock(fid: FuseFid, request: LockRequest): Task<LockRequest> {
    const values = lockValues(this.#nodes.handle(fid, 'lock'), request);
    const call = { opcode: Opcode.GETLK, nodeid: fid.node.id, layout: In.lock, values, out: Out.lock };
    const held = (yield* this.#exchange.call(call)).values;
    const length = held.end >= LAST ? 0 : Number(held.end - held.start) + 1;
    return { type: held.type, start: Number(held.start), length, process: held.pid, client: '' };
  }

  /** An open file, as `readData` and `writeData` need it. */
  #data(fid: FuseFid, operation: 'read' | 'write', window: number): FileData {
    return { fid, fh: this.#nodes.handle(fid, operation), chunk: this.#chunk, window };
  }

  /** Makes an entry of a directory, and forgets its node at once, as no fid stands for it. */
  *#make<I extends FieldTable>(
    directory: FuseFid,
    opcode: number,
    layout: Layout<I>,
    values: Partial<Values<I>>,
    names: readonly string[],
    gid?: number,
  ): Task<Qid> {
    this.#nodes.check(directory, 'create');
    const reply = yield* this.#exchange.call({
      opcode,
      nodeid: directory.node.id,
      layout,
      values,
      out: Out.entry,
      names: names.map(toName),
      ...(gid !== undefined && { gid }),
    });
    const fid = this.#nodes.entry(reply.values, opcode);
    yield* this.forget(fid);
    return fid.qid;
  }
}
