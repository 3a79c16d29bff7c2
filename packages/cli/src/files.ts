/** Files of the user: a failure to open or write one ends the command with an error, but does not crash the process. */
import { createReadStream, type WriteStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { finished } from 'node:stream/promises';

/** The bytes of a file, which is opened only when they are read, as many commands are refused before that. */
export async function* contents(file: string): AsyncGenerator<Uint8Array> {
  yield* createReadStream(file, { highWaterMark: 1 << 18 });
}

/** Opens a file for writing; {@link closeOutput} reports errors that happen later. */
export async function openOutput(file: string): Promise<WriteStream> {
  const stream = (await open(file, 'w')).createWriteStream();
  stream.on('error', () => undefined);
  return stream;
}

/** Writes the rest, and closes the file. Throws the error of the file, if there was one. */
export async function closeOutput(stream: WriteStream): Promise<void> {
  stream.end();
  await finished(stream);
}
