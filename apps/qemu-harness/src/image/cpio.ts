/**
 * Writes cpio archives in the "newc" format, the one the Linux kernel unpacks as its initramfs.
 * It exists because the kernel accepts several archives one after the other: the big one (kernel modules, Node.js)
 * is built once and cached, the small one (the scripts of this run) is made anew each time, with no tool from outside.
 */

import { Buffer } from 'node:buffer';

/** One entry of the archive. Paths are relative to the root, without a leading slash. */
export type CpioEntry =
  | { readonly type: 'file'; readonly path: string; readonly data: Uint8Array; readonly mode?: number }
  | { readonly type: 'directory'; readonly path: string; readonly mode?: number }
  | { readonly type: 'symlink'; readonly path: string; readonly target: string }
  | {
      readonly type: 'character-device';
      readonly path: string;
      readonly major: number;
      readonly minor: number;
      readonly mode?: number;
    };

const FILE_TYPE = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  'character-device': 0o020000,
} as const;
const DEFAULT_MODE = { file: 0o644, directory: 0o755, symlink: 0o777, 'character-device': 0o600 } as const;
const TRAILER = 'TRAILER!!!';

/**
 * Encodes entries as a complete newc archive: missing parent directories are added, time stamps are zero and inode
 * numbers follow the order of the entries, so that the same entries always give the same bytes.
 */
export function encodeCpio(entries: Iterable<CpioEntry>): Buffer {
  const chunks: Uint8Array[] = [];
  let inode = 1;
  for (const entry of withParents(entries)) {
    const data = entryData(entry);
    const mode =
      FILE_TYPE[entry.type] | (('mode' in entry ? entry.mode : undefined) ?? DEFAULT_MODE[entry.type]);
    const device = entry.type === 'character-device' ? entry : { major: 0, minor: 0 };
    pushEntry(chunks, entry.path, data, mode, inode++, device.major, device.minor);
  }
  pushEntry(chunks, TRAILER, new Uint8Array(), 0, 0, 0, 0);
  return Buffer.concat(chunks);
}

function entryData(entry: CpioEntry): Uint8Array {
  switch (entry.type) {
    case 'file':
      return entry.data;
    case 'symlink':
      return Buffer.from(entry.target, 'utf8');
    default:
      return new Uint8Array();
  }
}

function* withParents(entries: Iterable<CpioEntry>): Generator<CpioEntry> {
  const known = new Set<string>();
  for (const entry of entries) {
    if (entry.path === '' || entry.path.startsWith('/') || entry.path.split('/').includes('..')) {
      throw new Error(`cpio: '${entry.path}' is not a path relative to the root of the archive`);
    }
    const parts = entry.path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      if (!known.has(parent)) {
        known.add(parent);
        yield { type: 'directory', path: parent };
      }
    }
    if (entry.type === 'directory' && known.has(entry.path)) continue;
    known.add(entry.path);
    yield entry;
  }
}

function pushEntry(
  chunks: Uint8Array[],
  path: string,
  data: Uint8Array,
  mode: number,
  inode: number,
  major: number,
  minor: number,
): void {
  const name = Buffer.from(`${path}\0`, 'utf8');
  const links = (mode & FILE_TYPE.directory) !== 0 ? 2 : 1;
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(
    `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`,
    'latin1',
  );
  chunks.push(header, name, padding(header.length + name.length));
  chunks.push(data, padding(data.length));
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
