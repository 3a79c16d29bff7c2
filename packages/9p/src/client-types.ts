/** The arguments and results of the tasks of `P9Client`: the fields of messages as values. */
import type { P9Fid } from './fid.ts';
import type { DirectoryEntry, MessageValues, Qid, R, T } from './protocol.ts';

/** Options of {@link P9Client.connect}. */
export interface ConnectOptions {
  /** The largest message in bytes (default 524,312: data of 512 KiB); the server may choose a smaller one. */
  readonly msize?: number;
  /** The name of the user (`uname`; default `root`). */
  readonly userName?: string;
  /** The number of the user (`n_uname`; default 0). Servers that map owners give it to new files. */
  readonly uid?: number;
  /** The name of the tree to attach to (`aname`; default empty: the tree that the mount tag names). */
  readonly tree?: string;
}

/** The attributes of a file as the server reports them. */
export type Attributes = MessageValues<typeof R.getattr.fields>;

/** Changes of a file's attributes; see `SetattrValid`. */
export type AttributeChanges = Omit<MessageValues<typeof T.setattr.fields>, 'fid'>;

/** One entry of a directory, as the server reports it. */
export type RawDirectoryEntry = MessageValues<typeof DirectoryEntry>;

/** The statistics of a file system, as the server reports them. */
export type RawStatFs = MessageValues<typeof R.statfs.fields>;

/** The fields of a lock on a part of a file. */
export type LockRequest = Omit<MessageValues<typeof T.lock.fields>, 'fid' | 'flags'>;

/** The result of {@link P9Client.walk}. */
export interface Walk {
  /** The file at the end; `undefined` if the walk did not reach it. */
  readonly fid: P9Fid | undefined;
  /** The qids of the files that were reached, from the first name on. Their types are the server's; see {@link P9Client.qidsTellKinds}. */
  readonly qids: readonly Qid[];
}
