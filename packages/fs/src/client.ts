/** The client of FUSE, as a file system needs it: fids that stand for nodes of the server, open or not, and a task for each operation. */
import type { SpinOptions, WaitOptions } from '@virtio/core';
import {
  type AttributeChanges,
  type Attributes,
  type Copied,
  type FileClient,
  type FileError,
  type LockRequest,
  type Qid,
  type RawDirectoryEntry,
  type RawStatFs,
  refuse,
  type Task,
  type Walk,
  WINDOW,
} from '@virtio/files';
import * as attributes from './attributes.ts';
import * as entries from './entries.ts';
import * as locks from './locks.ts';
import type { FuseFid } from './nodes.ts';
import * as opening from './opening.ts';
import { In, Opcode } from './protocol.ts';
import { type ConnectOptions, Session } from './session.ts';
import * as transfer from './transfer.ts';
import type { VirtioFs } from './virtio-fs.ts';
import { walk, walkEach } from './walk.ts';

/** A client of FUSE on a VirtIO device. Its operations are tasks; {@link FuseClient.connect} comes first. */
export class FuseClient implements FileClient {
  /** The device. */
  readonly device: VirtioFs;
  /** Always true: the server reports the type of each file. */
  readonly qidsTellKinds = true;

  readonly #session: Session;

  /**
   * @param device the device, which nothing else may use while the client is connected
   * @throws {@link VirtioError} `UNSUPPORTED` if the device's queue is too small
   */
  constructor(device: VirtioFs) {
    this.device = device;
    this.#session = new Session(device);
  }

  /** The minor version of FUSE 7, as negotiated. */
  get minor(): number {
    return this.#session.minor;
  }

  /** The flags of `INIT`, as negotiated; see `InitFlag`. */
  get flags(): number {
    return this.#session.flags;
  }

  /** The most data of one read or write, in bytes. */
  get chunkSize(): number {
    return this.#session.chunk;
  }

  /** How many requests are in flight. */
  get inFlight(): number {
    return this.#session.exchange.tags.inFlight;
  }

  /** How many nodes the server keeps for this client, without the root. */
  get nodesInUse(): number {
    return this.#session.nodes.size;
  }

  /**
   * The root of the tree.
   *
   * @throws {@link VirtioError} `NOT_READY` before {@link FuseClient.connect}
   */
  get root(): FuseFid {
    return this.#session.root;
  }

  /** Runs a task with promises. @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` without interrupts; what the task throws */
  run<V>(task: Task<V>, options?: WaitOptions): Promise<V> {
    return this.#session.exchange.run(task, options);
  }

  /** Runs a task and spins until it ends. @throws {@link VirtioError} `NOT_READY`, `QUEUE_FULL`; what the task throws */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    return this.#session.exchange.runSync(task, options);
  }

  /** Whether a fid belongs to the current session. */
  isCurrent(fid: FuseFid): boolean {
    return this.#session.isCurrent(fid);
  }

  /**
   * Begins a session (`INIT`). Ends an earlier session.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if another client is connected to the device, `DEVICE_BUSY` if it has requests of an earlier
   * session or of another user in flight, `UNSUPPORTED` if the server's version of FUSE is not supported, `INVALID_PARAM`
   */
  connect(options: ConnectOptions = {}): Task<FuseFid> {
    return this.#session.connect(options);
  }

  /** Ends the session (`DESTROY`), unless the device failed or a reset has ended it already. */
  disconnect(): Task<void> {
    return this.#session.disconnect();
  }

  /** Walks from a directory down a path (`LOOKUP`); without names, makes another fid of the same file. */
  walk(from: FuseFid, names: readonly string[]): Task<Walk & { readonly fid: FuseFid | undefined }> {
    return walk(this.#session, from, names);
  }

  /** Walks to each of many entries of a directory. @returns their fids, `undefined` for those that do not exist */
  walkEach(directory: FuseFid, names: readonly string[]): Task<(FuseFid | undefined)[]> {
    return walkEach(this.#session, directory, names);
  }

  /** Makes another fid of the same file, not open. Nothing is sent. */
  // eslint-disable-next-line require-yield -- a task as the others
  *clone(fid: FuseFid): Task<FuseFid> {
    const { nodes } = this.#session;
    nodes.check(fid, 'lookup');
    return nodes.copy(fid);
  }

  /** Opens a file or a directory (`OPEN`, `OPENDIR`). */
  open(fid: FuseFid, flags: number): Task<void> {
    return opening.open(this.#session, fid, flags);
  }

  /** Creates a file and opens it (`CREATE`): `fid`, which was the directory's, becomes the file's. */
  create(fid: FuseFid, name: string, flags: number, mode: number, gid: number): Task<void> {
    return opening.create(this.#session, fid, name, flags, mode, gid);
  }

  /** Closes a file (`FLUSH`, `RELEASE`) and forgets its fid. @throws FileError what went wrong while it was closed */
  clunk(fid: FuseFid): Task<void> {
    return opening.clunk(this.#session, fid);
  }

  /** Closes a file, if it is open, without waiting for the answer, and forgets its fid; errors are ignored. */
  // eslint-disable-next-line require-yield -- a task as the others
  *forget(fid: FuseFid | undefined): Task<void> {
    opening.forget(this.#session, fid);
  }

  /** Reads from an open file (`READ`), with many requests in flight if the buffer is large. */
  read(fid: FuseFid, buffer: Uint8Array, offset: number): Task<number> {
    return transfer.read(this.#session, fid, buffer, offset);
  }

  /** Reads the first piece of an open file (`READ`), and asks for its size. */
  *readFirst(fid: FuseFid, buffer: Uint8Array, offset: number): Task<{ count: number; size: number }> {
    const { size } = yield* this.getattr(fid);
    return { count: yield* this.read(fid, buffer.subarray(0, this.chunkSize), offset), size };
  }

  /**
   * Writes all bytes to an open file (`WRITE`), with many requests in flight if there are many.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the caller transfers or resizes the bytes meanwhile
   */
  write(fid: FuseFid, bytes: Uint8Array, offset: number, window = WINDOW): Task<void> {
    return transfer.write(this.#session, fid, bytes, offset, window);
  }

  /** Copies the contents of an open file to another: on the server (`COPY_FILE_RANGE`), or if it cannot, by reads and writes. */
  copy(from: FuseFid, to: FuseFid, size: number): Task<Copied> {
    return transfer.copy(this.#session, from, to, size);
  }

  /** Writes what the server caches of an open file to the disk (`FSYNC`, `FSYNCDIR`). */
  fsync(fid: FuseFid, dataOnly: boolean): Task<void> {
    return transfer.fsync(this.#session, fid, dataOnly);
  }

  /** Reads entries of an open directory (`READDIR`). */
  readdir(fid: FuseFid, cookie: bigint, room: Uint8Array): Task<RawDirectoryEntry[]> {
    return entries.readdir(this.#session, fid, cookie, room);
  }

  /** Makes a directory (`MKDIR`). */
  mkdir(directory: FuseFid, name: string, mode: number, gid: number): Task<Qid> {
    return entries.make(this.#session, directory, Opcode.MKDIR, In.mkdir, { mode }, [name], gid);
  }

  /** Makes a device node, a FIFO or a socket (`MKNOD`). */
  mknod(
    directory: FuseFid,
    name: string,
    mode: number,
    major: number,
    minor: number,
    gid: number,
  ): Task<Qid> {
    return entries.mknod(this.#session, directory, name, mode, major, minor, gid);
  }

  /** Makes a symbolic link (`SYMLINK`). */
  symlink(directory: FuseFid, name: string, target: string, gid: number): Task<Qid> {
    return entries.make(this.#session, directory, Opcode.SYMLINK, In.none, {}, [name, target], gid);
  }

  /** Makes a hard link: another name of a file (`LINK`). */
  link(directory: FuseFid, fid: FuseFid, name: string): Task<void> {
    return entries.link(this.#session, directory, fid, name);
  }

  /** Reads the target of a symbolic link (`READLINK`). */
  readlink(fid: FuseFid): Task<string> {
    return entries.readlink(this.#session, fid);
  }

  /** Renames an entry of a directory (`RENAME`). */
  renameat(directory: FuseFid, name: string, newDirectory: FuseFid, newName: string): Task<void> {
    return entries.renameat(this.#session, directory, name, newDirectory, newName);
  }

  /** There is no such request: every server knows {@link FuseClient.renameat}. */
  rename(): Task<void> {
    throw refuse('ENOSYS', 'rename');
  }

  /** Removes an entry of a directory (`UNLINK`, `RMDIR`). */
  unlinkat(directory: FuseFid, name: string, flags: number): Task<void> {
    return entries.unlinkat(this.#session, directory, name, flags);
  }

  /** Removes many files of a directory. @param refused called for each file that the server does not remove */
  unlinkEach(
    directory: FuseFid,
    names: Iterable<string>,
    refused: (name: string, error: FileError) => void,
  ): Task<void> {
    return entries.unlinkEach(this.#session, directory, names, refused);
  }

  /** There is no such request: every server knows {@link FuseClient.unlinkat}. */
  remove(): Task<void> {
    throw refuse('ENOSYS', 'unlink');
  }

  /** Reads the attributes of a file (`GETATTR`). */
  getattr(fid: FuseFid): Task<Attributes> {
    return attributes.getattr(this.#session, fid);
  }

  /** Reads the attributes of many files. @returns them, `undefined` for files that the server refuses */
  getattrEach(fids: readonly FuseFid[]): Task<(Attributes | undefined)[]> {
    return attributes.getattrEach(this.#session, fids);
  }

  /** Changes the attributes of a file (`SETATTR`). */
  setattr(fid: FuseFid, changes: AttributeChanges): Task<void> {
    return attributes.setattr(this.#session, fid, changes);
  }

  /** Reads the statistics of the file system (`STATFS`). Type and identifier are 0, as FUSE does not report them. */
  statfs(fid: FuseFid): Task<RawStatFs> {
    return attributes.statfs(this.#session, fid);
  }

  /** Reads an extended attribute (`GETXATTR`), or the names of all (`LISTXATTR`). */
  getxattr(fid: FuseFid, name: string): Task<Uint8Array<ArrayBuffer>> {
    return attributes.getxattr(this.#session, fid, name);
  }

  /** Sets an extended attribute (`SETXATTR`), or if the value is empty, removes it (`REMOVEXATTR`), as in 9P. */
  setxattr(fid: FuseFid, name: string, value: Uint8Array, flags: number): Task<void> {
    return attributes.setxattr(this.#session, fid, name, value, flags);
  }

  /** Sets or removes a lock (`SETLK`). @returns a number of `LockStatus` */
  lock(fid: FuseFid, request: LockRequest): Task<number> {
    return locks.lock(this.#session, fid, request);
  }

  /** Looks for a lock that conflicts with this one (`GETLK`). @returns it; its type is `LockType.UNLOCK` if there is none */
  getlock(fid: FuseFid, request: LockRequest): Task<LockRequest> {
    return locks.getlock(this.#session, fid, request);
  }
}
