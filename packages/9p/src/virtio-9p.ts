/**
 * The 9P device: one queue that carries messages of the 9P protocol to the server and its replies back, and a configuration
 * space with the mount tag.
 */
import {
  decodeUtf8Lossless,
  DeviceType,
  type DriverOptions,
  type Hal,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { MessageDriver } from '@virtio/files';
import {
  HEADER_SIZE,
  MIN_REPLY_SIZE,
  P9Config,
  type P9FeatureName,
  P9Features,
  REQUEST_QUEUE,
} from './protocol.ts';

/** As many as QEMU's device has. */
const DEFAULT_QUEUE_SIZE = 128;

/** Options of {@link Virtio9p}. */
export interface P9Options extends DriverOptions<P9FeatureName> {
  /** The size of the queue in descriptors (default 128, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
}

/**
 * The driver of a 9P device. It transfers messages without parsing them; `P9FileSystem` implements the protocol.
 *
 * A message is given in one or two parts, and so is the room for its reply:
 *
 * - `request`: the message, or its first part: at least a header of 7 bytes, whose size is that of both parts.
 * - `reply`: room for the reply, or its first part: at least 11 bytes, so that an error fits. A server that needs more may break
 *   the device: give as much as the reply can take.
 * - `requestData`, `replyData`: the second parts, not empty.
 *
 * All buffers belong to the device until the request has ended. Those in DMA memory are used as they are, others are copied.
 *
 * A request returns the size of the reply in bytes, which its header also has; 0 if there is no reply, as the request was cancelled
 * by a `Tflush`.
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { P9FileSystem, Virtio9p } from '@virtio/9p';
 *
 * export async function hostname(transport: Transport, hal: Hal): Promise<string> {
 *   using device = new Virtio9p(transport, hal);
 *   await using fs = await P9FileSystem.mount(device);
 *   return await fs.readFile('/etc/hostname', 'utf8');
 * }
 * ```
 */
export class Virtio9p extends MessageDriver<P9FeatureName> {
  /** The device type: 9P. */
  static readonly deviceType = DeviceType.P9;

  /** The mount tag: the name of the share; `undefined` if the device has no `MOUNT_TAG`. */
  readonly mountTag: string | undefined;

  protected override readonly minReplySize = MIN_REPLY_SIZE;

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a 9P device, `INVALID_DEVICE` if its mount tag is empty,
   * `CONFIG_SPACE_TOO_SMALL` if the tag is longer than the configuration space, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED`
   */
  constructor(transport: Transport, hal: Hal, options: P9Options = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    super(
      transport,
      hal,
      { deviceType: DeviceType.P9, table: P9Features, supported: ['MOUNT_TAG'] },
      options,
    );
    this.mountTag = this.setUp(() => {
      this.createMessageQueue({ index: REQUEST_QUEUE, size: queueSize });
      return this.features.has('MOUNT_TAG') ? this.#readTag() : undefined;
    });
    this.start();
  }

  protected override checkRequest(request: Uint8Array, size: number): void {
    if (request.length >= HEADER_SIZE && readSize(request) === size) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: a message begins with a header of ${HEADER_SIZE} bytes whose size counts the whole ` +
        `message; this one has ${size} bytes and does not say so`,
    );
  }

  protected override isReply(_slot: number, reply: Uint8Array, size: number): boolean {
    return size >= HEADER_SIZE && readSize(reply) === size;
  }

  #readTag(): string {
    const { transport } = this;
    const bytes = transport.readConsistent(() => {
      const length = transport.readConfigSpace(P9Config.fields.tagLength);
      if (length === 0) return undefined;
      return transport.readConfigSpace({
        name: 'virtio_9p_config.tag',
        access: 'read-only',
        type: `bytes${length}`,
        offset: P9Config.size,
        size: length,
      });
    });
    if (bytes === undefined) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} offers MOUNT_TAG, but the tag is empty; give the share a name on the host`,
      );
    }
    return decodeUtf8Lossless(bytes);
  }
}

function readSize(message: Uint8Array): number {
  return new DataView(message.buffer, message.byteOffset, 4).getUint32(0, true);
}
