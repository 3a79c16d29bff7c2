/**
 * The driver of block devices.
 *
 * Each request has three forms: `read` returns a promise, `readSync` spins, `submitRead` returns a token to poll for and to
 * complete. They can be mixed. An invalid request is refused before the device sees it; an error that the device answers
 * concerns that request only.
 */
import {
  asError,
  DeviceType,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type LentQueues,
  type QueuePlan,
  type QueuePlanOptions,
  requireInteger,
  requireThreads,
  type ThreadQueues,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { type BlkData, BlkQueue, OVERHEAD } from './blk-queue.ts';
import { type BlkLifetime, deviceIdCommand, FLUSH, lifetimeCommand, rangeCommand } from './commands.ts';
import { type BlkConfig, HOST_MANAGED, readBlkConfig } from './config.ts';
import {
  type Command,
  Dispatcher,
  type NonBlockingOptions,
  type RequestOptions,
  type SyncOptions,
} from './dispatcher.ts';
import { Limits } from './limits.ts';
import { BlkConfigLayout, type BlkFeatureName, BlkFeatures, requestName, RequestType } from './protocol.ts';
import type { SectorRange } from './ranges.ts';
import type { ZoneHost } from './zone-host.ts';

// The names of the most frequent requests, made once.
const READ = requestName(RequestType.IN);
const WRITE = requestName(RequestType.OUT);

/** Options of {@link VirtioBlk}. */
export interface BlkOptions extends DriverOptions<BlkFeatureName> {
  /** The number of request queues to use (default: all queues of the device, up to 16). */
  readonly queues?: number;
  /** More request queues, set up for other threads: `forThreads(3)` of `@virtio/core` (default none); see {@link VirtioBlk.queueFor}. */
  readonly threadQueues?: ThreadQueues;
  /** The size of each queue in descriptors (default 256), or what the device allows if that is less. */
  readonly queueSize?: number;
}

/** The events of {@link VirtioBlk}. */
export interface BlkEvents extends DriverEvents {
  /** The size of the disk changed; the event has the new one, in sectors of 512 bytes. */
  capacity: number;
}

/** Options of a write-zeroes request. */
export interface WriteZeroesOptions extends RequestOptions {
  /** Whether the device may deallocate the sectors, which still read as zeroes (default false). */
  readonly unmap?: boolean;
}

/** The mode of the cache: a completed write is in stable storage (`writethrough`), or only after a flush (`writeback`). */
export type WriteCacheMode = 'writeback' | 'writethrough';

const SUPPORTED = [
  'SIZE_MAX',
  'SEG_MAX',
  'GEOMETRY',
  'RO',
  'BLK_SIZE',
  'FLUSH',
  'TOPOLOGY',
  'CONFIG_WCE',
  'MQ',
  'DISCARD',
  'WRITE_ZEROES',
  'LIFETIME',
  'SECURE_ERASE',
  'ZONED',
] as const satisfies readonly BlkFeatureName[];

const CACHE_MODES: readonly WriteCacheMode[] = ['writeback', 'writethrough'];

/** The maximum number of queues unless the options say more: one thread gains little by more. */
const DEFAULT_QUEUES = 16;

/**
 * A block device.
 *
 * A sector is always 512 bytes, whatever the block size of the disk is; data is a multiple of 512 bytes. A device may refuse
 * (`IO_ERROR`) data that is not a multiple of its {@link VirtioBlk.blockSize}.
 *
 * A buffer belongs to the device from the call until its request has ended (the promise is settled, the token completed): do not
 * touch it in between. The device uses a buffer in DMA memory (`hal.dmaAlloc`) directly; any other buffer is copied.
 *
 * Errors of all requests: `INVALID_PARAM` (refused, nothing was sent), `QUEUE_FULL` (not of the promise forms, which wait),
 * `IO_ERROR` and `UNSUPPORTED` (the device's answers), `DEVICE_MISBEHAVED` (no status, or an unknown one; concerns this request
 * only), `DEVICE_NEEDS_RESET`, `DEVICE_RESET`, `DEVICE_REMOVED`, `DISPOSED`.
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioBlk } from '@virtio/blk';
 *
 * export async function copyFirstSector(transport: Transport, hal: Hal): Promise<void> {
 *   using blk = new VirtioBlk(transport, hal);
 *   const sector = new Uint8Array(512);
 *   await blk.read(0, sector);
 *   await blk.write(1, sector);
 *   await blk.flush();
 * }
 * ```
 * @see VIRTIO 1.4, 5.2
 */
export class VirtioBlk extends Driver<BlkFeatureName, BlkEvents> {
  /** The device type of block devices. */
  static readonly deviceType = DeviceType.Block;

  readonly #queues: BlkQueue[] = [];
  readonly #lent: LentQueues[] = [];
  readonly #dispatcher: Dispatcher;
  readonly #limits = new Limits(this.transport);
  #canFlush = false;
  #resized = false;

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `CONFIG_SPACE_MISSING`, `CONFIG_SPACE_TOO_SMALL`,
   * `INVALID_DEVICE`, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: BlkOptions = {}) {
    const spec = { deviceType: DeviceType.Block, table: BlkFeatures, supported: acceptable(transport) };
    super(transport, hal, spec, options);
    this.setUp(() => {
      const config = readBlkConfig(transport, this.features);
      const { numQueues } = config;
      const { threadQueues } = options;
      const lent = requireThreads(transport, 'threadQueues', threadQueues, numQueues - 1);
      const most = numQueues - lent;
      const { queues = Math.min(most, DEFAULT_QUEUES) } = options;
      requireInteger(transport, 'queues', queues, 1, most);
      for (let index = 0; index < queues; index += 1) {
        this.#queues.push(this.#createQueue(index, queues, options));
      }
      if (threadQueues !== undefined) {
        for (let index = queues; index < queues + lent; index += 1) this.#lend(threadQueues, index, options);
      }
      this.#adopt(config);
    });
    this.#dispatcher = new Dispatcher(transport.who(), this.#queues);
    this.start();
  }

  /** The size of the disk in sectors of 512 bytes; see {@link BlkConfig.capacity}. */
  get capacity(): number {
    return this.#limits.config.capacity;
  }

  /** The block size of the disk in bytes, 512 or more: reads and writes should be multiples of it. */
  get blockSize(): number {
    return this.#limits.config.blockSize;
  }

  /** Whether the disk cannot be written. */
  get readOnly(): boolean {
    return this.#limits.readOnly;
  }

  /** The configuration of the device: limits, geometry, topology. It is kept up to date. */
  get config(): BlkConfig {
    return this.#limits.config;
  }

  /** @internal for `BlkZones` */
  get zoneHost(): ZoneHost {
    return {
      who: this.transport.who(),
      dispatcher: this.#dispatcher,
      config: () => this.#limits.config,
      mostSegments: () => this.#limits.mostSegments,
      measure: (what, sector, data) => this.#limits.measureWrite(what, sector, data),
    };
  }

  /** The number of request queues that this driver uses. */
  get queueCount(): number {
    return this.#queues.length;
  }

  /**
   * Gives one of the `threadQueues` to another thread of this process. The result is plain data: post it, and open it there with
   * `openQueue` of `@virtio/linux`, which returns a `VirtioBlk` with one queue and all requests.
   *
   * This thread keeps the device. When this thread resets it, requests of the other thread end with `DEVICE_RESET`, and its driver
   * works again after that. When the device is unplugged or fails, so does the driver of the other thread. Dispose the drivers of
   * other threads before this one.
   *
   * @param index the index of the queue: {@link VirtioBlk.queueCount} for the first one
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not one of them; `ALREADY_USED` if a thread has the queue, or had it and the
   * device was not reset since; `UNSUPPORTED` if the platform or the transport cannot share queues; `DMA_ERROR`
   */
  queueFor(index: number, options?: QueuePlanOptions): QueuePlan {
    this.checkUsable();
    return this.#lentQueue(index).plan(options);
  }

  /**
   * Takes a queue back from a thread that ended without disposing its driver (it was terminated, for example). After the next
   * {@link VirtioBlk.reset}, the queue can be given to another thread.
   *
   * @param index the index of the queue, as for {@link VirtioBlk.queueFor}
   */
  reclaimQueue(index: number): void {
    this.#lentQueue(index).abandon();
  }

  /**
   * The maximum number of segments of data in one request, which the device and its queues limit. A buffer takes one segment, or
   * more if it is longer than `config.sizeMax`.
   */
  get maxSegments(): number {
    return this.#limits.mostSegments;
  }

  /**
   * Reads sectors.
   *
   * @param sector the first sector, in units of 512 bytes
   * @param data the buffers to fill; their total length is a multiple of 512 bytes
   */
  read(sector: number, data: BlkData, options?: RequestOptions): Promise<void> {
    try {
      const segments = this.#limits.measure(READ, sector, data);
      return this.#dispatcher.run(RequestType.IN, sector, data, segments, options) as Promise<void>;
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  /** The synchronous form of {@link VirtioBlk.read}. Throws `NOT_READY` after `timeoutMs`; the device then still has the buffers. */
  readSync(sector: number, data: BlkData, options?: SyncOptions): void {
    const segments = this.#limits.measure(READ, sector, data);
    this.#dispatcher.runSync(RequestType.IN, sector, data, segments, options);
  }

  /** The non-blocking form of {@link VirtioBlk.read}: returns the token for {@link VirtioBlk.poll} and {@link VirtioBlk.complete}. */
  submitRead(sector: number, data: BlkData, options?: NonBlockingOptions): number {
    const segments = this.#limits.measure(READ, sector, data);
    return this.#dispatcher.start(RequestType.IN, sector, data, segments, options);
  }

  /**
   * Writes sectors. They are in stable storage after a {@link VirtioBlk.flush}, or at once if {@link VirtioBlk.writeCache} is
   * `writethrough`.
   *
   * @param sector the first sector, in units of 512 bytes
   * @param data the buffers to write; their total length is a multiple of 512 bytes
   */
  write(sector: number, data: BlkData, options?: RequestOptions): Promise<void> {
    try {
      const segments = this.#limits.measureWrite(WRITE, sector, data);
      return this.#dispatcher.run(RequestType.OUT, sector, data, segments, options) as Promise<void>;
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  /** The synchronous form of {@link VirtioBlk.write}. */
  writeSync(sector: number, data: BlkData, options?: SyncOptions): void {
    const segments = this.#limits.measureWrite(WRITE, sector, data);
    this.#dispatcher.runSync(RequestType.OUT, sector, data, segments, options);
  }

  /** The non-blocking form of {@link VirtioBlk.write}. */
  submitWrite(sector: number, data: BlkData, options?: NonBlockingOptions): number {
    const segments = this.#limits.measureWrite(WRITE, sector, data);
    return this.#dispatcher.start(RequestType.OUT, sector, data, segments, options);
  }

  /**
   * Commits all writes that completed before this call to stable storage. It does not wait for writes in flight. If the device has
   * no cache to flush (FLUSH was not negotiated), this does nothing.
   */
  async flush(options?: RequestOptions): Promise<void> {
    if (this.#flushes()) await this.#dispatcher.ask(() => FLUSH, options);
  }

  /** The synchronous form of {@link VirtioBlk.flush}. */
  flushSync(options?: SyncOptions): void {
    if (this.#flushes()) this.#dispatcher.askSync(FLUSH, options);
  }

  /** The non-blocking form of {@link VirtioBlk.flush}. Throws `UNSUPPORTED` unless FLUSH was negotiated. */
  submitFlush(options?: NonBlockingOptions): number {
    if (!this.#flushes()) throw this.#limits.lacks('FLUSH', 'FLUSH');
    return this.#dispatcher.submit(FLUSH, options);
  }

  /**
   * Discards sectors: their data is no longer needed, and what they read as afterwards is not defined.
   *
   * @param ranges one or more; a range that is too long for one segment is split, see {@link BlkConfig.discard}
   */
  discard(ranges: SectorRange | readonly SectorRange[], options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => rangeCommand(this.#limits, 'DISCARD', ranges), options);
  }

  /** The synchronous form of {@link VirtioBlk.discard}. */
  discardSync(ranges: SectorRange | readonly SectorRange[], options?: SyncOptions): void {
    this.#dispatcher.askSync(rangeCommand(this.#limits, 'DISCARD', ranges), options);
  }

  /** The non-blocking form of {@link VirtioBlk.discard}. */
  submitDiscard(ranges: SectorRange | readonly SectorRange[], options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(rangeCommand(this.#limits, 'DISCARD', ranges), options);
  }

  /**
   * Zeroes sectors without sending zeroes.
   *
   * @param ranges one or more; a range that is too long for one segment is split, see {@link BlkConfig.writeZeroes}
   */
  writeZeroes(ranges: SectorRange | readonly SectorRange[], options?: WriteZeroesOptions): Promise<void> {
    return this.#dispatcher.ask(
      () => rangeCommand(this.#limits, 'WRITE_ZEROES', ranges, options?.unmap === true),
      options,
    );
  }

  /** The synchronous form of {@link VirtioBlk.writeZeroes}. */
  writeZeroesSync(
    ranges: SectorRange | readonly SectorRange[],
    options?: WriteZeroesOptions & SyncOptions,
  ): void {
    this.#dispatcher.askSync(
      rangeCommand(this.#limits, 'WRITE_ZEROES', ranges, options?.unmap === true),
      options,
    );
  }

  /** The non-blocking form of {@link VirtioBlk.writeZeroes}. */
  submitWriteZeroes(
    ranges: SectorRange | readonly SectorRange[],
    options?: WriteZeroesOptions & NonBlockingOptions,
  ): number {
    return this.#dispatcher.submit(
      rangeCommand(this.#limits, 'WRITE_ZEROES', ranges, options?.unmap === true),
      options,
    );
  }

  /**
   * Erases sectors so that their contents cannot be restored.
   *
   * @param ranges one or more; a range that is too long for one segment is split, see {@link BlkConfig.secureErase}
   */
  secureErase(ranges: SectorRange | readonly SectorRange[], options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => rangeCommand(this.#limits, 'SECURE_ERASE', ranges), options);
  }

  /** The synchronous form of {@link VirtioBlk.secureErase}. */
  secureEraseSync(ranges: SectorRange | readonly SectorRange[], options?: SyncOptions): void {
    this.#dispatcher.askSync(rangeCommand(this.#limits, 'SECURE_ERASE', ranges), options);
  }

  /** The non-blocking form of {@link VirtioBlk.secureErase}. */
  submitSecureErase(ranges: SectorRange | readonly SectorRange[], options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(rangeCommand(this.#limits, 'SECURE_ERASE', ranges), options);
  }

  /** Asks for the device ID string, e.g. a serial number. It has up to 20 characters, and may be empty. */
  deviceId(options?: RequestOptions): Promise<string> {
    return this.#dispatcher.ask(() => deviceIdCommand(this.#limits), options);
  }

  /** The synchronous form of {@link VirtioBlk.deviceId}. */
  deviceIdSync(options?: SyncOptions): string {
    return this.#dispatcher.askSync(deviceIdCommand(this.#limits), options);
  }

  /** The non-blocking form of {@link VirtioBlk.deviceId}. */
  submitDeviceId(options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(deviceIdCommand(this.#limits), options);
  }

  /** Asks for the wear of the storage. Throws `UNSUPPORTED` unless LIFETIME was negotiated. */
  lifetime(options?: RequestOptions): Promise<BlkLifetime> {
    return this.#dispatcher.ask(() => this.#lifetime(), options);
  }

  /** The synchronous form of {@link VirtioBlk.lifetime}. */
  lifetimeSync(options?: SyncOptions): BlkLifetime {
    return this.#dispatcher.askSync(this.#lifetime(), options);
  }

  /** The non-blocking form of {@link VirtioBlk.lifetime}. */
  submitLifetime(options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#lifetime(), options);
  }

  /**
   * The next non-blocking request that is done, in the order in which the device used their buffers.
   *
   * @returns its token, once, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    return this.#dispatcher.poll();
  }

  /**
   * Ends a non-blocking request that is done: data that was read is in its buffers, which belong to the caller again. The token is
   * no longer valid. A reset of the device invalidates all tokens.
   *
   * @returns the result of the request, as of its other forms: the string of {@link VirtioBlk.deviceId}, the sector of an append …
   * @throws {@link VirtioError} the request's error; `NOT_READY` if it is not done, `WRONG_TOKEN` if there is no such request
   */
  complete(token: number): unknown {
    return this.#dispatcher.complete(token);
  }

  /**
   * Cancels a non-blocking request. The device may still carry it out, and has its buffers until it answers.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN` if there is no such request
   */
  cancel(token: number): void {
    this.#dispatcher.cancel(token);
  }

  /** Notifies the device of all requests that were submitted with `kick: false`. */
  kick(): void {
    this.#dispatcher.kick();
  }

  /**
   * Reads the mode of the device's cache. If CONFIG_WCE was not negotiated, it is `writeback` if FLUSH was, else `writethrough`.
   *
   * @see VIRTIO 1.4, 5.2.5.1
   */
  writeCache(): WriteCacheMode {
    this.checkUsable();
    const { features, transport } = this;
    const writeback = features.has('CONFIG_WCE')
      ? transport.readConfigSpace(BlkConfigLayout.fields.writeback) !== 0
      : features.has('FLUSH');
    return writeback ? 'writeback' : 'writethrough';
  }

  /**
   * Sets the mode of the device's cache. Writes that completed in `writeback` mode still need a flush.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` unless CONFIG_WCE was negotiated, `INVALID_PARAM` for an unknown mode
   */
  setWriteCache(mode: WriteCacheMode): void {
    this.checkUsable();
    // For callers without types: any other value would silently set `writethrough`.
    if (!CACHE_MODES.includes(mode)) {
      throw this.#limits.invalid('the cache mode', `'${mode}' is unknown; give ${CACHE_MODES.join(' or ')}`);
    }
    if (!this.features.has('CONFIG_WCE')) {
      throw this.#limits.lacks('a change of the cache mode', 'CONFIG_WCE');
    }
    this.transport.writeConfigSpace(BlkConfigLayout.fields.writeback, mode === 'writeback' ? 1 : 0);
  }

  protected override onConfigChange(): void {
    if (this.#reload()) this.emit('capacity', this.#limits.config.capacity);
  }

  protected override onReset(): void {
    this.#resized = this.#reload();
  }

  protected override onLive(): void {
    if (this.#resized) this.emit('capacity', this.#limits.config.capacity);
  }

  #lend(threads: ThreadQueues, index: number, { queueSize }: BlkOptions): void {
    const queue = queueSize === undefined ? { index } : { index, size: queueSize };
    this.#lent.push(this.lendQueues(threads, [queue], ['MQ'], BlkConfigLayout));
  }

  #lentQueue(index: number): LentQueues {
    const first = this.#queues.length;
    const what = 'the index of a queue for another thread';
    if (this.#lent.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#limits.who(what)}: no such queue is set up; give the driver { threadQueues: forThreads(1) }`,
      );
    }
    requireInteger(this.transport, what, index, first, first + this.#lent.length - 1);
    return this.#lent[index - first] as LentQueues;
  }

  #createQueue(index: number, of: number, { queueSize }: BlkOptions): BlkQueue {
    const queue = new BlkQueue({
      createRequests: (handler) =>
        this.createRequestQueue(queueSize === undefined ? { index } : { index, size: queueSize }, handler, [
          index,
          of,
        ]),
      allocate: (bytes) => this.allocate(bytes, 'both'),
      modern: this.features.has('VERSION_1'),
      zoned: this.features.has('ZONED'),
      who: this.transport.who(),
      quirk: (index, message) => {
        this.quirk(index, message);
      },
    });
    const { slots } = queue.requests;
    if (slots > OVERHEAD) return queue;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.transport.who()}: queue ${index} has ${slots} descriptors, but a request takes at least ${OVERHEAD + 1}: give the ` +
        'device a larger queue',
    );
  }

  /** Reads the configuration again; returns whether the capacity changed. */
  #reload(): boolean {
    const { capacity } = this.#limits.config;
    this.#adopt(readBlkConfig(this.transport, this.features));
    return this.#limits.config.capacity !== capacity;
  }

  /** Takes a configuration: copies what requests need, so that they need not look at features. */
  #adopt(config: BlkConfig): void {
    const { segMax, sizeMax, blockSize } = config;
    this.#canFlush = this.features.has('FLUSH');
    // 2.7.5.3.1: a chain is no longer than the queue; header and status take two descriptors.
    const most = Math.min(segMax, ...this.#queues.map(({ requests }) => requests.slots - OVERHEAD));
    this.#limits.adopt(config, this.features.has('RO'), most);
    for (const queue of this.#queues) {
      queue.sizeMax = sizeMax;
      queue.blockSize = blockSize;
    }
  }

  #flushes(): boolean {
    this.checkUsable();
    return this.#canFlush;
  }

  #lifetime(): Command<BlkLifetime> {
    if (!this.features.has('LIFETIME')) throw this.#limits.lacks('GET_LIFETIME', 'LIFETIME');
    return lifetimeCommand(this.#limits);
  }
}

/**
 * The features to accept. DISCARD must not be accepted from a host-managed zoned disk [5.2.5.1]; the model may be read before
 * features are negotiated [3.1.1]. Legacy devices have no ZONED.
 */
function acceptable(transport: Transport): readonly BlkFeatureName[] {
  if (transport.deviceType !== DeviceType.Block) return SUPPORTED;
  if (transport.requiresLegacyLayout()) return SUPPORTED.filter((name) => name !== 'ZONED');
  const both = BlkFeatures.mask('ZONED') | BlkFeatures.mask('DISCARD');
  const conflict =
    (transport.readDeviceFeatures() & both) === both &&
    transport.readConfigSpace(BlkConfigLayout.fields.model) === HOST_MANAGED;
  return conflict ? SUPPORTED.filter((name) => name !== 'DISCARD') : SUPPORTED;
}
