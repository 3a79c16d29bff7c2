/**
 * Encodes and decodes messages. Nothing here knows about sockets: the reader says how many bytes it needs next and gets them in
 * pieces of any size. A descriptor belongs to the message with whose bytes it arrived.
 */
import { VirtioError } from '@virtio/core';
import { Header, HeaderFlag, MAX_DESCRIPTORS, MAX_PAYLOAD } from './protocol.ts';

/** A message that was received. */
export interface Message {
  /** Its number. */
  readonly request: number;
  /** The flags of the header. */
  readonly flags: number;
  /** What follows the header. */
  readonly payload: DataView<ArrayBuffer>;
  /**
   * Descriptors that came with it. A handler that takes one out of the array must close it; the others are closed after the message
   * was handled.
   */
  readonly descriptors: number[];
}

/**
 * A message as bytes.
 *
 * @param flags `HeaderFlag`; the version is added
 */
export function encodeMessage(request: number, payload: Uint8Array, flags = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(Header.size + payload.length);
  Header.write(new DataView(bytes.buffer), 0, {
    request,
    flags: HeaderFlag.VERSION | flags,
    size: payload.length,
  });
  bytes.set(payload, Header.size);
  return bytes;
}

/** What a {@link MessageReader} accepts. */
export interface MessageLimits {
  /** The longest payload of a message now, in bytes. */
  readonly longest: (request: number) => number;
  /** Whether the flags hold the version of the protocol. */
  readonly versioned: boolean;
}

/** Assembles messages from the bytes that arrive. */
export class MessageReader {
  readonly #limits: MessageLimits;
  #bytes = new Uint8Array(Header.size);
  #have = 0;
  #descriptors: number[] = [];

  /** @param limits default: those of the vhost-user protocol */
  constructor(limits: MessageLimits = { longest: () => MAX_PAYLOAD, versioned: true }) {
    this.#limits = limits;
  }

  /** How many bytes the message still needs; {@link MessageReader.push} must not be given more. */
  get needed(): number {
    return this.#bytes.length - this.#have;
  }

  /** Whether a message has begun and is not complete. */
  get partial(): boolean {
    return this.#have > 0;
  }

  /** Returns the descriptors of a message that will never be complete; the caller closes them. */
  takeDescriptors(): number[] {
    return this.#descriptors.splice(0);
  }

  /**
   * Adds bytes.
   *
   * @returns the message, if it is complete
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED` for an invalid header, or too many descriptors
   */
  push(bytes: Uint8Array, descriptors: readonly number[] = []): Message | undefined {
    this.#descriptors.push(...descriptors);
    if (this.#descriptors.length > MAX_DESCRIPTORS) {
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `sent ${this.#descriptors.length} descriptors with a message; at most ${MAX_DESCRIPTORS} are allowed`,
      );
    }
    this.#bytes.set(bytes, this.#have);
    this.#have += bytes.length;
    if (this.needed > 0) return undefined;
    const view = new DataView(this.#bytes.buffer);
    const { request, flags, size } = Header.read(view);
    if (this.#have === Header.size) {
      if (this.#limits.versioned && (flags & HeaderFlag.VERSION_MASK) !== HeaderFlag.VERSION) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `sent message ${request} with version ${flags & HeaderFlag.VERSION_MASK} of the protocol; only version 1 exists`,
        );
      }
      const longest = this.#limits.longest(request);
      if (size > longest) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `sent message ${request} with ${size} bytes of payload; at most ${longest} are allowed`,
        );
      }
      if (size > 0) {
        const larger = new Uint8Array(Header.size + size);
        larger.set(this.#bytes);
        this.#bytes = larger;
        return undefined;
      }
    }
    const payload = new DataView(this.#bytes.buffer, Header.size);
    this.#bytes = new Uint8Array(Header.size);
    this.#have = 0;
    return { request, flags, payload, descriptors: this.takeDescriptors() };
  }
}
