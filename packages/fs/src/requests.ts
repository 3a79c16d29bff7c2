/** Builds the requests that more than one operation sends, and their arguments. */
import { encodeUtf8Lossless, type Layout, type Values } from '@virtio/core';
import {
  AT_REMOVEDIR,
  type AttributeChanges,
  isDirectory,
  type LockRequest,
  OpenFlag,
  refuse,
  SetattrValid,
} from '@virtio/files';
import type { Call } from './messages.ts';
import type { FuseFid } from './nodes.ts';
import { GETATTR_FH, In, Opcode, Out, SetattrBit } from './protocol.ts';

/** The end of a lock without an end: the largest position in a file. */
export const LAST = 2n ** 63n - 1n;
/** The bits of a time before 1970. */
const U64 = 2n ** 64n - 1n;

/** No changes of attributes. With the size marked as valid, they truncate a file. */
export const NO_CHANGES: AttributeChanges = {
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

type FieldsOf<L> = L extends Layout<infer F> ? F : never;
/** A request with these structures. */
export type CallOf<I, O> = Call<FieldsOf<I>, FieldsOf<O>>;

/** Looks a name up. */
export function lookupOf(directory: FuseFid, name: string): CallOf<typeof In.none, typeof Out.entry> {
  return {
    opcode: Opcode.LOOKUP,
    nodeid: directory.node.id,
    session: directory.session,
    layout: In.none,
    values: {},
    out: Out.entry,
    names: [toName(name)],
  };
}

/** Asks for attributes; by the handle, if the file is open. */
export function getattrOf(fid: FuseFid): CallOf<typeof In.getattr, typeof Out.attr> {
  const { fh } = fid;
  return {
    opcode: Opcode.GETATTR,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.getattr,
    values: fh === undefined ? {} : { flags: GETATTR_FH, fh },
    out: Out.attr,
  };
}

/** Reads a part of a file. */
export function readOf(
  fid: FuseFid,
  fh: bigint,
  room: Uint8Array,
  offset: number,
): CallOf<typeof In.io, typeof Out.none> {
  return {
    opcode: Opcode.READ,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.io,
    values: { fh, offset: BigInt(offset), size: room.length, flags: fid.flags },
    out: Out.none,
    room,
  };
}

/** Reports what went wrong with an open file, and releases the locks of `owner`. */
export function flushOf(fid: FuseFid, fh: bigint, owner: number): CallOf<typeof In.flush, typeof Out.none> {
  return {
    opcode: Opcode.FLUSH,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.flush,
    values: { fh, lockOwner: BigInt(owner) },
    out: Out.none,
  };
}

/** Closes an open file or directory. */
export function releaseOf(fid: FuseFid, fh: bigint): CallOf<typeof In.release, typeof Out.none> {
  return {
    opcode: isDirectory(fid.qid) ? Opcode.RELEASEDIR : Opcode.RELEASE,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.release,
    values: { fh, flags: fid.flags, lockOwner: BigInt(fid.id) },
    out: Out.none,
  };
}

/** Removes a name. */
export function unlinkOf(
  directory: FuseFid,
  name: string,
  flags: number,
): CallOf<typeof In.none, typeof Out.none> {
  return {
    opcode: (flags & AT_REMOVEDIR) === 0 ? Opcode.UNLINK : Opcode.RMDIR,
    nodeid: directory.node.id,
    session: directory.session,
    layout: In.none,
    values: {},
    out: Out.none,
    names: [toName(name)],
  };
}

/** The arguments of `SETATTR`. */
export function setattrValues(
  fid: FuseFid,
  changes: AttributeChanges,
): Partial<Values<FieldsOf<typeof In.setattr>>> {
  const V = SetattrValid;
  const { valid } = changes;
  const has = (bit: number): boolean => (valid & bit) !== 0;
  const { fh } = fid;
  const writable = fh !== undefined && (fid.flags & OpenFlag.ACCMODE) !== OpenFlag.RDONLY;
  return {
    valid:
      (has(V.MODE) ? SetattrBit.MODE : 0) |
      (has(V.UID) ? SetattrBit.UID : 0) |
      (has(V.GID) ? SetattrBit.GID : 0) |
      (has(V.SIZE) ? SetattrBit.SIZE : 0) |
      (has(V.ATIME) ? SetattrBit.ATIME | (has(V.ATIME_SET) ? 0 : SetattrBit.ATIME_NOW) : 0) |
      (has(V.MTIME) ? SetattrBit.MTIME | (has(V.MTIME_SET) ? 0 : SetattrBit.MTIME_NOW) : 0) |
      (writable ? SetattrBit.FH : 0),
    fh: writable ? fh : 0n,
    size: BigInt(changes.size),
    atime: BigInt(changes.atime) & U64,
    mtime: BigInt(changes.mtime) & U64,
    atimeNs: changes.atimeNs,
    mtimeNs: changes.mtimeNs,
    mode: changes.mode,
    uid: changes.uid,
    gid: changes.gid,
  };
}

/** The arguments of `SETLK` and `GETLK`. */
export function lockValues(
  fh: bigint,
  { type, start, length, process }: LockRequest,
): { fh: bigint; owner: bigint; start: bigint; end: bigint; type: number; pid: number } {
  const end = length === 0 ? LAST : BigInt(start) + BigInt(length) - 1n;
  return { fh, owner: BigInt(process), start: BigInt(start), end, type, pid: process };
}

/** The bytes of a name. Refuses strings that no name of the server can be. */
export function toName(name: string): Uint8Array {
  const bytes = encodeUtf8Lossless(name);
  if (bytes === undefined) throw refuse('EILSEQ', 'lookup');
  // The server would take what is before it for the whole name, and what is behind it for what follows the name.
  if (bytes.includes(0)) throw refuse('EINVAL', 'lookup');
  return bytes;
}
