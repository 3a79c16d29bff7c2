/** Tasks that walk from a directory to its entries (`LOOKUP`). Each makes a fid. */
import { FileError, isDirectory, MAX_WALK, type Qid, refuse, type Task, type Walk } from '@virtio/files';
import type { FuseFid } from './nodes.ts';
import { forget } from './opening.ts';
import { pipeline } from './pipeline.ts';
import { Opcode, Out } from './protocol.ts';
import { lookupOf } from './requests.ts';
import type { Session } from './session.ts';

/** Walks down a path. After the first step, an error of the server ends the walk and is not reported. */
export function* walk(
  session: Session,
  from: FuseFid,
  names: readonly string[],
): Task<Walk & { readonly fid: FuseFid | undefined }> {
  const { nodes, exchange } = session;
  nodes.check(from, 'lookup');
  if (names.length === 0) return { fid: nodes.copy(from), qids: [] };
  if (names.length > MAX_WALK) throw refuse('ENAMETOOLONG', 'lookup');
  const qids: Qid[] = [];
  let at = from;
  for (const [step, name] of names.entries()) {
    let next: FuseFid;
    try {
      if (!isDirectory(at.qid)) throw refuse('ENOTDIR', 'lookup');
      const { values } = yield* exchange.call(lookupOf(at, name));
      next = nodes.entry(values, Opcode.LOOKUP);
    } catch (error) {
      if (at !== from) forget(session, at);
      if (step > 0 && FileError.is(error)) return { fid: undefined, qids };
      throw error;
    }
    if (at !== from) forget(session, at);
    qids.push(next.qid);
    at = next;
  }
  return { fid: at, qids };
}

/** Walks to each of many entries of a directory. Returns `undefined` for those that do not exist. */
export function* walkEach(
  session: Session,
  directory: FuseFid,
  names: readonly string[],
): Task<(FuseFid | undefined)[]> {
  const { nodes, exchange } = session;
  nodes.check(directory, 'lookup');
  const fids: (FuseFid | undefined)[] = [];
  let failure: Error | undefined;
  try {
    yield* pipeline(exchange, names, {
      request: (name) => lookupOf(directory, name),
      // Each answer must be received, even after an error, as the server counts the lookup.
      *receive(_name, tag) {
        try {
          fids.push(nodes.entry((yield* exchange.receive(tag, Out.entry)).values, Opcode.LOOKUP));
        } catch (error) {
          fids.push(undefined);
          if (!FileError.is(error, 'ENOENT')) failure ??= error as Error;
        }
        return failure === undefined;
      },
    });
    if (failure !== undefined) throw failure;
    return fids;
  } catch (error) {
    for (const fid of fids) forget(session, fid);
    throw error;
  }
}
