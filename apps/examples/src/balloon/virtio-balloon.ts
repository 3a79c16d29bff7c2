/**
 * The balloon gives pages of the guest's memory to the host and takes them back. The host says in the configuration how many
 * it would like; the driver gives what it can spare.
 */
import {
  DeviceType,
  type DmaRegion,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type Request,
  type RequestQueue,
  requireInteger,
  type SpinOptions,
  type Transport,
} from '@virtio/core';
import {
  BALLOON_PAGE,
  BalloonConfig,
  type BalloonFeature,
  BalloonFeatures,
  DEFLATE,
  INFLATE,
  PFN_SIZE,
} from './protocol.ts';

/** The events of {@link VirtioBalloon}. */
export interface BalloonEvents extends DriverEvents {
  /** The device would like to have so many pages now. */
  target: number;
}

/** The most pages that one request gives or takes. */
const BATCH = 256;

export class VirtioBalloon extends Driver<BalloonFeature, BalloonEvents> {
  readonly #inflate: RequestQueue<undefined>;
  readonly #deflate: RequestQueue<undefined>;
  /** The pages that the device has. */
  readonly #given: DmaRegion[] = [];

  constructor(transport: Transport, hal: Hal, options: DriverOptions = {}) {
    const spec = {
      deviceType: DeviceType.MemoryBallooning,
      table: BalloonFeatures,
      supported: ['MUST_TELL_HOST'],
    } as const;
    super(transport, hal, spec, options);
    const [inflate, deflate] = this.setUp(() => [
      this.createRequestQueue<undefined>({ index: INFLATE, size: 16 }),
      this.createRequestQueue<undefined>({ index: DEFLATE, size: 16 }),
    ]);
    this.#inflate = inflate;
    this.#deflate = deflate;
    this.start();
  }

  /** How many pages of 4096 bytes the device would like to have. */
  get target(): number {
    return this.transport.readConfigSpace(BalloonConfig.fields.numPages);
  }

  /** How many pages it has. */
  get actual(): number {
    return this.#given.length;
  }

  /**
   * Gives pages to the device, or takes them back, until it has `pages`, and spins meanwhile.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR` if the guest has no more memory, `NOT_READY` after `timeoutMs`, or why
   * the device no longer works
   */
  resizeSync(pages: number, options?: SpinOptions): void {
    requireInteger(this.transport, 'pages', pages, 0, 2 ** 32 - 1);
    while (this.actual < pages) this.#give(Math.min(BATCH, pages - this.actual), options);
    while (this.actual > pages) this.#take(Math.min(BATCH, this.actual - pages), options);
  }

  #give(count: number, options?: SpinOptions): void {
    const regions: DmaRegion[] = [];
    try {
      while (regions.length < count) regions.push(this.hal.dmaAlloc(1, 'both', false));
      this.#inflate.requestSync(this.#request(this.#inflate, regions), options);
    } catch (error) {
      // The device may have the pages all the same, where it answers too late: then they are lost, and not used twice.
      if (this.#inflate.inFlight === 0) for (const region of regions) this.hal.dmaDealloc(region, false);
      throw error;
    }
    this.#given.push(...regions);
    this.#report();
  }

  #take(count: number, options?: SpinOptions): void {
    const regions = this.#given.slice(-count);
    // With MUST_TELL_HOST the device must have answered before a page is used; it does no harm without [5.5.6.1].
    this.#deflate.requestSync(this.#request(this.#deflate, regions), options);
    this.#given.length -= count;
    for (const region of regions) this.hal.dmaDealloc(region, false);
    this.#report();
  }

  /** A request is an array of page frame numbers, which the device only reads [5.5.6]. */
  #request(queue: RequestQueue<undefined>, regions: readonly DmaRegion[]): Request<undefined> {
    const list = new Uint8Array(regions.length * PFN_SIZE);
    const view = new DataView(list.buffer);
    for (const [index, { address }] of regions.entries()) {
      view.setUint32(index * PFN_SIZE, address / BALLOON_PAGE, true);
    }
    return { buffers: 1, fill: (slot) => queue.shareReadable(slot, list), result: () => undefined };
  }

  /** The driver says how many pages the device has [5.5.6.1]. */
  #report(): void {
    this.transport.writeConfigSpace(BalloonConfig.fields.actual, this.actual);
  }

  protected override onConfigChange(): void {
    this.emit('target', this.target);
  }

  /** A device that was reset has no page of ours [5.5.6.1]. */
  protected override onReset(): void {
    for (const region of this.#given.splice(0)) this.hal.dmaDealloc(region, false);
  }

  protected override onDispose(): void {
    for (const region of this.#given.splice(0)) this.hal.dmaDealloc(region, false);
  }
}
