/** Tasks that open and close files and directories. */
import { FileError, FileType, isDirectory, OpenFlag, SetattrValid, type Task } from '@virtio/files';
import { setattr } from './attributes.ts';
import type { FuseFid } from './nodes.ts';
import { In, InitFlag, Opcode, Out } from './protocol.ts';
import { flushOf, NO_CHANGES, releaseOf, toName } from './requests.ts';
import type { Session } from './session.ts';

/** Flags of `open` that this client obeys, not the server. */
const OWN_FLAGS = OpenFlag.CREAT | OpenFlag.EXCL | OpenFlag.NOCTTY;

/** Opens a file or a directory (`OPEN`, `OPENDIR`). */
export function* open(session: Session, fid: FuseFid, flags: number): Task<void> {
  session.nodes.check(fid, 'open');
  const directory = isDirectory(fid.qid);
  const truncates = (flags & OpenFlag.TRUNC) !== 0 && !directory;
  const atomic = (session.flags & InitFlag.ATOMIC_O_TRUNC) !== 0;
  const sent = flags & ~(atomic ? OWN_FLAGS : OWN_FLAGS | OpenFlag.TRUNC);
  let opened = true;
  try {
    const { values } = yield* session.exchange.call({
      opcode: directory ? Opcode.OPENDIR : Opcode.OPEN,
      nodeid: fid.node.id,
      session: fid.session,
      layout: In.open,
      values: { flags: sent },
      out: Out.open,
    });
    fid.fh = values.fh;
  } catch (error) {
    // To a server without the request, all files are open, as number 0.
    if (!FileError.is(error, 'ENOSYS')) throw error;
    fid.fh = 0n;
    opened = false;
  }
  fid.flags = sent;
  if (truncates && !(atomic && opened)) {
    yield* setattr(session, fid, { ...NO_CHANGES, valid: SetattrValid.SIZE });
  }
}

/** Creates a file and opens it (`CREATE`): `fid`, which was the directory's, becomes the file's. */
export function* create(
  session: Session,
  fid: FuseFid,
  name: string,
  flags: number,
  mode: number,
  gid: number,
): Task<void> {
  const { nodes, exchange } = session;
  nodes.check(fid, 'create');
  const { values } = yield* exchange.call({
    opcode: Opcode.CREATE,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.create,
    values: { flags: flags & ~OpenFlag.NOCTTY, mode: FileType.FILE | mode },
    out: Out.create,
    names: [toName(name)],
    gid,
  });
  const made = nodes.entry(values, Opcode.CREATE);
  const { node } = fid;
  fid.node = made.node;
  fid.qid = made.qid;
  fid.fh = values.fh;
  fid.flags = flags & ~OWN_FLAGS;
  nodes.leave(node);
}

/**
 * Closes a file (`FLUSH`, `RELEASE`) and forgets its fid. As in Linux, it does not matter what the server answers to `RELEASE`: the file is
 * closed.
 *
 * @throws FileError what went wrong with the file, as `FLUSH` reports it
 */
export function* clunk(session: Session, fid: FuseFid): Task<void> {
  const { nodes, exchange } = session;
  nodes.check(fid, 'flush');
  const { fh } = fid;
  if (fh === undefined) {
    leave(session, fid);
    return;
  }
  let failure: FileError | undefined;
  try {
    // The server releases the locks of the process that it is told.
    const owners = isDirectory(fid.qid) ? [] : (fid.owners ?? [fid.id]);
    for (const owner of owners) {
      if (!session.flushes) break;
      try {
        yield* exchange.call(flushOf(fid, fh, owner), true);
      } catch (error) {
        if (!FileError.is(error)) throw error;
        if (error.code === 'ENOSYS') session.flushes = false;
        else failure ??= error;
      }
    }
    const call = releaseOf(fid, fh);
    const tag = yield* exchange.send(call, true);
    fid.live = false;
    try {
      yield* exchange.receive(tag, call.out, true, () => {
        leave(session, fid);
      });
    } catch (error) {
      if (!FileError.is(error)) throw error;
    }
  } catch (error) {
    // Nobody waits any more, but the server must know that the file is closed.
    forget(session, fid);
    throw error;
  }
  if (failure !== undefined) throw failure;
}

/** Closes a file, if it is open, without waiting for the answer, and forgets its fid; errors are ignored. The root stays. */
export function forget(session: Session, fid: FuseFid | undefined): void {
  if (fid === undefined || session.isRoot(fid) || !fid.live) return;
  fid.live = false;
  if (!session.isCurrent(fid)) return;
  const { fh } = fid;
  const left = (): void => {
    leave(session, fid);
  };
  if (fh === undefined) left();
  else session.exchange.drop(releaseOf(fid, fh), left);
}

/** A fid is no longer used: its node is forgotten with its last fid. */
function leave({ nodes, exchange }: Session, fid: FuseFid): void {
  fid.live = false;
  if (fid.session === exchange.session) nodes.leave(fid.node);
}
