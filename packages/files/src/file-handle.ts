/**
 * An open file, in the shape of the file handles of `node:fs/promises`, with synchronous forms added.
 *
 * Operations that use the file's own position run one after the other; all others may run at the same time. The fid is clunked only
 * when all of them have ended, so that its number never stands for another file while a request is in flight.
 */
import { requireSignal, type SpinOptions, type WaitOptions } from '@virtio/core';
import { settledOrAborted } from './abort.ts';
import { changes, type Changes, type Time } from './attributes.ts';
import { CLIENT, resized } from './check.ts';
import { type FsContext, named } from './context.ts';
import type { Fid } from './client.ts';
import { FileSink, readPieces, splitLines } from './file-streams.ts';
import { openFile, readAll, writeAt } from './files.ts';
import {
  type HeldLock,
  type LockOptions,
  lockRequest,
  toVector,
  type ReadStreamOptions,
  type Part,
  toTransfer,
  type Transfer,
  type TransferOptions,
  type WriteStreamOptions,
} from './handle-options.ts';
import { type OpenFlags, parseOpenFlags } from './open-flags.ts';
import {
  type Data,
  type DataStream,
  decodeAs,
  type Encoding,
  isAsyncIterable,
  type ReadFileOptions,
  readOptions,
  type ReadTextOptions,
  type SyncOptions,
  toBytes,
  toChunks,
} from './options.ts';
import { refuse } from './file-error.ts';
import { LockStatus, LockType, OpenFlag } from './numbers.ts';
import { Stats } from './stats.ts';
import type { Task } from './task.ts';

/** Opens a file. */
export function* openHandle(fs: FsContext, path: string, flags: OpenFlags, mode: number): Task<FileHandle> {
  const parsed = parseOpenFlags(flags);
  const fid = yield* named('open', path, openFile(fs, path, parsed, mode));
  return new FileHandle(fs, fid, path, parsed);
}

/** An open file. */
export class FileHandle {
  /** The path by which it was opened. */
  readonly path: string;

  readonly #fs: FsContext;
  readonly #fid: Fid;
  readonly #append: boolean;
  #position = 0;
  #users = 0;
  #closing: Promise<void> | undefined;
  #idle: (() => void) | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  /** @internal use `open` of the file system */
  constructor(fs: FsContext, fid: Fid, path: string, flags: number) {
    this.#fs = fs;
    this.#fid = fid;
    this.path = path;
    this.#append = (flags & OpenFlag.APPEND) !== 0;
  }

  /** The number of the file's fid. */
  get fd(): number {
    return this.#fid.id;
  }

  /**
   * Reads into a buffer, with many requests in flight if it is large.
   *
   * @param buffer the destination; while the promise is pending it belongs to the device
   * @param options the part of the buffer and the position in the file; or the offset in the buffer, followed by `length` and `position`
   * @returns how many bytes were read: fewer than asked for at the end of the file, or if the server returns fewer; 0 at the end
   */
  async read<B extends Uint8Array>(
    buffer: B,
    options?: TransferOptions | number,
    length?: number,
    position?: number | null,
  ): Promise<{ readonly bytesRead: number; readonly buffer: B }> {
    const transfer = toTransfer(buffer, options, length, position);
    const bytesRead = await this.#run(
      'read',
      () => this.#read(transfer),
      waitOf(options),
      transfer.position === null,
    );
    return { bytesRead, buffer };
  }

  /**
   * The synchronous form of {@link FileHandle.read}. Returns how many bytes were read. After `NOT_READY`, a buffer in DMA memory may be
   * written until the server has answered; others are left alone.
   */
  readSync(
    buffer: Uint8Array,
    options?: SyncOptions<TransferOptions> | number,
    length?: number,
    position?: number | null,
  ): number {
    const transfer = toTransfer(buffer, options, length, position);
    return this.#runSync('read', () => this.#read(transfer), spinOf(options));
  }

  /**
   * Writes all of a buffer or a text, with many requests in flight if it is large.
   *
   * @param data the bytes or the text; while the promise is pending they belong to the device
   * @param options the part of the buffer and the position in the file; or the offset in the buffer, followed by `length` and `position`.
   * A file that is open to append is always written at its end.
   */
  async write<D extends Data>(
    data: D,
    options?: TransferOptions | number,
    length?: number,
    position?: number | null,
  ): Promise<{ readonly bytesWritten: number; readonly buffer: D }> {
    const transfer = toTransfer(toBytes(data), options, length, position);
    const serial = transfer.position === null || this.#append;
    await this.#run('write', () => this.#write(transfer), waitOf(options), serial);
    return { bytesWritten: transfer.length, buffer: data };
  }

  /** The synchronous form of {@link FileHandle.write}. Returns how many bytes were written. */
  writeSync(
    data: Data,
    options?: SyncOptions<TransferOptions> | number,
    length?: number,
    position?: number | null,
  ): number {
    const transfer = toTransfer(toBytes(data), options, length, position);
    this.#runSync('write', () => this.#write(transfer), spinOf(options));
    return transfer.length;
  }

  /**
   * Reads into several buffers, one after the other.
   *
   * @param position bytes from the start of the file (default: the file's own position, which then advances)
   * @returns how many bytes were read in all: fewer than there is room for at the end of the file, or if the server returns fewer
   */
  async readv<B extends readonly Uint8Array[]>(
    buffers: B,
    position: number | null = null,
    options?: WaitOptions,
  ): Promise<{ readonly bytesRead: number; readonly buffers: B }> {
    const { parts, position: at } = toVector(buffers, position);
    const bytesRead = await this.#run('read', () => this.#readv(parts, at), options, at === null);
    return { bytesRead, buffers };
  }

  /** The synchronous form of {@link FileHandle.readv}, with the limits of {@link FileHandle.readSync}. Returns how many bytes were read. */
  readvSync(buffers: readonly Uint8Array[], position: number | null = null, options?: SpinOptions): number {
    const { parts, position: at } = toVector(buffers, position);
    return this.#runSync('read', () => this.#readv(parts, at), options);
  }

  /** Writes all of several buffers, one after the other, at a position or at the file's own position. */
  async writev<B extends readonly Uint8Array[]>(
    buffers: B,
    position: number | null = null,
    options?: WaitOptions,
  ): Promise<{ readonly bytesWritten: number; readonly buffers: B }> {
    const { parts, position: at } = toVector(buffers, position);
    const serial = at === null || this.#append;
    const bytesWritten = await this.#run('write', () => this.#writev(parts, at), options, serial);
    return { bytesWritten, buffers };
  }

  /** The synchronous form of {@link FileHandle.writev}. Returns how many bytes were written. */
  writevSync(buffers: readonly Uint8Array[], position: number | null = null, options?: SpinOptions): number {
    const { parts, position: at } = toVector(buffers, position);
    return this.#runSync('write', () => this.#writev(parts, at), options);
  }

  /** Reads the file from its position to the end: as bytes, or as text if an encoding is given. */
  readFile(options?: ReadFileOptions | null): Promise<Uint8Array<ArrayBuffer>>;
  readFile(options: ReadTextOptions | Encoding): Promise<string>;
  async readFile(
    options?: ReadFileOptions | ReadTextOptions | Encoding | null,
  ): Promise<Uint8Array<ArrayBuffer> | string> {
    const { encoding, signal } = readOptions(options);
    return decodeAs(await this.#run('read', () => this.#readAll(), { signal }, true), encoding);
  }

  /** The synchronous form of {@link FileHandle.readFile}. */
  readFileSync(options?: SyncOptions<ReadFileOptions> | null): Uint8Array<ArrayBuffer>;
  readFileSync(options: SyncOptions<ReadTextOptions> | Encoding): string;
  readFileSync(
    options?: SyncOptions<ReadFileOptions> | SyncOptions<ReadTextOptions> | Encoding | null,
  ): Uint8Array<ArrayBuffer> | string {
    const { encoding, ...spin } = readOptions(options);
    return decodeAs(
      this.#runSync('read', () => this.#readAll(), spin),
      encoding,
    );
  }

  /** Writes a buffer, a text, or pieces as they arrive, from the file's position on. The file is not truncated. */
  async writeFile(data: Data | DataStream, options?: WaitOptions): Promise<void> {
    if (isAsyncIterable(data)) {
      for await (const piece of data) await this.write(piece, options);
    } else {
      for (const piece of toChunks(data)) await this.write(piece, options);
    }
  }

  /** The synchronous form of {@link FileHandle.writeFile}. */
  writeFileSync(data: Data | Iterable<Data>, options?: SpinOptions): void {
    for (const piece of toChunks(data)) this.writeSync(piece, options);
  }

  /** The same as {@link FileHandle.writeFile}. */
  appendFile(data: Data | DataStream, options?: WaitOptions): Promise<void> {
    return this.writeFile(data, options);
  }

  /**
   * Reads the file piece by piece, a few pieces ahead of the consumer.
   *
   * @returns an iterable for `for await` and `ReadableStream.from`; the file stays open when it ends
   */
  createReadStream(options: ReadStreamOptions = {}): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
    return readPieces(this, options);
  }

  /**
   * Reads the file line by line, as UTF-8. A line ends with LF or CR LF, which is not part of the result.
   *
   * @returns an iterable for `for await`; the file stays open when it ends
   * @throws {@link FileError} `EOVERFLOW` if a line is longer than 16 MiB
   */
  readLines(options: ReadStreamOptions = {}): AsyncGenerator<string, undefined> {
    return splitLines(readPieces(this, options), this.path);
  }

  /**
   * Writes the file piece by piece.
   *
   * @returns an underlying sink for `new WritableStream(…)`, which can also be used directly; the file stays open when it is closed
   */
  createWriteStream(options: WriteStreamOptions = {}): FileSink {
    return new FileSink(this, options);
  }

  /** Reads the file's attributes. */
  stat(options?: WaitOptions): Promise<Stats> {
    return this.#run('fstat', () => this.#stat(), options);
  }

  /** The synchronous form of {@link FileHandle.stat}. */
  statSync(options?: SpinOptions): Stats {
    return this.#runSync('fstat', () => this.#stat(), options);
  }

  /** Changes the permissions. */
  chmod(mode: number, options?: WaitOptions): Promise<void> {
    return this.#run('fchmod', () => this.#set({ mode }), options);
  }

  /** The synchronous form of {@link FileHandle.chmod}. */
  chmodSync(mode: number, options?: SpinOptions): void {
    this.#runSync('fchmod', () => this.#set({ mode }), options);
  }

  /** Changes owner and group. */
  chown(uid: number, gid: number, options?: WaitOptions): Promise<void> {
    return this.#run('fchown', () => this.#set({ uid, gid }), options);
  }

  /** The synchronous form of {@link FileHandle.chown}. */
  chownSync(uid: number, gid: number, options?: SpinOptions): void {
    this.#runSync('fchown', () => this.#set({ uid, gid }), options);
  }

  /** Changes the times of the last access and the last change: to the microsecond, or with `bigint`s to the nanosecond. */
  utimes(atime: Time, mtime: Time, options?: WaitOptions): Promise<void> {
    return this.#run('futimes', () => this.#set({ atime, mtime }), options);
  }

  /** The synchronous form of {@link FileHandle.utimes}. */
  utimesSync(atime: Time, mtime: Time, options?: SpinOptions): void {
    this.#runSync('futimes', () => this.#set({ atime, mtime }), options);
  }

  /** Sets the size of the file: truncates it, or extends it with zeros. */
  truncate(size = 0, options?: WaitOptions): Promise<void> {
    return this.#run('ftruncate', () => this.#set({ size }), options);
  }

  /** The synchronous form of {@link FileHandle.truncate}. */
  truncateSync(size = 0, options?: SpinOptions): void {
    this.#runSync('ftruncate', () => this.#set({ size }), options);
  }

  /** Asks the server to write all that it caches of the file to the disk. */
  sync(options?: WaitOptions): Promise<void> {
    return this.#run('fsync', () => this.#fs.client.fsync(this.#fid, false), options);
  }

  /** The synchronous form of {@link FileHandle.sync}. */
  fsyncSync(options?: SpinOptions): void {
    this.#runSync('fsync', () => this.#fs.client.fsync(this.#fid, false), options);
  }

  /** Asks the server to write the contents to the disk, and only those attributes that are needed to read them. */
  datasync(options?: WaitOptions): Promise<void> {
    return this.#run('fdatasync', () => this.#fs.client.fsync(this.#fid, true), options);
  }

  /** The synchronous form of {@link FileHandle.datasync}. */
  fdatasyncSync(options?: SpinOptions): void {
    this.#runSync('fdatasync', () => this.#fs.client.fsync(this.#fid, true), options);
  }

  /**
   * Locks a part of the file against other clients of the server.
   *
   * @throws {@link FileError} `EAGAIN` if a conflicting lock is held; try again later
   */
  lock(options: LockOptions = {}): Promise<void> {
    return this.#run('lock', () => this.#lock(options), options);
  }

  /** The synchronous form of {@link FileHandle.lock}. Spins until the server answers, not until the lock is free. */
  lockSync(options: SyncOptions<LockOptions> = {}): void {
    this.#runSync('lock', () => this.#lock(options), options);
  }

  /** Removes a lock, or a part of it. */
  unlock(options: Omit<LockOptions, 'type'> = {}): Promise<void> {
    return this.#run('unlock', () => this.#lock(options, LockType.UNLOCK), options);
  }

  /** The synchronous form of {@link FileHandle.unlock}. */
  unlockSync(options: SyncOptions<Omit<LockOptions, 'type'>> = {}): void {
    this.#runSync('unlock', () => this.#lock(options, LockType.UNLOCK), options);
  }

  /** Looks for a lock that conflicts with this one. @returns it, or `undefined` */
  getLock(options: LockOptions = {}): Promise<HeldLock | undefined> {
    return this.#run('getlock', () => this.#getLock(options), options);
  }

  /** The synchronous form of {@link FileHandle.getLock}. */
  getLockSync(options: SyncOptions<LockOptions> = {}): HeldLock | undefined {
    return this.#runSync('getlock', () => this.#getLock(options), options);
  }

  /**
   * Closes the file when all operations on it have ended. Closing it again does nothing. This cannot be cancelled, as the server must
   * receive it.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /**
   * Closes the file and spins.
   *
   * @throws {@link FileError} `EBUSY` while operations with promises are pending
   */
  closeSync(options?: SpinOptions): void {
    if (this.#closing !== undefined) return;
    if (this.#users > 0) throw refuse('EBUSY', 'close', this.path);
    this.#closing = Promise.resolve();
    this.#fs.client.runSync(named('close', this.path, this.#clunk()), options);
  }

  /** The same as {@link FileHandle.close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The same as {@link FileHandle.closeSync}, for `using`. */
  [Symbol.dispose](): void {
    this.closeSync();
  }

  *#read({ part, length, position }: Transfer): Task<number> {
    if (part.length !== length) throw resized(length);
    const at = position ?? this.#position;
    const count = length === 0 ? 0 : yield* this.#fs.client.read(this.#fid, part, at);
    if (position === null) this.#position = at + count;
    return count;
  }

  *#readv(parts: readonly Part[], position: number | null): Task<number> {
    const start = position ?? this.#position;
    let total = 0;
    for (const part of parts) {
      const count = yield* this.#read({ ...part, position: start + total });
      total += count;
      if (count < part.length) break;
    }
    if (position === null) this.#position = start + total;
    return total;
  }

  *#writev(parts: readonly Part[], position: number | null): Task<number> {
    const start = position ?? this.#position;
    let total = 0;
    for (const part of parts) {
      yield* this.#write({ ...part, position: start + total });
      total += part.length;
    }
    if (position === null) this.#position = start + total;
    return total;
  }

  *#readAll(): Task<Uint8Array<ArrayBuffer>> {
    const bytes = yield* readAll(this.#fs.client, this.#fid, this.#position);
    this.#position += bytes.length;
    return bytes;
  }

  *#write({ part, length, position }: Transfer): Task<void> {
    if (part.length !== length) throw resized(length);
    const at = position ?? this.#position;
    yield* writeAt(this.#fs.client, this.#fid, part, at, this.#append);
    if (position === null) this.#position = at + length;
  }

  *#stat(): Task<Stats> {
    return new Stats(yield* this.#fs.client.getattr(this.#fid));
  }

  *#set(values: Changes): Task<void> {
    yield* this.#fs.client.setattr(this.#fid, changes(values));
  }

  *#lock(options: SyncOptions<LockOptions>, type?: number): Task<void> {
    const status = yield* this.#fs.client.lock(this.#fid, lockRequest(options, type), 0);
    if (status === LockStatus.SUCCESS) return;
    throw refuse(status === LockStatus.ERROR ? 'ENOLCK' : 'EAGAIN', 'lock');
  }

  *#getLock(options: SyncOptions<LockOptions>): Task<HeldLock | undefined> {
    const held = yield* this.#fs.client.getlock(this.#fid, lockRequest(options));
    if (held.type === LockType.UNLOCK) return undefined;
    return { ...held, type: held.type === LockType.READ ? 'read' : 'write' };
  }

  async #close(): Promise<void> {
    if (this.#users > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#fs.client.run(named('close', this.path, this.#clunk()));
  }

  /** If the session is over, the file is closed already. */
  *#clunk(): Task<void> {
    const { client } = this.#fs;
    if (client.isCurrent(this.#fid)) yield* client.clunk(this.#fid);
  }

  /** Runs an operation with promises. `serial` is for those that use the position. */
  async #run<V>(syscall: string, task: () => Task<V>, options?: WaitOptions, serial = false): Promise<V> {
    this.#enter(syscall);
    try {
      const { client } = this.#fs;
      const run = (): Promise<V> => client.run(named(syscall, this.path, task()), options);
      if (!serial) return await run();
      requireSignal(CLIENT, options?.signal);
      const before = this.#tail;
      // An operation that is cancelled in the line ends at once; those behind it still wait for those before it.
      const result = settledOrAborted(before, options?.signal).then(run);
      this.#tail = Promise.allSettled([before, result]);
      return await result;
    } finally {
      this.#leave();
    }
  }

  #runSync<V>(syscall: string, task: () => Task<V>, options?: SpinOptions): V {
    this.#enter(syscall);
    try {
      return this.#fs.client.runSync(named(syscall, this.path, task()), options);
    } finally {
      this.#leave();
    }
  }

  #enter(syscall: string): void {
    if (this.#closing !== undefined) throw refuse('EBADF', syscall, this.path);
    this.#users += 1;
  }

  #leave(): void {
    this.#users -= 1;
    if (this.#users === 0) this.#idle?.();
  }
}

/** The options of the first form of the arguments of `read` and `write`. */
function waitOf(options: TransferOptions | number | undefined): WaitOptions | undefined {
  return typeof options === 'object' ? options : undefined;
}

function spinOf(options: SyncOptions<TransferOptions> | number | undefined): SpinOptions | undefined {
  return typeof options === 'object' ? options : undefined;
}
