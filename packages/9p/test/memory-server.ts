/**
 * A 9P2000.L server in memory, for tests: written from the description of the protocol, with its own reading and writing of
 * bytes, so that it shares no mistake with the client. Names are kept as they come, a character a byte.
 *
 * It can be told to be another kind of server (all or nothing in walks, no entry types, old messages only), to hold requests
 * back, and to lie.
 */
import type { Chain, FakeDevice } from '@virtio/testing';

const NO_FID = 0xffff_ffff;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** Errors, by Linux's numbers. */
const E = {
  ENOENT: 2,
  EBADF: 9,
  EACCES: 13,
  EEXIST: 17,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOSPC: 28,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOTEMPTY: 39,
  ENODATA: 61,
  EOPNOTSUPP: 95,
};

/** A file, a directory or a link. */
export interface Inode {
  readonly number: bigint;
  mode: number;
  uid: number;
  gid: number;
  links: number;
  bytes: Uint8Array;
  readonly entries: Map<string, Inode>;
  target: string;
  rdev: number;
  readonly xattrs: Map<string, Uint8Array>;
  atime: [number, number];
  mtime: [number, number];
}

interface ServerFid {
  inode: Inode;
  parents: Inode[];
  open: boolean;
  append: boolean;
  xattr?: { name: string; value: Uint8Array; size: number; write: boolean };
}

/** The server refuses, with this number. */
class Refusal extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(String(errno));
    this.errno = errno;
  }
}

const refuse = (code: keyof typeof E): Refusal => new Refusal(E[code]);

/** A message as the server read it. */
export interface LoggedMessage {
  readonly type: number;
  readonly tag: number;
}

export class MemoryServer {
  #numbers = 0n;
  readonly root: Inode = this.makeInode(S_IFDIR | 0o755);
  readonly fids = new Map<number, ServerFid>();
  /** All messages since the start. */
  readonly log: LoggedMessage[] = [];
  /** The largest message that it agrees to. */
  msize = 1 << 20;
  version = '9P2000.L';
  /** What it says of the size of reads and writes. */
  iounit = 0;
  /** Whether a walk that does not come to its end tells how far it came. */
  partialWalks = true;
  /** Whether the types in qids tell directories and links from files; v86's server has bits of the mode there. */
  kindsInQids = true;
  /** Whether entries of directories come with their type. */
  entryTypes = true;
  /** Messages that it does not know. */
  readonly unknown = new Set<number>();
  /** The most bytes of one read or write, below what was asked for. */
  mostBytes = Infinity;
  /** How many bytes all files can have together. */
  capacity = Infinity;
  /** Answers another errno for a message, if it returns one. */
  refuse: ((type: number) => number | undefined) | undefined;
  /** Changes a reply before it is sent. */
  tamper: ((reply: Uint8Array, type: number) => Uint8Array) | undefined;
  /** Keeps a request back until {@link MemoryServer.release} or a flush. */
  hold: ((type: number) => boolean) | undefined;
  /** Whether a flush makes the device give the flushed request back without a reply (as QEMU does). */
  cancels = true;
  readonly held: { readonly chain: Chain; readonly message: Uint8Array<ArrayBuffer> }[] = [];
  /** The most requests that were held at once. */
  mostHeld = 0;
  readonly #locks: {
    fid: number;
    type: number;
    start: number;
    length: number;
    process: number;
    client: string;
  }[] = [];

  /** Serves a queue of a device. */
  serve(device: FakeDevice, queue = 0): this {
    device.handle(queue, (chain) => this.#take(chain));
    return this;
  }

  /** Answers what was held back, in the order in which it came. */
  release(): void {
    for (const { chain, message } of this.held.splice(0)) this.#answer(chain, message);
  }

  makeInode(mode: number): Inode {
    this.#numbers += 1n;
    return {
      number: this.#numbers,
      mode,
      uid: 0,
      gid: 0,
      links: 1,
      bytes: new Uint8Array(0),
      entries: new Map(),
      target: '',
      rdev: 0,
      xattrs: new Map(),
      atime: [0, 0],
      mtime: [0, 0],
    };
  }

  /** Puts a file into the tree; directories on the way are made. A string is a link's target, or `directory`. */
  put(path: string, contents: Uint8Array | string, mode?: number): Inode {
    const names = path.split('/').filter((name) => name !== '');
    const last = names.pop() as string;
    let at = this.root;
    for (const name of names) {
      let next = at.entries.get(name);
      if (!next) at.entries.set(name, (next = this.makeInode(S_IFDIR | 0o755)));
      at = next;
    }
    const inode = this.makeInode(
      mode ??
        (contents === 'directory'
          ? S_IFDIR | 0o755
          : typeof contents === 'string'
            ? S_IFLNK | 0o777
            : S_IFREG | 0o644),
    );
    if (typeof contents === 'string') inode.target = contents === 'directory' ? '' : contents;
    else inode.bytes = contents;
    at.entries.set(last, inode);
    return inode;
  }

  /** The file at a path, without following links. */
  find(path: string): Inode | undefined {
    let at: Inode | undefined = this.root;
    for (const name of path.split('/').filter((part) => part !== '')) at = at?.entries.get(name);
    return at;
  }

  #take(chain: Chain): void {
    const message = chain.bytes();
    const view = new DataView(message.buffer);
    const type = message[4] as number;
    this.log.push({ type, tag: view.getUint16(5, true) });
    if (type === 108) {
      this.#flush(chain, view);
      return;
    }
    if (this.hold?.(type) === true) {
      chain.defer();
      this.held.push({ chain, message });
      this.mostHeld = Math.max(this.mostHeld, this.held.length);
      return;
    }
    chain.write(this.reply(message));
  }

  #answer(chain: Chain, message: Uint8Array<ArrayBuffer>): void {
    chain.write(this.reply(message)).complete();
  }

  #flush(chain: Chain, view: DataView<ArrayBuffer>): void {
    const old = view.getUint16(7, true);
    const at = this.held.findIndex(({ message }) => new DataView(message.buffer).getUint16(5, true) === old);
    const [flushed] = at < 0 ? [] : this.held.splice(at, 1);
    if (flushed && this.cancels) flushed.chain.complete(0);
    else if (flushed) this.#answer(flushed.chain, flushed.message);
    chain.write(seal(109, view.getUint16(5, true), new Out()));
  }

  /** The reply to a message. */
  reply(message: Uint8Array<ArrayBuffer>): Uint8Array {
    const input = new In(message);
    const size = input.u32();
    const type = input.u8();
    const tag = input.u16();
    const out = new Out(this.kindsInQids);
    let reply: Uint8Array;
    try {
      if (size !== message.length) {
        throw new Error(`a message of ${message.length} bytes says that it has ${size}`);
      }
      const errno = this.refuse?.(type);
      if (errno !== undefined) {
        // A clunk makes the fid unknown even if it fails.
        if (type === 120) this.fids.delete(input.u32());
        throw new Refusal(errno);
      }
      if (this.unknown.has(type)) throw refuse('EOPNOTSUPP');
      this.#dispatch(type, input, out);
      if (input.left !== 0) throw new Error(`${input.left} bytes follow message ${type}`);
      reply = seal(type + 1, tag, out);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      reply = seal(7, tag, new Out().u32(error.errno));
    }
    return this.tamper ? this.tamper(reply, type) : reply;
  }

  #dispatch(type: number, input: In, out: Out): void {
    switch (type) {
      case 100: {
        const msize = input.u32();
        const version = input.string();
        this.fids.clear();
        out.u32(Math.min(msize, this.msize)).string(version === '9P2000.L' ? this.version : 'unknown');
        return;
      }
      case 104: {
        const fid = input.u32();
        if (input.u32() !== NO_FID) throw refuse('EINVAL');
        input.string();
        input.string();
        input.u32();
        this.#add(fid, { inode: this.root, parents: [], open: false, append: false });
        out.qid(this.root);
        return;
      }
      case 110:
        this.#walk(input, out);
        return;
      case 120:
        this.#clunk(input.u32());
        return;
      case 122: {
        const id = input.u32();
        const fid = this.#fid(id);
        this.fids.delete(id);
        const parent = fid.parents.at(-1);
        const name = [...(parent?.entries ?? [])].find(([, inode]) => inode === fid.inode)?.[0];
        if (!parent || name === undefined) throw refuse('ENOENT');
        this.#unlink(parent, name, (fid.inode.mode & S_IFMT) === S_IFDIR);
        return;
      }
      case 12: {
        const fid = this.#unopened(input.u32());
        const flags = input.u32();
        fid.open = true;
        fid.append = (flags & 0o2000) !== 0;
        if ((fid.inode.mode & S_IFMT) === S_IFDIR && (flags & 3) !== 0) throw refuse('EISDIR');
        if ((flags & 0o1000) !== 0) fid.inode.bytes = new Uint8Array(0);
        out.qid(fid.inode).u32(this.iounit);
        return;
      }
      case 14: {
        const fid = this.#directory(input.u32());
        const name = this.#newName(input, fid.inode);
        const flags = input.u32();
        const inode = this.makeInode(S_IFREG | (input.u32() & 0o7777));
        inode.gid = input.u32();
        fid.inode.entries.set(name, inode);
        fid.parents = [...fid.parents, fid.inode];
        fid.inode = inode;
        fid.open = true;
        fid.append = (flags & 0o2000) !== 0;
        out.qid(inode).u32(this.iounit);
        return;
      }
      case 16: {
        const { inode: parent } = this.#directory(input.u32());
        const name = this.#newName(input, parent);
        const inode = this.makeInode(S_IFLNK | 0o777);
        inode.target = input.string();
        inode.gid = input.u32();
        parent.entries.set(name, inode);
        out.qid(inode);
        return;
      }
      case 18: {
        const { inode: parent } = this.#directory(input.u32());
        const name = this.#newName(input, parent);
        const inode = this.makeInode(input.u32());
        inode.rdev = input.u32() * 256 + input.u32();
        inode.gid = input.u32();
        parent.entries.set(name, inode);
        out.qid(inode);
        return;
      }
      case 72: {
        const { inode: parent } = this.#directory(input.u32());
        const name = this.#newName(input, parent);
        const inode = this.makeInode(S_IFDIR | (input.u32() & 0o7777));
        inode.gid = input.u32();
        parent.entries.set(name, inode);
        out.qid(inode);
        return;
      }
      case 70: {
        const { inode: parent } = this.#directory(input.u32());
        const { inode } = this.#fid(input.u32());
        parent.entries.set(this.#newName(input, parent), inode);
        inode.links += 1;
        return;
      }
      case 22: {
        const { inode } = this.#fid(input.u32());
        if ((inode.mode & S_IFMT) !== S_IFLNK) throw refuse('EINVAL');
        out.string(inode.target);
        return;
      }
      case 24:
        this.#getattr(input, out);
        return;
      case 26:
        this.#setattr(input);
        return;
      case 20: {
        const fid = this.#fid(input.u32());
        const { inode: to } = this.#directory(input.u32());
        const newName = input.string();
        const from = fid.parents.at(-1);
        const name = [...(from?.entries ?? [])].find(([, inode]) => inode === fid.inode)?.[0];
        if (!from || name === undefined) throw refuse('ENOENT');
        this.#rename(from, name, to, newName);
        return;
      }
      case 74: {
        const { inode: from } = this.#directory(input.u32());
        const name = input.string();
        const { inode: to } = this.#directory(input.u32());
        this.#rename(from, name, to, input.string());
        return;
      }
      case 76: {
        const { inode: parent } = this.#directory(input.u32());
        const name = input.string();
        this.#unlink(parent, name, input.u32() === 0x200);
        return;
      }
      case 116:
        this.#read(input, out);
        return;
      case 118:
        this.#write(input, out);
        return;
      case 40:
        this.#readdir(input, out);
        return;
      case 50:
        if (!this.#fid(input.u32()).open) throw refuse('EBADF');
        input.u32();
        return;
      case 8:
        this.#fid(input.u32());
        out
          .u32(0x01021997)
          .u32(4096)
          .u64(1000n)
          .u64(500n)
          .u64(400n)
          .u64(100n)
          .u64(50n)
          .u64(0xfeedfacecafebeefn)
          .u32(255);
        return;
      case 30:
        this.#xattrWalk(input, out);
        return;
      case 32: {
        const fid = this.#fid(input.u32());
        const name = input.string();
        const size = Number(input.u64());
        const flags = input.u32();
        if (flags === 1 && fid.inode.xattrs.has(name)) throw refuse('EEXIST');
        if (flags === 2 && !fid.inode.xattrs.has(name)) throw refuse('ENODATA');
        fid.xattr = { name, size, value: new Uint8Array(0), write: true };
        return;
      }
      case 52:
        this.#lock(input, out);
        return;
      case 54:
        this.#getlock(input, out);
        return;
      default:
        throw refuse('EOPNOTSUPP');
    }
  }

  #walk(input: In, out: Out): void {
    const fid = this.#fid(input.u32());
    const newFid = input.u32();
    const names = Array.from({ length: input.u16() }, () => input.string());
    if (fid.open) throw refuse('EINVAL');
    if (names.length > 16 || this.fids.has(newFid)) throw refuse('EINVAL');
    const parents = [...fid.parents];
    const qids: Inode[] = [];
    let at = fid.inode;
    for (const name of names) {
      const next = (at.mode & S_IFMT) === S_IFDIR ? at.entries.get(name) : undefined;
      if (!next) {
        if (qids.length > 0 && this.partialWalks) break;
        throw refuse((at.mode & S_IFMT) === S_IFDIR ? 'ENOENT' : 'ENOTDIR');
      }
      parents.push(at);
      qids.push(next);
      at = next;
    }
    if (qids.length === names.length) this.#add(newFid, { inode: at, parents, open: false, append: false });
    out.u16(qids.length);
    for (const inode of qids) out.qid(inode);
  }

  #clunk(id: number): void {
    const { xattr, inode } = this.#fid(id);
    this.fids.delete(id);
    if (xattr?.write !== true) return;
    if (xattr.value.length !== xattr.size) throw refuse('EINVAL');
    if (xattr.size === 0) inode.xattrs.delete(xattr.name);
    else inode.xattrs.set(xattr.name, xattr.value);
  }

  #getattr(input: In, out: Out): void {
    const { inode } = this.#fid(input.u32());
    const mask = input.u64();
    const size = (inode.mode & S_IFMT) === S_IFLNK ? inode.target.length : inode.bytes.length;
    out
      .u64(mask & 0x7ffn)
      .qid(inode)
      .u32(inode.mode)
      .u32(inode.uid)
      .u32(inode.gid)
      .u64(BigInt(inode.links));
    out
      .u64(BigInt(inode.rdev))
      .u64(BigInt(size))
      .u64(4096n)
      .u64(BigInt(Math.ceil(size / 512)));
    for (const [seconds, nanoseconds] of [inode.atime, inode.mtime, [0, 0], [0, 0]] as const) {
      out.u64(BigInt(seconds) & (2n ** 64n - 1n)).u64(BigInt(nanoseconds));
    }
    out.u64(0n).u64(0n);
  }

  #setattr(input: In): void {
    const { inode } = this.#fid(input.u32());
    const valid = input.u32();
    const [mode, uid, gid] = [input.u32(), input.u32(), input.u32()];
    const size = Number(input.u64());
    const times = Array.from({ length: 4 }, () => Number(BigInt.asIntN(64, input.u64()))) as [
      number,
      number,
      number,
      number,
    ];
    if ((valid & 1) !== 0) inode.mode = (inode.mode & S_IFMT) | (mode & 0o7777);
    if ((valid & 2) !== 0) inode.uid = uid;
    if ((valid & 4) !== 0) inode.gid = gid;
    if ((valid & 8) !== 0) {
      const bytes = new Uint8Array(size);
      bytes.set(inode.bytes.subarray(0, size));
      inode.bytes = bytes;
    }
    if ((valid & 0x80) !== 0) inode.atime = [times[0], times[1]];
    if ((valid & 0x100) !== 0) inode.mtime = [times[2], times[3]];
  }

  #read(input: In, out: Out): void {
    const fid = this.#fid(input.u32());
    const offset = Number(input.u64());
    const count = Math.min(input.u32(), this.mostBytes);
    if (!fid.open && !fid.xattr) throw refuse('EBADF');
    if ((fid.inode.mode & S_IFMT) === S_IFDIR && !fid.xattr) throw refuse('EISDIR');
    const bytes = (fid.xattr?.value ?? fid.inode.bytes).subarray(offset, offset + count);
    out.u32(bytes.length).bytes(bytes);
  }

  #write(input: In, out: Out): void {
    const fid = this.#fid(input.u32());
    const at = Number(input.u64());
    const all = input.bytes(input.u32());
    const data = all.subarray(0, this.mostBytes);
    if (fid.xattr) {
      const value = new Uint8Array(at + data.length);
      value.set(fid.xattr.value);
      value.set(data, at);
      fid.xattr.value = value;
    } else {
      if (!fid.open) throw refuse('EBADF');
      const { inode } = fid;
      const offset = fid.append ? inode.bytes.length : at;
      if (offset + data.length > this.capacity) throw refuse('ENOSPC');
      if (offset + data.length > inode.bytes.length) {
        const bytes = new Uint8Array(offset + data.length);
        bytes.set(inode.bytes);
        inode.bytes = bytes;
      }
      inode.bytes.set(data, offset);
    }
    out.u32(data.length);
  }

  #readdir(input: In, out: Out): void {
    const { inode, open } = this.#directory(input.u32());
    const start = Number(input.u64());
    const room = input.u32();
    if (!open) throw refuse('EBADF');
    const names: [string, Inode][] = [['.', inode], ['..', inode], ...inode.entries];
    const data = new Out(this.kindsInQids);
    for (let i = start; i < names.length; i += 1) {
      const [name, entry] = names[i] as [string, Inode];
      if (data.length + 24 + name.length > room) break;
      data
        .qid(entry)
        .u64(BigInt(i + 1))
        .u8(this.entryTypes ? (entry.mode & S_IFMT) >> 12 : 0)
        .string(name);
    }
    out.u32(data.length).bytes(data.take());
  }

  #xattrWalk(input: In, out: Out): void {
    const { inode, parents } = this.#fid(input.u32());
    const newFid = input.u32();
    const name = input.string();
    const list = [...inode.xattrs.keys()].map((key) => `${key}\0`).join('');
    const value = name === '' ? toBytes(list) : inode.xattrs.get(name);
    if (!value) throw refuse('ENODATA');
    const xattr = { name, value, size: value.length, write: false };
    this.#add(newFid, { inode, parents, open: false, append: false, xattr });
    out.u64(BigInt(value.length));
  }

  #lock(input: In, out: Out): void {
    const id = input.u32();
    this.#fid(id);
    const type = input.u8();
    input.u32();
    const lock = {
      fid: id,
      type,
      start: Number(input.u64()),
      length: Number(input.u64()),
      process: input.u32(),
      client: input.string(),
    };
    const mine = this.#locks.findIndex(
      ({ process, client }) => process === lock.process && client === lock.client,
    );
    if (type === 2) {
      if (mine >= 0) this.#locks.splice(mine, 1);
      out.u8(0);
    } else if (this.#locks.some((other) => conflicts(other, lock))) {
      out.u8(1);
    } else {
      this.#locks.push(lock);
      out.u8(0);
    }
  }

  #getlock(input: In, out: Out): void {
    const id = input.u32();
    this.#fid(id);
    const lock = {
      type: input.u8(),
      start: Number(input.u64()),
      length: Number(input.u64()),
      process: input.u32(),
      client: input.string(),
    };
    const found = this.#locks.find((other) => conflicts(other, lock)) ?? { ...lock, type: 2 };
    out
      .u8(found.type)
      .u64(BigInt(found.start))
      .u64(BigInt(found.length))
      .u32(found.process)
      .string(found.client);
  }

  #rename(from: Inode, name: string, to: Inode, newName: string): void {
    const inode = from.entries.get(name);
    if (!inode) throw refuse('ENOENT');
    from.entries.delete(name);
    to.entries.set(newName, inode);
  }

  #unlink(parent: Inode, name: string, directory: boolean): void {
    const inode = parent.entries.get(name);
    if (!inode) throw refuse('ENOENT');
    const isDirectory = (inode.mode & S_IFMT) === S_IFDIR;
    if (isDirectory && !directory) throw refuse('EISDIR');
    if (!isDirectory && directory) throw refuse('ENOTDIR');
    if (inode.entries.size > 0) throw refuse('ENOTEMPTY');
    inode.links -= 1;
    parent.entries.delete(name);
  }

  #newName(input: In, parent: Inode): string {
    const name = input.string();
    if (name.length > 255) throw refuse('ENAMETOOLONG');
    if (parent.entries.has(name)) throw refuse('EEXIST');
    return name;
  }

  #add(id: number, fid: ServerFid): void {
    if (this.fids.has(id)) throw refuse('EINVAL');
    this.fids.set(id, fid);
  }

  #fid(id: number): ServerFid {
    const fid = this.fids.get(id);
    if (!fid) throw refuse('EBADF');
    return fid;
  }

  #unopened(id: number): ServerFid {
    const fid = this.#fid(id);
    if (fid.open) throw refuse('EINVAL');
    return fid;
  }

  #directory(id: number): ServerFid {
    const fid = this.#fid(id);
    if ((fid.inode.mode & S_IFMT) !== S_IFDIR) throw refuse('ENOTDIR');
    return fid;
  }
}

interface Range {
  readonly type: number;
  readonly start: number;
  readonly length: number;
  readonly process: number;
  readonly client: string;
}

function conflicts(a: Range, b: Range): boolean {
  if (a.process === b.process && a.client === b.client) return false;
  if (a.type === 0 && b.type === 0) return false;
  const end = ({ start, length }: Range): number => (length === 0 ? Infinity : start + length);
  return a.start < end(b) && b.start < end(a);
}

/** Bytes of a string of which each character is one. */
export const toBytes = (text: string): Uint8Array =>
  Uint8Array.from(text, (character) => character.charCodeAt(0));

/** The refusal of the request that a reply answers. */
export const refusal = (reply: Uint8Array, errno: number): Uint8Array =>
  seal(7, new DataView(reply.buffer).getUint16(5, true), new Out().u32(errno));

/** A reply with its header. */
export function seal(type: number, tag: number, out: Out): Uint8Array {
  const body = out.take();
  const reply = new Uint8Array(7 + body.length);
  const view = new DataView(reply.buffer);
  view.setUint32(0, reply.length, true);
  view.setUint8(4, type);
  view.setUint16(5, tag, true);
  reply.set(body, 7);
  return reply;
}

class In {
  readonly #view: DataView<ArrayBuffer>;
  #at = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#view.byteLength - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#step(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#step(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#step(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#step(8), true);
  }

  bytes(length: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + this.#step(length), length).slice();
  }

  string(): string {
    return Array.from(this.bytes(this.u16()), (byte) => String.fromCharCode(byte)).join('');
  }

  #step(size: number): number {
    const at = this.#at;
    this.#at += size;
    if (this.#at > this.#view.byteLength) throw new Error('the message is shorter than its fields');
    return at;
  }
}

/** Collects bytes. */
export class Out {
  readonly #kindsInQids: boolean;
  #bytes = new Uint8Array(256);
  #length = 0;

  constructor(kindsInQids = true) {
    this.#kindsInQids = kindsInQids;
  }

  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    return this.bytes(Uint8Array.of(value));
  }

  u16(value: number): this {
    return this.bytes(Uint8Array.of(value, value >>> 8));
  }

  u32(value: number): this {
    return this.bytes(Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24));
  }

  u64(value: bigint): this {
    return this.u32(Number(value & 0xffff_ffffn)).u32(Number(value >> 32n));
  }

  string(value: string): this {
    return this.u16(value.length).bytes(toBytes(value));
  }

  qid({ mode, number }: Inode): this {
    const kind = (mode & S_IFMT) === S_IFDIR ? 0x80 : (mode & S_IFMT) === S_IFLNK ? 0x02 : 0;
    const type = this.#kindsInQids ? kind : (mode & S_IFMT) >> 8;
    return this.u8(type).u32(0).u64(number);
  }

  bytes(bytes: Uint8Array): this {
    const length = this.#length + bytes.length;
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(length, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length = length;
    return this;
  }

  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}
