/** Tasks that lock parts of files against other clients of the server. */
import { FileError, type LockRequest, LockStatus, LockType, type Task } from '@virtio/files';
import type { FuseFid } from './nodes.ts';
import { In, Opcode, Out } from './protocol.ts';
import { LAST, lockValues } from './requests.ts';
import type { Session } from './session.ts';

/** Sets or removes a lock (`SETLK`). Returns a number of `LockStatus`. */
export function* lock({ nodes, exchange }: Session, fid: FuseFid, request: LockRequest): Task<number> {
  const values = lockValues(nodes.handle(fid, 'lock'), request);
  if (request.type !== LockType.UNLOCK) (fid.owners ??= new Set()).add(request.process);
  try {
    const { session } = fid;
    const nodeid = fid.node.id;
    yield* exchange.call({ opcode: Opcode.SETLK, nodeid, session, layout: In.lock, values, out: Out.none });
    return LockStatus.SUCCESS;
  } catch (error) {
    if (FileError.is(error, 'EAGAIN') || FileError.is(error, 'EACCES')) return LockStatus.BLOCKED;
    throw error;
  }
}

/** Looks for a lock that conflicts with this one (`GETLK`). Returns it; its type is `LockType.UNLOCK` if there is none. */
export function* getlock(
  { nodes, exchange }: Session,
  fid: FuseFid,
  request: LockRequest,
): Task<LockRequest> {
  const values = lockValues(nodes.handle(fid, 'lock'), request);
  const { session } = fid;
  const nodeid = fid.node.id;
  const call = { opcode: Opcode.GETLK, nodeid, session, layout: In.lock, values, out: Out.lock };
  const held = (yield* exchange.call(call)).values;
  const length = held.end >= LAST ? 0 : Number(held.end - held.start) + 1;
  return { type: held.type, start: Number(held.start), length, process: held.pid, client: '' };
}
