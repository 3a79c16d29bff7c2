/** The host's half of the 9P tests: looks at the trees that the guest has read and written, with the host's own eyes. */
import { createHash } from 'node:crypto';
import { createReadStream, lstatSync, readdirSync, readFileSync, readlinkSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import type { HostEnv } from '../../framework/define.ts';

const SLASH = Buffer.from('/');

/** A tree on the host, a line for each file: the name in hexadecimal, and what there is to know of it. */
function describe(root: Buffer, path: Buffer, lines: string[], inodes: boolean): void {
  const stats = lstatSync(path, { bigint: true });
  const type = stats.isDirectory()
    ? 'directory'
    : stats.isSymbolicLink()
      ? `link ${readlinkSync(path, { encoding: 'buffer' }).toString('hex')}`
      : stats.isFile()
        ? `file ${stats.nlink} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`
        : 'special';
  const time = stats.isSymbolicLink() ? '' : stats.mtimeNs;
  const inode = inodes ? stats.ino : '';
  const name = path.subarray(root.length).toString('hex');
  lines.push(`${name} ${stats.mode.toString(8)} ${stats.uid}:${stats.gid} ${time} ${inode} ${type}`);
  if (!stats.isDirectory()) return;
  for (const entry of readdirSync(path, { encoding: 'buffer' }).sort((a, b) => Buffer.compare(a, b))) {
    describe(root, Buffer.concat([path, SLASH, entry]), lines, inodes);
  }
}

const lines = (directory: string, path: string, inodes = false): string[] => {
  const root = Buffer.from(join(directory, 'share', path));
  const result: string[] = [];
  describe(root, root, result, inodes);
  return result;
};

/** What the host says of a file. */
export interface HostStat {
  readonly mode: number;
  readonly size: number;
  readonly blocks: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly ino: number;
  readonly mtimeMs: number;
}

/** How two trees differ: some of the lines that only one of them has. */
export interface Differences {
  readonly files: number;
  readonly onlyInA: readonly string[];
  readonly onlyInB: readonly string[];
}

/** How the attributes that the guest sees differ from those that the host sees. */
export interface AttributeDifferences {
  /** How many files the host sees. */
  readonly files: number;
  /** Which of the guest's lines the host does not have: the first ten. */
  readonly unknown: readonly number[];
  /** Lines of the host that the guest does not have: the first ten. */
  readonly missing: readonly string[];
}

/** What the host says of its file system. */
export interface HostStatFs {
  readonly type: number;
  readonly bsize: number;
  readonly blocks: number;
  readonly files: number;
}

/** What tests ask of the host. Paths are in the shared folder. */
export const host = {
  /** How two trees differ; nothing if they are the same in names, contents, permissions, owners, times and links. */
  differences: ({ a, b }: { a: string; b: string }, { directory }: HostEnv): Differences => {
    const [first, second] = [lines(directory, a), lines(directory, b)];
    const inSecond = new Set(second);
    const inFirst = new Set(first);
    return {
      files: first.length,
      onlyInA: first.filter((line) => !inSecond.has(line)).slice(0, 10),
      onlyInB: second.filter((line) => !inFirst.has(line)).slice(0, 10),
    };
  },
  stat: ({ path }: { path: string }, { directory }: HostEnv): HostStat => {
    const { mode, size, blocks, nlink, uid, gid, ino, mtimeMs } = lstatSync(join(directory, 'share', path));
    return { mode, size, blocks, nlink, uid, gid, ino, mtimeMs };
  },
  /**
   * Compares what the guest says of all files below a folder with what the host says, both as {@link attributeLine}s. The guest
   * gives a digest of each line: the lines would take the channel long.
   */
  attributes: (
    { path, digests }: { path: string; digests: readonly string[] },
    { directory }: HostEnv,
  ): AttributeDifferences => {
    const described = new Map<string, string>();
    const visit = (folder: Buffer, prefix: string): void => {
      for (const name of readdirSync(folder, { encoding: 'buffer' })) {
        const child = Buffer.concat([folder, SLASH, name]);
        const stats = lstatSync(child, { bigint: true });
        const hex = `${prefix}${name.toString('hex')}`;
        const line = attributeLine(hex, stats, stats.ino);
        described.set(digestLine(line), line);
        if (stats.isDirectory()) visit(child, `${hex}2f`);
      }
    };
    visit(Buffer.from(join(directory, 'share', path)), '');
    const guest = new Set(digests);
    const unknown = digests.flatMap((digest, index) => (described.has(digest) ? [] : [index]));
    const missing = [...described].filter(([digest]) => !guest.has(digest)).map(([, line]) => line);
    return { files: described.size, unknown: unknown.slice(0, 10), missing: missing.sort().slice(0, 10) };
  },
  /** Bytes of a file, as one character each. */
  bytes: ({ path, from, to }: { path: string; from: number; to: number }, { directory }: HostEnv): string =>
    readFileSync(join(directory, 'share', path), 'latin1').slice(from, to),
  read: ({ path }: { path: string }, { directory }: HostEnv): string =>
    readFileSync(join(directory, 'share', path), 'utf8'),
  list: ({ path }: { path: string }, { directory }: HostEnv): readonly string[] =>
    readdirSync(join(directory, 'share', path)),
  hash: async ({ path }: { path: string }, { directory }: HostEnv): Promise<string> => {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(join(directory, 'share', path))) hash.update(piece as Buffer);
    return hash.digest('hex');
  },
  statfs: (_args: null, { directory }: HostEnv): HostStatFs => {
    const { type, bsize, blocks, files } = statfsSync(join(directory, 'share'));
    return { type, bsize, blocks, files };
  },
};

/** What there is to know of a file without opening it. `hex` is its path in hexadecimal. */
export function attributeLine(
  hex: string,
  stats: Readonly<Record<'mode' | 'size' | 'nlink' | 'uid' | 'gid' | 'mtimeNs', number | bigint>>,
  inode: bigint,
): string {
  const { mode, size, nlink, uid, gid, mtimeNs } = stats;
  return `${hex} mode ${mode.toString(8)} size ${size} links ${nlink} owner ${uid}:${gid} inode ${inode} mtime ${mtimeNs}`;
}

/** A short digest of a line. */
export const digestLine = (line: string): string =>
  createHash('sha256').update(line).digest('base64').slice(0, 12);
