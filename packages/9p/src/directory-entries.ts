/** The entries of a directory, read from the answer to `Treaddir`. */
import { MalformedError, Reader } from './codec.ts';
import type { RawDirectoryEntry } from './client-types.ts';
import type { Exchange } from './exchange.ts';
import { DirectoryEntry, T } from './protocol.ts';

/**
 * Reads entries.
 *
 * @param cookie where the server was to begin
 * @throws {@link VirtioError} `DEVICE_MISBEHAVED` if they make no sense
 */
export function readEntries(exchange: Exchange, bytes: Uint8Array, cookie: bigint): RawDirectoryEntry[] {
  const reader = new Reader(bytes);
  const entries: RawDirectoryEntry[] = [];
  try {
    while (reader.left > 0) entries.push(reader.fields(DirectoryEntry));
  } catch (error) {
    if (error instanceof MalformedError) throw exchange.lie(T.readdir, error.message);
    throw error;
  }
  for (const { name } of entries) {
    if (name === '' || name.includes('/') || name.includes('\0')) {
      throw exchange.lie(T.readdir, `${JSON.stringify(name)} cannot be the name of a file`);
    }
  }
  if (entries.at(-1)?.offset === cookie) {
    throw exchange.lie(T.readdir, 'it leads back to where it began');
  }
  return entries;
}
