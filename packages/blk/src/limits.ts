/** The limits of each request: the size of the disk, and the segments of a chain. They are checked before the device sees the request. */
import { requireBytes, type Transport, VirtioError } from '@virtio/core';
import type { BlkData } from './blk-queue.ts';
import { type BlkConfig, UNREAD_CONFIG } from './config.ts';
import { type BlkFeatureName, SECTOR_SIZE } from './protocol.ts';
import { isOnDisk, notOnDisk } from './ranges.ts';

/** The limits of a disk, as of the last change of its configuration. */
export class Limits {
  /** The maximum number of segments of data in one request. */
  mostSegments = 0;

  readonly #transport: Transport;
  #config: BlkConfig = UNREAD_CONFIG;
  #readOnly = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** The configuration of the device. */
  get config(): BlkConfig {
    return this.#config;
  }

  /** Whether the disk cannot be written. */
  get readOnly(): boolean {
    return this.#readOnly;
  }

  /** Takes a new configuration. */
  adopt(config: BlkConfig, readOnly: boolean, mostSegments: number): void {
    this.#config = config;
    this.#readOnly = readOnly;
    this.mostSegments = mostSegments;
  }

  /**
   * Checks data for a transfer.
   *
   * @param what the request, for messages
   * @returns the number of segments of the data
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  measure(what: string, sector: number, data: BlkData): number {
    const { capacity } = this.#config;
    let bytes = 0;
    let segments = 0;
    if (data instanceof Uint8Array) {
      bytes = data.length;
      segments = this.segments(data);
    } else {
      if (!Array.isArray(data)) requireBytes(this.#transport, data);
      for (let i = 0; i < data.length; i += 1) {
        const buffer = data[i] as Uint8Array;
        requireBytes(this.#transport, buffer);
        if (buffer.length === 0) throw this.invalid(what, `buffer ${i} is empty`);
        bytes += buffer.length;
        segments += this.segments(buffer);
      }
    }
    if (bytes === 0 || bytes % SECTOR_SIZE !== 0) {
      throw this.invalid(
        what,
        `the data has ${bytes} bytes; give a multiple of ${SECTOR_SIZE} that is not 0`,
      );
    }
    if (!isOnDisk(sector, bytes / SECTOR_SIZE, capacity)) {
      throw notOnDisk(this.who(what), sector, bytes / SECTOR_SIZE, capacity);
    }
    return this.checkSegments(what, segments);
  }

  /** Like {@link Limits.measure}, for data that is written to the disk. */
  measureWrite(what: string, sector: number, data: BlkData): number {
    this.checkWritable(what);
    return this.measure(what, sector, data);
  }

  /** Checks the number of segments of a request, and returns it. */
  checkSegments(what: string, segments: number): number {
    if (segments <= this.mostSegments) return segments;
    throw this.invalid(
      what,
      `the data takes ${segments} segments, ${this.#config.sizeMax === Infinity ? '' : `of up to ${this.#config.sizeMax} bytes, `}but a request holds at most ` +
        `${this.mostSegments}; use several requests`,
    );
  }

  /** The number of segments of a buffer. */
  segments({ length }: Uint8Array): number {
    const { sizeMax } = this.#config;
    return length <= sizeMax ? 1 : Math.ceil(length / sizeMax);
  }

  /** Throws if the disk cannot be written. */
  checkWritable(what: string): void {
    if (this.#readOnly) throw this.invalid(what, 'the disk is read-only; see `readOnly`');
  }

  /** The device and the request, for messages. */
  who(what: string): string {
    return `${this.#transport.who()}: ${what}`;
  }

  /** The error for a request that is not valid. */
  invalid(what: string, why: string): VirtioError {
    return new VirtioError('INVALID_PARAM', `${this.who(what)}: ${why}`);
  }

  /** The error for a request that needs a feature which was not negotiated. */
  lacks(what: string, feature: BlkFeatureName): VirtioError {
    return new VirtioError(
      'UNSUPPORTED',
      `${this.who(what)} is not possible, as ${feature} was not negotiated; see \`features\``,
    );
  }
}
