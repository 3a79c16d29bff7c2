/** Reads the replies of the server, which is not trusted: each is checked against its request and its own length. */
import { MalformedError, Reader } from './codec.ts';
import { FileError as P9Error } from '@virtio/files';
import { type Fields, HEADER_SIZE, type Message, type MessageValues, R } from './protocol.ts';

/** The bytes of `Rread` and `Rreaddir` before their data; an error has as many. */
export const DATA_OFFSET = HEADER_SIZE + 4;

/** What a reply should be. */
export interface Expected<G extends Fields> {
  readonly message: Message<G>;
  readonly tag: number;
  /** The name of the request. */
  readonly request: string;
  /** Where data goes. */
  readonly room: Uint8Array | undefined;
  /** Whether the device has put the data there already. */
  readonly direct: boolean;
}

/**
 * Reads a reply: header, fields, and data into the room for it.
 *
 * @param reply memory with the reply, or with what is before its data
 * @param length the bytes of the reply and its data
 * @throws {@link P9Error} if it is an error
 * @throws {@link MalformedError} if it makes no sense
 */
export function readReply<G extends Fields>(
  reply: Uint8Array,
  length: number,
  { message, tag, request, room, direct }: Expected<G>,
): MessageValues<G> {
  const reader = new Reader(
    reply.subarray(0, Math.min(length, reply.length, direct ? DATA_OFFSET : Infinity)),
  );
  const header = reader.fields({ size: 'u32', type: 'u8', tag: 'u16' });
  if (header.tag !== tag) throw new MalformedError(`its tag is ${header.tag}, not ${tag}`);
  if (header.type === R.error.type) {
    const { errno } = reader.fields(R.error.fields);
    if (errno === 0 || length !== DATA_OFFSET) throw new MalformedError('it is an error without a number');
    throw new P9Error(errno, request);
  }
  if (header.type !== message.type) {
    throw new MalformedError(`its type is ${header.type}, not ${message.type} (${message.name})`);
  }
  const values = reader.fields(message.fields);
  if (room === undefined) {
    if (reader.left > 0) throw new MalformedError(`${reader.left} bytes follow its fields`);
    return values;
  }
  const { count } = values as unknown as { readonly count: number };
  if (count > room.length || length !== DATA_OFFSET + count) {
    throw new MalformedError(
      `it counts ${count} bytes of data in a message of ${length}, where ${room.length} were asked for`,
    );
  }
  if (!direct) room.set(reply.subarray(DATA_OFFSET, DATA_OFFSET + count));
  return values;
}
