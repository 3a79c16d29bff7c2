/** Walks from directories to files (`Twalk`), each of which makes a fid. */
import { FileError as P9Error, pipeline, refuse, type Task } from '@virtio/files';
import type { Walk } from './client-types.ts';
import type { Exchange } from './exchange.ts';
import { type FidTable, NO_QID, type P9Fid } from './fid.ts';
import type { FileAttributes } from './file-attributes.ts';
import { type Qid, R, T } from './protocol.ts';

/** Walks. */
export class Walker {
  readonly #exchange: Exchange;
  readonly #fids: FidTable;
  readonly #attributes: FileAttributes;

  constructor(exchange: Exchange, fids: FidTable, attributes: FileAttributes) {
    this.#exchange = exchange;
    this.#fids = fids;
    this.#attributes = attributes;
  }

  /**
   * Walks from a directory down a path (`Twalk`).
   *
   * @param from the directory, which stays as it is
   * @param names up to 16 names; none for another fid of the same file
   * @returns what it reached. The server gives a reason only if the first name fails, which then is the error of the task
   */
  *to(from: P9Fid, names: readonly string[]): Task<Walk> {
    this.#fids.check(from, T.walk);
    const id = this.#fids.take();
    let qids: readonly Qid[];
    try {
      const tag = yield* this.#exchange.send(T.walk, { fid: from.id, newFid: id, names });
      qids = (yield* this.#exchange.receive(tag, R.walk)).qids;
    } catch (error) {
      this.#fids.releaseUnmade(id, error);
      throw error;
    }
    if (qids.length > names.length) {
      throw this.#exchange.lie(T.walk, `it went ${qids.length} steps of ${names.length}`);
    }
    if (qids.length === 0 && names.length > 0) throw this.#noStep(id);
    if (qids.length < names.length) {
      this.#fids.release(id);
      return { fid: undefined, qids };
    }
    const fid = this.#fids.create(id, qids.at(-1) ?? from.qid);
    if (names.length > 0) yield* this.#attributes.askKind(fid);
    return { fid, qids };
  }

  /**
   * Walks to each of many entries of a directory, with many requests in flight.
   *
   * @returns their fids, `undefined` for those that do not exist
   */
  *toEach(directory: P9Fid, names: readonly string[]): Task<(P9Fid | undefined)[]> {
    this.#fids.check(directory, T.walk);
    const exchange = this.#exchange;
    const table = this.#fids;
    const noStep = this.#noStep.bind(this);
    const steps = names.map((name) => ({ name, id: table.take() }));
    let sent = 0;
    const fids: (P9Fid | undefined)[] = [];
    let failure: Error | undefined;
    try {
      yield* pipeline(steps, {
        trySend({ name, id }, more) {
          const values = { fid: directory.id, newFid: id, names: [name] };
          const tag = exchange.trySend(T.walk, values, undefined, more);
          if (tag >= 0) sent += 1;
          return tag;
        },
        // No answer may be left out, as each may have made a fid: after an error the others are received all the same.
        *receive({ id }, tag) {
          try {
            const { qids } = yield* exchange.receive(tag, R.walk);
            const [qid] = qids;
            if (qids.length > 1) throw exchange.lie(T.walk, `it went ${qids.length} steps of 1`);
            if (qid === undefined) noStep(id);
            fids.push(qid && table.create(id, qid));
          } catch (error) {
            table.releaseUnmade(id, error);
            fids.push(undefined);
            if (!P9Error.is(error, 'ENOENT')) failure ??= error as Error;
          }
          return failure === undefined;
        },
        discard: (tag) => exchange.discard(tag),
      });
      if (failure !== undefined) throw failure;
      yield* this.#attributes.askKinds(fids);
      return fids;
    } catch (error) {
      for (const { id } of steps.slice(sent)) table.release(id);
      for (const fid of fids) if (fid !== undefined) exchange.drop(fid);
      throw error;
    }
  }

  /**
   * After a walk of no step, by which some servers (v86's) say that the first name failed. As Linux's client does, this has the
   * server forget the fid all the same. Returns the error.
   */
  #noStep(id: number): P9Error {
    this.#exchange.drop(this.#fids.create(id, NO_QID));
    return refuse('ENOENT', T.walk.name);
  }
}
