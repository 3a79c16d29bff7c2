/**
 * The messages of requests, and their replies.
 *
 * Each tag has a piece of DMA memory for its message and its reply, so that small messages need no sharing. Data of
 * reads and writes above what fits there is transferred directly from and to the caller's buffer.
 */
import { VirtioError } from '@virtio/core';
import { refuse, type Tags } from '@virtio/files';
import { encodeMessage, MalformedError, UnencodableError } from './codec.ts';
import { type Fields, type Message, type MessageValues, NO_TAG, R, T } from './protocol.ts';
import { DATA_OFFSET, readReply } from './reply.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** The memory of a tag: half for the message, half for the reply. */
const AREA_SIZE = 16384;
const HALF = AREA_SIZE / 2;

/** The most bytes that the header of a read or write takes of a message, by the custom of the protocol. */
export const IO_HEADER_SIZE = 24;

/** Data up to this length is copied through the memory of its tag. */
const INLINE = HALF - IO_HEADER_SIZE;

const LATER = { kick: false };

/** Data that goes with a request. */
export interface RequestData {
  /** What follows the message. */
  readonly data?: Uint8Array;
  /** Where the data of the reply goes. */
  readonly room?: Uint8Array;
}

/** Sends messages, and reads the replies. */
export class Messages {
  /** The largest message, as negotiated. */
  limit = HALF;

  readonly #device: Virtio9p;
  readonly #tags: Tags;
  readonly #message: Uint8Array<ArrayBuffer>[] = [];
  readonly #reply: Uint8Array<ArrayBuffer>[] = [];
  // By tag: the room for data and its size when the message was sent, whether the request was cancelled, the tag as the server sees it, and
  // the name of the message.
  readonly #rooms: (Uint8Array | undefined)[] = [];
  readonly #roomSizes: Float64Array;
  readonly #cancelled: Uint8Array;
  readonly #onWire: Uint16Array;
  readonly #names: string[] = [];

  constructor(device: Virtio9p, tags: Tags) {
    this.#device = device;
    this.#tags = tags;
    this.#roomSizes = new Float64Array(tags.count);
    this.#cancelled = new Uint8Array(tags.count);
    this.#onWire = new Uint16Array(tags.count);
  }

  /**
   * Begins a session: allocates memory if there is none yet.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(): void {
    const { count } = this.#tags;
    if (this.#message.length === 0) {
      const memory = this.#device.messageMemory(count * AREA_SIZE);
      for (let tag = 0; tag < count; tag += 1) {
        const at = tag * AREA_SIZE;
        this.#message.push(memory.subarray(at, at + HALF));
        this.#reply.push(memory.subarray(at + HALF, at + AREA_SIZE));
      }
    }
    this.limit = HALF;
  }

  /**
   * Sends a request with a tag that was taken. The device sees it after a kick.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for values that the message cannot hold, `QUEUE_FULL`, `DMA_ERROR`, or why the device
   * no longer works; the tag is free then
   */
  transmit<F extends Fields>(
    tag: number,
    message: Message<F>,
    values: MessageValues<F>,
    { data, room }: RequestData,
  ): void {
    const area = this.#message[tag] as Uint8Array;
    const reply = this.#reply[tag] as Uint8Array;
    const direct = isDirect(room);
    let token: number;
    try {
      const target = area.subarray(0, Math.min(HALF, this.limit));
      let length = encodeMessage(target, wireTag(message, tag), message, values, data?.length);
      let requestData = data;
      if (data !== undefined && data.length <= INLINE) {
        area.set(data, length);
        length += data.length;
        requestData = undefined;
      }
      token = this.#device.submitRequest(
        area.subarray(0, length),
        direct ? reply.subarray(0, DATA_OFFSET) : reply,
        requestData,
        direct ? room : undefined,
        LATER,
      );
    } catch (error) {
      this.#tags.release(tag);
      throw error instanceof UnencodableError ? refuse(error.code, message.name) : error;
    }
    this.#rooms[tag] = room;
    this.#roomSizes[tag] = room?.length ?? 0;
    this.#cancelled[tag] = 0;
    this.#onWire[tag] = wireTag(message, tag);
    this.#names[tag] = message.name;
    this.#tags.sent(tag, token);
  }

  /**
   * Ends a request that is done, and reads its reply. The tag is free afterwards.
   *
   * @throws {@link VirtioError} `DEVICE_RESET`, `DEVICE_MISBEHAVED`, `ABORTED` if it was cancelled, or why the request was lost
   */
  finish<G extends Fields>(tag: number, message: Message<G>): MessageValues<G> {
    const device = this.#device;
    const name = this.#names[tag] as string;
    try {
      const length = this.#tags.complete(tag, name);
      if (length === 0) throw this.#unanswered(tag, name);
      const room = this.#rooms[tag];
      if (room !== undefined && room.length !== this.#roomSizes[tag]) {
        throw new VirtioError(
          'INVALID_PARAM',
          `${device.transport.who()}: the buffer for ${name} was transferred or resized meanwhile, so the data of the server is lost; do not ` +
            'change it before the call has ended',
        );
      }
      return readReply(this.#reply[tag] as Uint8Array, length, {
        message,
        tag: wireTag(message, tag),
        request: name,
        room,
        direct: isDirect(room),
      });
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${device.transport.who()}: the server's reply to ${name} makes no sense: ${error.message}. Whether the request ` +
          'was carried out is not known',
      );
    } finally {
      this.#rooms[tag] = undefined;
      this.#tags.release(tag);
    }
  }

  /** The tag of a request as the server sees it. */
  onWire(tag: number): number {
    return this.#onWire[tag] as number;
  }

  /** Marks a request that a cancellation is sent for: it may end without a reply. */
  cancelled(tag: number): void {
    this.#cancelled[tag] = 1;
  }

  #unanswered(tag: number, name: string): Error {
    if (this.#cancelled[tag] === 0) return new MalformedError('it is empty');
    return new VirtioError(
      'ABORTED',
      `${name} was cancelled by its caller; the server has not carried it out`,
    );
  }
}

/** Whether the device puts data where it belongs, so that it need not be copied there. */
function isDirect(room: Uint8Array | undefined): boolean {
  return room !== undefined && room.length > INLINE;
}

function wireTag(message: Message, tag: number): number {
  return message.type === T.version.type || message.type === R.version.type ? NO_TAG : tag;
}
