/**
 * Zoned disks: zones are written from start to end and reset as a whole. The driver keeps no state of the zones: a report asks the
 * device, and the device refuses requests that are not allowed.
 */
import { requireInteger, VirtioError } from '@virtio/core';
import type { ZonedCharacteristics } from './config.ts';
import type { Command, Dispatcher, NonBlockingOptions, RequestOptions, SyncOptions } from './dispatcher.ts';
import type { BlkData } from './blk-queue.ts';
import { shown } from './ranges.ts';
import { RequestType, SECTOR_SIZE, ZoneDescriptor, ZoneReport } from './protocol.ts';
import type { VirtioBlk } from './virtio-blk.ts';
import type { ZoneHost } from './zone-host.ts';

const ZONE_TYPES: Readonly<Record<number, Zone['type']>> = {
  1: 'conventional',
  2: 'sequential-write-required',
  3: 'sequential-write-preferred',
};

const ZONE_STATES: Readonly<Record<number, Zone['state']>> = {
  0: 'not-write-pointer',
  1: 'empty',
  2: 'implicitly-open',
  3: 'explicitly-open',
  4: 'closed',
  13: 'read-only',
  14: 'full',
  15: 'offline',
};

/** A zone as the device reports it. */
export interface Zone {
  /** Its first sector, in units of 512 bytes. */
  readonly start: number;
  /** The number of its sectors that can be written. */
  readonly capacity: number;
  /** The sector to write next; undefined if the zone is conventional, read-only, full or offline. */
  readonly writePointer: number | undefined;
  /** Where it can be written: anywhere, only at the write pointer, or preferably there. */
  readonly type: 'conventional' | 'sequential-write-required' | 'sequential-write-preferred';
  /** Its state; `not-write-pointer` for a conventional zone. */
  readonly state:
    | 'not-write-pointer'
    | 'empty'
    | 'implicitly-open'
    | 'explicitly-open'
    | 'closed'
    | 'read-only'
    | 'full'
    | 'offline';
}

const NO_DATA: readonly Uint8Array[] = [];
const DEFAULT_REPORT = 64;

/**
 * The zones of a disk. All methods reject or throw like those of the driver; the message of an `IO_ERROR` has the device's status, e.g.
 * `ZONE_UNALIGNED_WP`. This is a separate class so that programs without zoned disks do not include it.
 *
 * @example
 * ```ts
 * import { BlkZones, type VirtioBlk } from '@virtio/blk';
 *
 * export async function firstEmptyZone(blk: VirtioBlk): Promise<number | undefined> {
 *   if (blk.config.zoned === undefined) return undefined;
 *   const zones = await new BlkZones(blk).report();
 *   return zones.find(({ state }) => state === 'empty')?.start;
 * }
 * ```
 * @see VIRTIO 1.4, 5.2.6
 */
export class BlkZones {
  readonly #host: ZoneHost;
  readonly #dispatcher: Dispatcher;

  /**
   * @param blk the driver of the disk, which may have several such objects
   * @throws {@link VirtioError} `UNSUPPORTED` if the disk is not zoned, i.e. if `blk.config.zoned` is undefined
   */
  constructor(blk: VirtioBlk) {
    const host = blk.zoneHost;
    this.#host = host;
    this.#dispatcher = host.dispatcher;
    if (host.config().zoned === undefined) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${host.who}: the disk is not zoned; read and write it with VirtioBlk alone`,
      );
    }
  }

  /** The characteristics of the disk. */
  get characteristics(): ZonedCharacteristics {
    const { zoned } = this.#host.config();
    if (zoned === undefined) throw this.#invalid('the disk is no longer zoned; open the device again');
    return zoned;
  }

  /** The number of zones. */
  get count(): number {
    return Math.ceil(this.#host.config().capacity / this.characteristics.zoneSectors);
  }

  /**
   * Asks for a report of zones.
   *
   * @param sector any sector of the first zone to report (default: the first zone of the disk)
   * @param most the maximum number of zones (default 64)
   * @throws {@link VirtioError} `INVALID_PARAM`; `DEVICE_MISBEHAVED` for an invalid report
   */
  report(sector = 0, most: number = DEFAULT_REPORT, options?: RequestOptions): Promise<Zone[]> {
    return this.#dispatcher.ask(() => this.#report(sector, most), options);
  }

  /** The synchronous form of {@link BlkZones.report}. */
  reportSync(sector = 0, most: number = DEFAULT_REPORT, options?: SyncOptions): Zone[] {
    return this.#dispatcher.askSync(this.#report(sector, most), options);
  }

  /** The non-blocking form of {@link BlkZones.report}; the driver polls and completes. */
  submitReport(sector = 0, most: number = DEFAULT_REPORT, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#report(sector, most), options);
  }

  /** Opens the zone that begins at `sector`. */
  open(sector: number, options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => this.#manage(RequestType.ZONE_OPEN, sector), options);
  }

  /** The synchronous form of {@link BlkZones.open}. */
  openSync(sector: number, options?: SyncOptions): void {
    this.#dispatcher.askSync(this.#manage(RequestType.ZONE_OPEN, sector), options);
  }

  /** The non-blocking form of {@link BlkZones.open}; the driver polls and completes. */
  submitOpen(sector: number, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#manage(RequestType.ZONE_OPEN, sector), options);
  }

  /** Closes the zone that begins at `sector`. */
  close(sector: number, options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => this.#manage(RequestType.ZONE_CLOSE, sector), options);
  }

  /** The synchronous form of {@link BlkZones.close}. */
  closeSync(sector: number, options?: SyncOptions): void {
    this.#dispatcher.askSync(this.#manage(RequestType.ZONE_CLOSE, sector), options);
  }

  /** The non-blocking form of {@link BlkZones.close}; the driver polls and completes. */
  submitClose(sector: number, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#manage(RequestType.ZONE_CLOSE, sector), options);
  }

  /** Fills the zone that begins at `sector`: nothing can be written to it until it is reset. */
  finish(sector: number, options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => this.#manage(RequestType.ZONE_FINISH, sector), options);
  }

  /** The synchronous form of {@link BlkZones.finish}. */
  finishSync(sector: number, options?: SyncOptions): void {
    this.#dispatcher.askSync(this.#manage(RequestType.ZONE_FINISH, sector), options);
  }

  /** The non-blocking form of {@link BlkZones.finish}; the driver polls and completes. */
  submitFinish(sector: number, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#manage(RequestType.ZONE_FINISH, sector), options);
  }

  /** Empties the zone that begins at `sector`. */
  reset(sector: number, options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => this.#manage(RequestType.ZONE_RESET, sector), options);
  }

  /** The synchronous form of {@link BlkZones.reset}. */
  resetSync(sector: number, options?: SyncOptions): void {
    this.#dispatcher.askSync(this.#manage(RequestType.ZONE_RESET, sector), options);
  }

  /** The non-blocking form of {@link BlkZones.reset}; the driver polls and completes. */
  submitReset(sector: number, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#manage(RequestType.ZONE_RESET, sector), options);
  }

  /** Empties all zones. */
  resetAll(options?: RequestOptions): Promise<void> {
    return this.#dispatcher.ask(() => this.#manage(RequestType.ZONE_RESET_ALL, 0), options);
  }

  /** The synchronous form of {@link BlkZones.resetAll}. */
  resetAllSync(options?: SyncOptions): void {
    this.#dispatcher.askSync(this.#manage(RequestType.ZONE_RESET_ALL, 0), options);
  }

  /** The non-blocking form of {@link BlkZones.resetAll}; the driver polls and completes. */
  submitResetAll(options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#manage(RequestType.ZONE_RESET_ALL, 0), options);
  }

  /**
   * Appends to the zone that begins at `sector`: writes at its write pointer.
   *
   * @param data a multiple of the write granularity
   * @returns the sector at which the device wrote the data
   * @throws {@link VirtioError} `UNSUPPORTED` if the device cannot append
   */
  append(sector: number, data: BlkData, options?: RequestOptions): Promise<number> {
    return this.#dispatcher.ask(() => this.#append(sector, data), options);
  }

  /** The synchronous form of {@link BlkZones.append}. */
  appendSync(sector: number, data: BlkData, options?: SyncOptions): number {
    return this.#dispatcher.askSync(this.#append(sector, data), options);
  }

  /** The non-blocking form of {@link BlkZones.append}; the driver polls and completes. */
  submitAppend(sector: number, data: BlkData, options?: NonBlockingOptions): number {
    return this.#dispatcher.submit(this.#append(sector, data), options);
  }

  #manage(type: number, sector: number): Command<void> {
    this.#checkZone(sector);
    return { type, sector, data: NO_DATA, segments: 0 };
  }

  #append(sector: number, data: BlkData): Command<number> {
    const segments = this.#checkAppend(sector, data);
    const decode = (appendedAt: number): number => this.#checkAppended(sector, appendedAt);
    return { type: RequestType.ZONE_APPEND, sector, data, segments, decode };
  }

  #report(sector: number, most: number): Command<Zone[]> {
    const { who } = this.#host;
    const config = this.#host.config();
    requireInteger(who, 'sector', sector, 0, config.capacity - 1);
    requireInteger(who, 'most', most, 1, 65536);
    const data = new Uint8Array(ZoneReport.size + most * ZoneDescriptor.size);
    const segments = Math.max(1, Math.ceil(data.length / config.sizeMax));
    if (segments > this.#host.mostSegments()) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${who}: a report of ${most} zones is too long for one request; ask for fewer`,
      );
    }
    const decode = (): Zone[] => this.#decode(data, most);
    return { type: RequestType.ZONE_REPORT, sector, data, segments, decode };
  }

  #decode(data: Uint8Array, most: number): Zone[] {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const { nrZones } = ZoneReport.read(view);
    if (nrZones > BigInt(most)) {
      throw this.#misbehaved(`reported ${nrZones} zones when at most ${most} were asked for`);
    }
    const { zoneSectors } = this.characteristics;
    return Array.from({ length: Number(nrZones) }, (_, i) => {
      const zone = ZoneDescriptor.read(view, ZoneReport.size + i * ZoneDescriptor.size);
      const type = ZONE_TYPES[zone.zType];
      const state = ZONE_STATES[zone.zState];
      const start = Number(zone.zStart);
      if (type === undefined || state === undefined || start >= this.#host.config().capacity) {
        throw this.#misbehaved(
          `reported a zone of type ${zone.zType} in state ${zone.zState} at sector ${start}`,
        );
      }
      const none =
        state === 'not-write-pointer' || state === 'read-only' || state === 'full' || state === 'offline';
      const capacity = Number(zone.zCap);
      const writePointer = none ? undefined : Number(zone.zWp);
      const into = (writePointer ?? start) - start;
      if (start % zoneSectors !== 0 || capacity > zoneSectors || into < 0 || into > zoneSectors) {
        throw this.#misbehaved(
          `reported a zone at sector ${start} with ${capacity} sectors, to be written at sector ${zone.zWp}; zones have ${zoneSectors} sectors`,
        );
      }
      return {
        start,
        capacity,
        writePointer,
        type,
        state,
      };
    });
  }

  /** 5.2.6.1: the sector of a zone request is that of the zone. */
  #checkZone(sector: number): void {
    const { capacity } = this.#host.config();
    const { zoneSectors } = this.characteristics;
    if (!(Number.isSafeInteger(sector) && sector >= 0 && sector < capacity && sector % zoneSectors === 0)) {
      throw this.#invalid(
        `sector ${shown(sector)} is not the first one of a zone; zones have ${zoneSectors} sectors, and the disk has ${capacity}`,
      );
    }
  }

  #checkAppend(sector: number, data: BlkData): number {
    const { maxAppendSectors, writeGranularity } = this.characteristics;
    const { who } = this.#host;
    if (maxAppendSectors === 0) {
      throw new VirtioError('UNSUPPORTED', `${who} cannot append to zones; write at the write pointer`);
    }
    this.#checkZone(sector);
    const segments = this.#host.measure('ZONE_APPEND', sector, data);
    const bytes =
      data instanceof Uint8Array ? data.length : data.reduce((sum, { length }) => sum + length, 0);
    if (bytes % writeGranularity !== 0 || bytes > maxAppendSectors * SECTOR_SIZE) {
      throw this.#invalid(
        `cannot append ${bytes} bytes; give a multiple of ${writeGranularity}, up to ${maxAppendSectors * SECTOR_SIZE}`,
      );
    }
    return segments;
  }

  #checkAppended(sector: number, at: number): number {
    if (at >= sector && at < sector + this.characteristics.zoneSectors) return at;
    throw this.#misbehaved(
      `appended to the zone at sector ${sector}, but reported that the data is at sector ${at}`,
    );
  }

  #invalid(what: string): VirtioError {
    return new VirtioError('INVALID_PARAM', `${this.#host.who}: ${what}`);
  }

  #misbehaved(what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.#host.who}: the device ${what}; ask again, or reset the device`,
    );
  }
}
