/** Tasks that read a directory, and make, rename and remove its entries. */
import { decodeUtf8Lossless, type FieldTable, type Layout, type Values } from '@virtio/core';
import { FileError, type Qid, type RawDirectoryEntry, refuse, type Task } from '@virtio/files';
import type { FuseFid } from './nodes.ts';
import { forget } from './opening.ts';
import { pipeline } from './pipeline.ts';
import { In, Opcode, Out } from './protocol.ts';
import { directoryEntries } from './replies.ts';
import { readOf, toName, unlinkOf } from './requests.ts';
import type { Session } from './session.ts';

/** The longest target of a link. */
const MAX_TARGET = 4096;

/** Reads entries of an open directory (`READDIR`). */
export function* readdir(
  { nodes, exchange, chunk }: Session,
  fid: FuseFid,
  cookie: bigint,
  room: Uint8Array,
): Task<RawDirectoryEntry[]> {
  const fh = nodes.handle(fid, 'readdir', true);
  const part = room.subarray(0, chunk);
  const call = readOf(fid, fh, part, 0);
  const { count } = yield* exchange.call({
    ...call,
    opcode: Opcode.READDIR,
    values: { ...call.values, offset: cookie },
  });
  return directoryEntries(exchange, part.subarray(0, count), cookie);
}

/** Makes an entry of a directory, and forgets its node at once, as no fid stands for it. */
export function* make<I extends FieldTable>(
  session: Session,
  directory: FuseFid,
  opcode: number,
  layout: Layout<I>,
  values: Partial<Values<I>>,
  names: readonly string[],
  gid?: number,
): Task<Qid> {
  const { nodes, exchange } = session;
  nodes.check(directory, 'create');
  const reply = yield* exchange.call({
    opcode,
    nodeid: directory.node.id,
    session: directory.session,
    layout,
    values,
    out: Out.entry,
    names: names.map(toName),
    ...(gid !== undefined && { gid }),
  });
  const fid = nodes.entry(reply.values, opcode);
  forget(session, fid);
  return fid.qid;
}

/** Makes a device node, a FIFO or a socket (`MKNOD`). */
export function* mknod(
  session: Session,
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
  return yield* make(session, directory, Opcode.MKNOD, In.mknod, { mode, rdev }, [name], gid);
}

/** Makes a hard link: another name of a file (`LINK`). */
export function* link(session: Session, directory: FuseFid, fid: FuseFid, name: string): Task<void> {
  session.nodes.check(fid, 'link');
  yield* make(session, directory, Opcode.LINK, In.link, { oldNodeid: fid.node.id }, [name]);
}

/** Reads the target of a symbolic link (`READLINK`). */
export function* readlink({ nodes, exchange }: Session, fid: FuseFid): Task<string> {
  nodes.check(fid, 'readlink');
  const room = new Uint8Array(MAX_TARGET);
  const { count } = yield* exchange.call({
    opcode: Opcode.READLINK,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.none,
    values: {},
    out: Out.none,
    room,
  });
  const target = decodeUtf8Lossless(room.subarray(0, count));
  if (target.includes('\0')) throw exchange.lie(Opcode.READLINK, 'the target has a zero byte');
  return target;
}

/** Renames an entry of a directory (`RENAME`). */
export function* renameat(
  { nodes, exchange }: Session,
  directory: FuseFid,
  name: string,
  newDirectory: FuseFid,
  newName: string,
): Task<void> {
  nodes.check(directory, 'rename');
  nodes.check(newDirectory, 'rename');
  yield* exchange.call({
    opcode: Opcode.RENAME,
    nodeid: directory.node.id,
    session: directory.session,
    layout: In.rename,
    values: { newDirectory: newDirectory.node.id },
    out: Out.none,
    names: [toName(name), toName(newName)],
  });
}

/** Removes an entry of a directory (`UNLINK`, `RMDIR`). */
export function* unlinkat(
  { nodes, exchange }: Session,
  directory: FuseFid,
  name: string,
  flags: number,
): Task<void> {
  nodes.check(directory, 'unlink');
  yield* exchange.call(unlinkOf(directory, name, flags));
}

/** Removes many files of a directory; `refused` is called for each that the server does not remove. */
export function* unlinkEach(
  { nodes, exchange }: Session,
  directory: FuseFid,
  names: Iterable<string>,
  refused: (name: string, error: FileError) => void,
): Task<void> {
  nodes.check(directory, 'unlink');
  yield* pipeline(exchange, names, {
    request: (name) => unlinkOf(directory, name, 0),
    *receive(name, tag) {
      try {
        yield* exchange.receive(tag, Out.none);
      } catch (error) {
        if (!FileError.is(error)) throw error;
        refused(name, error);
      }
      return true;
    },
  });
}
