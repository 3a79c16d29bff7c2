/**
 * Resolves paths to files. The server follows no symbolic link and knows no working directory, so this does what a kernel
 * does: it walks as far as it can in one request, checks whether there was a link, and continues at the target of the link.
 * `..` is resolved here, by the directories that were walked through, and never sent. Absolute links start at the root of the
 * tree: a link cannot lead out of it.
 */
import { requirePath } from './check.ts';
import type { FileClient, Walk } from './client.ts';
import { Errno } from './errno.ts';
import { isDirectory, isSymlink, type Fid } from './client.ts';
import { MAX_WALK } from './numbers.ts';
import { FileError, refuse } from './file-error.ts';
import type { Task } from './task.ts';

/** The largest number of links in one path, as in Linux. */
const MAX_LINKS = 40;

/** The longest path, as in Linux; also after links are replaced by their targets. */
const MAX_PATH = 4096;

const WALK = 'walk';

/** The result of resolving a path. */
export interface Resolved {
  /** The file, which the caller forgets; `undefined` if there is no such entry in `directory`. */
  readonly fid: Fid | undefined;
  /** If there is no such file: the directory where it would be, which the caller forgets. */
  readonly directory: Fid | undefined;
  /** The names from the root, without links except perhaps the last one. */
  readonly names: readonly string[];
}

/** How to resolve a path. */
export interface ResolveOptions {
  /** Whether a link at the end is followed. */
  readonly follow: boolean;
  /** Whether the last name may be missing. */
  readonly create?: boolean;
}

/** The names of a path, without empty ones and `.`. */
export function splitPath(path: string): string[] {
  return path.split('/').filter((name) => name !== '' && name !== '.');
}

/** Whether the end of a path means that it must be a directory. */
export function wantsDirectory(path: string): boolean {
  return /(^|\/)\.{0,2}$/.test(path);
}

/**
 * Finds a file.
 *
 * @throws {@link FileError} `ENOENT`, `ENOTDIR`, `ELOOP`, `ENAMETOOLONG`, and errors of the server
 */
export function* resolve(client: FileClient, path: string, options: ResolveOptions): Task<Resolved> {
  requirePath(path);
  if (path === '') throw refuse('ENOENT', WALK);
  if (path.includes('\0')) throw refuse('EINVAL', WALK);
  const resolver = new Resolver(client, path, options);
  try {
    return yield* resolver.run();
  } catch (error) {
    yield* client.forget(resolver.at);
    throw error;
  }
}

class Resolver {
  /** Where the walk is. */
  at: Fid;

  readonly #client: FileClient;
  readonly #options: ResolveOptions;
  /** The names from the root to {@link Resolver.at}. */
  #done: string[] = [];
  /** The names to go. */
  #names: string[];
  #directory: boolean;
  #links = 0;
  /** Whether one name is walked at a time, as the server did not report how far it came, or its qids do not show links. */
  #stepwise: boolean;

  constructor(client: FileClient, path: string, options: ResolveOptions) {
    this.#client = client;
    this.#options = options;
    this.#names = splitPath(path);
    this.#directory = wantsDirectory(path);
    this.at = client.root;
    this.#stepwise = !client.qidsTellKinds;
  }

  *run(): Task<Resolved> {
    while (this.#names.length > 0) {
      if (this.#names[0] === '..') {
        yield* this.#up();
        continue;
      }
      const missing = yield* this.#down();
      if (missing !== undefined) {
        return { fid: undefined, directory: this.at, names: [...this.#done, missing] };
      }
    }
    if (this.#directory && !isDirectory(this.at.qid)) throw refuse('ENOTDIR', WALK);
    // The caller forgets what it gets; the root stays.
    const fid = this.at === this.#client.root ? yield* this.#client.clone(this.at) : this.at;
    return { fid, directory: undefined, names: this.#done };
  }

  *#up(): Task<void> {
    if (!isDirectory(this.at.qid)) throw refuse('ENOTDIR', WALK);
    this.#names.shift();
    this.#done.pop();
    yield* this.#moveTo(yield* walkAll(this.#client, this.#done));
  }

  /** Walks as far as one request can. @returns the last name of the path, if it is missing and that is allowed */
  *#down(): Task<string | undefined> {
    const client = this.#client;
    if (!isDirectory(this.at.qid)) throw refuse('ENOTDIR', WALK);
    const up = this.#names.indexOf('..');
    const most = this.#stepwise ? 1 : MAX_WALK;
    const run = this.#names.slice(0, Math.min(up < 0 ? most : up, most));
    let walk: Walk;
    try {
      walk = yield* client.walk(this.at, run);
    } catch (error) {
      if (!FileError.is(error)) throw error;
      if (run.length > 1) {
        this.#stepwise = true;
        return undefined;
      }
      const last = this.#names.length === 1 && !this.#directory;
      if (last && this.#options.create === true && error.code === 'ENOENT') return run[0];
      throw error;
    }
    const { fid, qids } = walk;
    const last = run.length === this.#names.length && !this.#options.follow && !this.#directory;
    const link = client.qidsTellKinds
      ? qids.findIndex((qid, i) => isSymlink(qid) && !(last && i === run.length - 1))
      : fid !== undefined && isSymlink(fid.qid) && !last
        ? 0
        : -1;
    if (link >= 0) {
      yield* client.forget(fid);
      yield* this.#follow(run.slice(0, link), run[link] as string);
    } else if (fid !== undefined) {
      yield* this.#moveTo(fid);
      this.#done.push(...run);
      this.#names = this.#names.slice(run.length);
    } else {
      // The server walked a part of the path and does not report why it stopped: go there, and ask for the next name.
      const part = run.slice(0, qids.length);
      yield* this.#step(part);
      this.#names = this.#names.slice(part.length);
      this.#stepwise = true;
      // If more than the file itself is missing, the attempt to create it will fail.
      const [name] = this.#names;
      if (this.#options.create === true && this.#names.length === 1 && name !== '..' && !this.#directory) {
        if (!isDirectory(this.at.qid)) throw refuse('ENOTDIR', WALK);
        return name;
      }
    }
    return undefined;
  }

  /** Continues at the target of the link `name`, below `directories`. */
  *#follow(directories: readonly string[], name: string): Task<void> {
    const client = this.#client;
    this.#links += 1;
    if (this.#links > MAX_LINKS) throw refuse('ELOOP', WALK);
    yield* this.#step(directories);
    const { fid: link } = yield* client.walk(this.at, [name]);
    let target = '';
    try {
      if (link !== undefined) target = yield* client.readlink(link);
    } finally {
      yield* client.forget(link);
    }
    if (target === '') throw refuse('ENOENT', WALK);
    const rest = this.#names.slice(directories.length + 1);
    if (rest.length === 0 && wantsDirectory(target)) this.#directory = true;
    this.#names = [...splitPath(target), ...rest];
    if (this.#names.reduce((length, part) => length + part.length + 1, 0) > MAX_PATH) {
      throw refuse('ENAMETOOLONG', WALK);
    }
    if (target.startsWith('/')) {
      this.#done = [];
      yield* this.#moveTo(client.root);
    }
  }

  /** Walks names that were walked just now. */
  *#step(names: readonly string[]): Task<void> {
    if (names.length === 0) return;
    const { fid } = yield* this.#client.walk(this.at, names);
    // The tree was changed meanwhile.
    if (fid === undefined) throw refuse('ENOENT', WALK);
    yield* this.#moveTo(fid);
    this.#done.push(...names);
  }

  *#moveTo(fid: Fid): Task<void> {
    const { at } = this;
    this.at = fid;
    yield* this.#client.forget(at);
  }
}

/** Walks any number of names from the root, without links. */
function* walkAll(client: FileClient, names: readonly string[]): Task<Fid> {
  let at = client.root;
  for (let i = 0; i < names.length; i += MAX_WALK) {
    let walk: Walk;
    try {
      walk = yield* client.walk(at, names.slice(i, i + MAX_WALK));
    } finally {
      yield* client.forget(at);
    }
    if (walk.fid === undefined) throw new FileError(Errno.ENOENT, WALK);
    at = walk.fid;
  }
  return at;
}

/** A path without slashes at its end. */
export function trimSlashes(path: string): string {
  let end = path.length;
  while (path[end - 1] === '/') end -= 1;
  return path.slice(0, end);
}

/** The last name of a path, and the path before it. */
export function splitLast(path: string): { readonly parent: string; readonly name: string } {
  const trimmed = trimSlashes(path);
  const slash = trimmed.lastIndexOf('/');
  return { parent: slash < 0 ? '/' : trimmed.slice(0, slash + 1), name: trimmed.slice(slash + 1) };
}

/**
 * Finds the directory of a path's last name, which need not exist.
 *
 * @returns the directory, which the caller forgets, the name, and whether a slash follows it: then only a directory can be meant
 * @throws {@link FileError} `code` if the path has no last name, or that is `.` or `..`
 */
export function* resolveParent(
  client: FileClient,
  path: string,
  code: 'EEXIST' | 'EBUSY' | 'EINVAL',
): Task<{ readonly directory: Fid; readonly name: string; readonly slash: boolean }> {
  requirePath(path);
  if (path === '') throw refuse('ENOENT', WALK);
  const { parent, name } = splitLast(path);
  if (name.includes('\0')) throw refuse('EINVAL', WALK);
  if (name === '' || name === '.' || name === '..') throw refuse(code, WALK);
  const { fid } = yield* resolve(client, `${parent}/.`, { follow: true });
  return { directory: fid as Fid, name, slash: path.endsWith('/') };
}
