/** Decodes replies of the server: types and attributes of files, entries of directories. */
import { decodeUtf8Lossless } from '@virtio/core';
import { type Attributes, FileType, type Qid, QidType, type RawDirectoryEntry } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import { type AttrValues, DirectoryEntry, Opcode } from './protocol.ts';

/** The identification of a file, and its type. */
export function qidOf({ ino, mode }: { readonly ino: bigint; readonly mode: number }): Qid {
  const kind = mode & FileType.MASK;
  const type =
    kind === FileType.DIRECTORY ? QidType.DIRECTORY : kind === FileType.SYMLINK ? QidType.SYMLINK : 0;
  return { type, version: 0, path: ino };
}

/** The attributes of a file. */
export function attributes(values: AttrValues): Attributes {
  return {
    qid: qidOf(values),
    mode: values.mode,
    uid: values.uid,
    gid: values.gid,
    nlink: values.nlink,
    rdev: values.rdev,
    size: Number(values.size),
    blksize: values.blksize,
    blocks: Number(values.blocks),
    atime: Number(BigInt.asIntN(64, values.atime)),
    atimeNs: values.atimeNs,
    mtime: Number(BigInt.asIntN(64, values.mtime)),
    mtimeNs: values.mtimeNs,
    ctime: Number(BigInt.asIntN(64, values.ctime)),
    ctimeNs: values.ctimeNs,
    btime: 0,
    btimeNs: 0,
  };
}

/**
 * The entries in the reply to `READDIR`. One that is cut off at the end is left out, as by Linux: it is the first one of the next reply.
 *
 * @throws VirtioError `DEVICE_MISBEHAVED`
 */
export function directoryEntries(exchange: Exchange, bytes: Uint8Array, cookie: bigint): RawDirectoryEntry[] {
  const entries: RawDirectoryEntry[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length;) {
    const start = at + DirectoryEntry.size;
    const entry = start > bytes.length ? undefined : DirectoryEntry.read(view, at);
    if (entry === undefined || start + entry.namelen > bytes.length) {
      if (entries.length > 0) break;
      throw exchange.lie(Opcode.READDIR, 'its only entry is cut off');
    }
    const { offset, type, namelen } = entry;
    const name = decodeUtf8Lossless(bytes.subarray(start, start + namelen));
    if (name === '' || name.includes('/') || name.includes('\0')) {
      throw exchange.lie(Opcode.READDIR, `${JSON.stringify(name)} cannot be the name of a file`);
    }
    entries.push({ offset, type, name });
    at = start + Math.ceil(namelen / 8) * 8;
  }
  if (entries.at(-1)?.offset === cookie) {
    throw exchange.lie(Opcode.READDIR, 'it leads back to where it began');
  }
  return entries;
}
