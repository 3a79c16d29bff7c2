/** Tasks that read and change the attributes of files, and read those of the file system. */
import {
  type AttributeChanges,
  type Attributes,
  FileError,
  type RawStatFs,
  refuse,
  type Task,
} from '@virtio/files';
import type { FuseFid } from './nodes.ts';
import { pipeline } from './pipeline.ts';
import { In, Opcode, Out } from './protocol.ts';
import { attributes } from './replies.ts';
import { getattrOf, setattrValues, toName } from './requests.ts';
import type { Session } from './session.ts';

/** The longest value of an extended attribute, and the longest list of their names, that Linux allows. */
const MAX_XATTR = 65536;

/** Reads the attributes of a file (`GETATTR`). */
export function* getattr({ nodes, exchange }: Session, fid: FuseFid): Task<Attributes> {
  nodes.check(fid, 'getattr');
  const { values } = yield* exchange.call(getattrOf(fid));
  return attributes(values);
}

/** Reads the attributes of many files. Returns `undefined` for files that the server refuses. */
export function* getattrEach(
  { nodes, exchange }: Session,
  fids: readonly FuseFid[],
): Task<(Attributes | undefined)[]> {
  const all: (Attributes | undefined)[] = [];
  yield* pipeline(exchange, fids, {
    request(fid) {
      nodes.check(fid, 'getattr');
      return getattrOf(fid);
    },
    *receive(_fid, tag) {
      try {
        all.push(attributes((yield* exchange.receive(tag, Out.attr)).values));
      } catch (error) {
        if (!FileError.is(error)) throw error;
        all.push(undefined);
      }
      return true;
    },
  });
  return all;
}

/** Changes the attributes of a file (`SETATTR`). */
export function* setattr({ nodes, exchange }: Session, fid: FuseFid, changes: AttributeChanges): Task<void> {
  nodes.check(fid, 'setattr');
  yield* exchange.call({
    opcode: Opcode.SETATTR,
    nodeid: fid.node.id,
    session: fid.session,
    layout: In.setattr,
    values: setattrValues(fid, changes),
    out: Out.attr,
  });
}

/** Reads the statistics of the file system (`STATFS`). Type and identifier are 0, as FUSE does not report them. */
export function* statfs({ nodes, exchange }: Session, fid: FuseFid): Task<RawStatFs> {
  nodes.check(fid, 'statfs');
  const { values } = yield* exchange.call({
    opcode: Opcode.STATFS,
    nodeid: fid.node.id,
    session: fid.session,
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
export function* getxattr(
  { nodes, exchange }: Session,
  fid: FuseFid,
  name: string,
): Task<Uint8Array<ArrayBuffer>> {
  nodes.check(fid, 'getxattr');
  const room = new Uint8Array(MAX_XATTR);
  try {
    const { count } = yield* exchange.call({
      opcode: name === '' ? Opcode.LISTXATTR : Opcode.GETXATTR,
      nodeid: fid.node.id,
      session: fid.session,
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
export function* setxattr(
  { nodes, exchange }: Session,
  fid: FuseFid,
  name: string,
  value: Uint8Array,
  flags: number,
): Task<void> {
  nodes.check(fid, 'setxattr');
  const target = { nodeid: fid.node.id, session: fid.session, out: Out.none, names: [toName(name)] };
  if (value.length === 0) {
    yield* exchange.call({ ...target, opcode: Opcode.REMOVEXATTR, layout: In.none, values: {} });
    return;
  }
  const values = { size: value.length, flags };
  yield* exchange.call({ ...target, opcode: Opcode.SETXATTR, layout: In.setxattr, values, data: value });
}
