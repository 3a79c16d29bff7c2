/**
 * The file system device: FUSE requests are sent on a request queue, and those that must not wait behind others (`FORGET`, `INTERRUPT`)
 * on the hiprio queue. The driver transfers messages and parses only their headers.
 */
import {
  decodeUtf8Lossless,
  DeviceType,
  type DriverOptions,
  type Hal,
  requireBytes,
  type RequestQueue,
  setUpSpareQueues,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { MessageDriver } from '@virtio/files';
import {
  FsConfig,
  type FsFeatureName,
  FsFeatures,
  HIPRIO_OPCODES,
  HIPRIO_QUEUE,
  IN_HEADER_SIZE,
  InHeader,
  OUT_HEADER_SIZE,
  OutHeader,
  REQUEST_QUEUE,
} from './protocol.ts';

/** As many as QEMU's device has by default. */
const DEFAULT_QUEUE_SIZE = 128;

/** Options of {@link VirtioFs}. */
export interface FsOptions extends DriverOptions<FsFeatureName> {
  /** The size of the queues in descriptors (default 128, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
}

/**
 * The driver of a file system device. It transfers messages; `FuseFileSystem` implements FUSE.
 *
 * A message is given in one or two parts, and so is the room for its reply:
 *
 * - `request`: a `fuse_in_header` of 40 bytes, whose `len` is that of both parts, and the arguments.
 * - `reply`: room for a `fuse_out_header` of 16 bytes, and the result.
 * - `requestData`, `replyData`: the second parts, not empty: the data of a write, room for the data of a read.
 *
 * All buffers belong to the device until the request has ended. Those in DMA memory are used as they are, others are copied.
 *
 * A request returns the size of the reply in bytes, which its header also has; 0 if the device used the request's buffers without a
 * reply, as virtiofsd does with `DESTROY`. The caller checks the `error` in the header.
 *
 * @see VIRTIO 1.4, 5.11
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { FuseFileSystem, VirtioFs } from '@virtio/fs';
 *
 * export async function hostname(transport: Transport, hal: Hal): Promise<string> {
 *   using device = new VirtioFs(transport, hal);
 *   await using fs = await FuseFileSystem.mount(device);
 *   return await fs.readFile('/etc/hostname', 'utf8');
 * }
 * ```
 */
export class VirtioFs extends MessageDriver<FsFeatureName> {
  /** The device type: file system. */
  static readonly deviceType = DeviceType.FileSystem;

  /** The tag: the name of the share. */
  readonly tag: string;
  /** How many request queues the device has. The driver uses one; the others get no requests. */
  readonly requestQueueCount: number;

  protected override readonly minReplySize = OUT_HEADER_SIZE;

  readonly #hiprio: RequestQueue<number>;
  // By slot of the request queue: the two halves of the request's `unique`.
  readonly #uniqueLow: number[] = [];
  readonly #uniqueHigh: number[] = [];

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a file system device, `INVALID_DEVICE` if it has no request queue,
   * `FEATURES_REFUSED`, `CONFIG_SPACE_TOO_SMALL`, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: FsOptions = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    // NOTIFICATION is not accepted, so the request queues begin at 1 [5.11.2].
    super(transport, hal, { deviceType: DeviceType.FileSystem, table: FsFeatures, supported: [] }, options);
    const { config, hiprio } = this.setUp(() => {
      const made = {
        config: this.#readConfig(),
        hiprio: this.createRequestQueue({ index: HIPRIO_QUEUE, size: queueSize }, { result: () => 0 }),
      };
      this.createMessageQueue({ index: REQUEST_QUEUE, size: queueSize });
      const end = REQUEST_QUEUE + made.config.requestQueues;
      setUpSpareQueues(transport, REQUEST_QUEUE + 1, end, (more) => this.createRequestQueue(more));
      return made;
    });
    this.tag = config.tag;
    this.requestQueueCount = config.requestQueues;
    this.#hiprio = hiprio;
    this.start();
  }

  /**
   * Sends a `FORGET`, `BATCH_FORGET` or `INTERRUPT` on the hiprio queue. They have no reply.
   *
   * @returns whether there was room; if not, send it again later
   * @throws {@link VirtioError} `INVALID_PARAM` for another request, `DMA_ERROR`, or why the device no longer works
   * @see VIRTIO 1.4, 5.11.6.2
   */
  sendPriority(request: Uint8Array): boolean {
    this.#checkHeader(request, request.length, true);
    const hiprio = this.#hiprio;
    hiprio.drain();
    const slot = hiprio.tryBegin(1);
    if (slot < 0) return false;
    try {
      hiprio.shareReadable(slot, request);
    } catch (error) {
      hiprio.rewind(slot);
      throw error;
    }
    hiprio.cancel(hiprio.submit(slot));
    hiprio.kick();
    return true;
  }

  protected override checkRequest(request: Uint8Array, size: number): void {
    this.#checkHeader(request, size, false);
  }

  protected override noteRequest(slot: number, request: Uint8Array): void {
    const header = new DataView(request.buffer, request.byteOffset, IN_HEADER_SIZE);
    this.#uniqueLow[slot] = header.getUint32(InHeader.offset.unique, true);
    this.#uniqueHigh[slot] = header.getUint32(InHeader.offset.unique + 4, true);
  }

  protected override isReply(slot: number, reply: Uint8Array, size: number): boolean {
    if (size < OUT_HEADER_SIZE) return false;
    const header = new DataView(reply.buffer, reply.byteOffset, OUT_HEADER_SIZE);
    return (
      header.getUint32(OutHeader.offset.unique, true) === this.#uniqueLow[slot] &&
      header.getUint32(OutHeader.offset.unique + 4, true) === this.#uniqueHigh[slot] &&
      header.getUint32(OutHeader.offset.len, true) === size
    );
  }

  #readConfig(): { tag: string; requestQueues: number } {
    const { transport } = this;
    const { tag, requestQueues } = transport.readConsistent(() => ({
      tag: transport.readConfigSpace(FsConfig.fields.tag),
      requestQueues: transport.readConfigSpace(FsConfig.fields.numRequestQueues),
    }));
    if (requestQueues === 0) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} reports that it has no request queue; the device is broken`,
      );
    }
    const end = tag.indexOf(0);
    return { tag: decodeUtf8Lossless(end < 0 ? tag : tag.subarray(0, end)), requestQueues };
  }

  #checkHeader(request: Uint8Array, size: number, priority: boolean): void {
    const { transport } = this;
    requireBytes(transport, request);
    const view = new DataView(request.buffer, request.byteOffset, request.length);
    if (request.length < IN_HEADER_SIZE || view.getUint32(InHeader.offset.len, true) !== size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a request begins with a header of ${IN_HEADER_SIZE} bytes, whose len is the size of the whole ` +
          `request; this one has ${size} bytes, and is too short or has another len`,
      );
    }
    const opcode = view.getUint32(InHeader.offset.opcode, true);
    if (HIPRIO_OPCODES.includes(opcode) === priority) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: send FORGET, BATCH_FORGET and INTERRUPT, and only these, with sendPriority; this request has ` +
        `opcode ${opcode} [5.11.6.2]`,
    );
  }
}
