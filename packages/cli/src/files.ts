/** Files of the caller's: what cannot be opened or written is an error of the command, never of the process. */
import { createReadStream, type WriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { finished } from 'node:stream/promises';

/** The bytes of a file, which is opened when they are asked for and closed then: many a command is refused before. */
export async function* contents(file: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(file, { highWaterMark: 1 << 18 });
}

/** Opens a file to be written; what goes wrong later is told by {@link closeOutput}. */
export async function openOutput(file: string): Promise<WriteStream> {
  const stream = (await open(file, 'w')).createWriteStream();
  stream.on('error', () => undefined);
  return stream;
}

/** Writes what is left. Throws whatever went wrong with the file. */
export async function closeOutput(stream: WriteStream): Promise<void> {
  stream.end();
  await finished(stream);
}
