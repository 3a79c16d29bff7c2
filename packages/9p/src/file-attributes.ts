/**
 * The attributes of files, and what kind each is. Where the types in the server's qids do not tell directories and links from files (v86's
 * server), each file that a walk leads to is asked for its attributes, as Linux's client asks all.
 */
import { FileError as P9Error, type Task } from '@virtio/files';
import type { Attributes } from './client-types.ts';
import type { Exchange } from './exchange.ts';
import type { FidTable, P9Fid } from './fid.ts';
import { pipeline } from './pipeline.ts';
import { FileType, GetattrMask, type Qid, QidType, R, T } from './protocol.ts';

/** What is asked of a file. */
export const ATTRIBUTES = GetattrMask.BASIC | GetattrMask.BTIME;

/** Asks for attributes. */
export class FileAttributes {
  /** Whether the types in the server's qids tell directories and links from files. */
  qidsTellKinds = true;

  readonly #exchange: Exchange;
  readonly #fids: FidTable;

  constructor(exchange: Exchange, fids: FidTable) {
    this.#exchange = exchange;
    this.#fids = fids;
  }

  /** Reads the attributes of a file (`Tgetattr`). */
  *get(fid: P9Fid): Task<Attributes> {
    this.#fids.check(fid, T.getattr);
    const values = yield* this.#exchange.call(T.getattr, { fid: fid.id, mask: ATTRIBUTES }, R.getattr);
    return this.#attributes(values);
  }

  /**
   * Reads the attributes of many files, with many requests in flight.
   *
   * @returns them, `undefined` for what the server refuses to tell
   */
  *getEach(fids: readonly P9Fid[]): Task<(Attributes | undefined)[]> {
    const all: (Attributes | undefined)[] = [];
    const exchange = this.#exchange;
    const attributes = this.#attributes.bind(this);
    yield* pipeline(exchange, fids, {
      request: (fid) => [T.getattr, { fid: fid.id, mask: ATTRIBUTES }],
      *receive(_fid, tag) {
        try {
          all.push(attributes(yield* exchange.receive(tag, R.getattr)));
        } catch (error) {
          if (!P9Error.is(error)) throw error;
          all.push(undefined);
        }
        return true;
      },
    });
    return all;
  }

  /** The qid of an answer to `Tlopen` or `Tlcreate`, with the type that the file is known to have if the server does not tell. */
  qid(qid: Qid, type: number): Qid {
    return this.qidsTellKinds ? qid : { ...qid, type };
  }

  /** Asks what kind of file a new fid stands for, if its qid does not tell, and forgets the fid if the server does not say. */
  *askKind(fid: P9Fid): Task<void> {
    if (this.qidsTellKinds) return;
    try {
      fid.qid = (yield* this.get(fid)).qid;
    } catch (error) {
      this.#exchange.drop(fid);
      throw error;
    }
  }

  /** The same for many fids. What the server does not tell of is left as a file. */
  *askKinds(fids: readonly (P9Fid | undefined)[]): Task<void> {
    if (this.qidsTellKinds) return;
    const known = fids.filter((fid) => fid !== undefined);
    const attributes = yield* this.getEach(known);
    known.forEach((fid, i) => {
      fid.qid = attributes[i]?.qid ?? { ...fid.qid, type: 0 };
    });
  }

  /** Attributes whose qid tells what kind of file it is. */
  #attributes(values: Attributes): Attributes {
    if (this.qidsTellKinds) return values;
    const kind = values.mode & FileType.MASK;
    const type =
      kind === FileType.DIRECTORY ? QidType.DIRECTORY : kind === FileType.SYMLINK ? QidType.SYMLINK : 0;
    return { ...values, qid: { ...values.qid, type } };
  }
}
