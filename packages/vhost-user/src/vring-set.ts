/**
 * The vrings of a device: what the driver set up, sent to a back end when the driver sets DRIVER_OK, and again to the next back
 * end; and taken back when it has finished the requests that it took.
 */
import { readSync } from 'node:fs';
import { DeviceType, type QueueSignals, VirtioError } from '@virtio/core';
import { closeDescriptor } from '@virtio/linux';
import type { EventPoller } from '@virtio/linux';
import type { InflightRecord } from './answers.ts';
import type { Pending } from './channel.ts';
import type { VhostMemory } from './memory.ts';
import { encode, Inflight, InflightPacked, PROTOCOL_FEATURES_BIT } from './protocol.ts';
import type { Session } from './session.ts';
import { Vring, VringLines, type VringPlace, type VringSignals } from './vring.ts';

/** A packed vring begins at 0 with both wrap counters set: the driver's in the lower half, the device's in the upper one. */
const PACKED_START = 0x80008000;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/**
 * The first queue whose buffers are all requests that the device answers by itself. A reset waits for these, as libvhost-user, once
 * asked to stop, fails at the next completion and goes on writing to buffers. It cannot wait for receive buffers.
 */
const REQUEST_QUEUES: Readonly<Partial<Record<DeviceType, number>>> = {
  [DeviceType.Block]: 0,
  [DeviceType.FileSystem]: 0,
  [DeviceType.P9]: 0,
  [DeviceType.Crypto]: 0,
  [DeviceType.Gpu]: 0,
  [DeviceType.I2cAdapter]: 0,
  [DeviceType.ScsiHost]: 2,
};

/** What a {@link VringSet} needs of its transport. */
export interface VringSetOptions {
  readonly who: string;
  readonly deviceType: DeviceType;
  readonly poller: EventPoller;
  readonly memory: VhostMemory;
  readonly timeoutMs: number;
}

/** How vrings are taken back from a back end. */
export interface StopOptions {
  readonly packed: boolean;
  /** Whether to wait for requests first: after an error the back end may never finish them. */
  readonly finish: boolean;
}

/** The vrings of a device. */
export class VringSet {
  readonly #options: VringSetOptions;
  readonly #vrings = new Map<number, Vring>();
  /** By queue. They stay when the queue is set up again. */
  readonly #lines = new Map<number, VringLines>();
  #record: InflightRecord | undefined;

  constructor(options: VringSetOptions) {
    this.#options = options;
  }

  /** Whether there is a record of requests in flight, from which a back end goes on. */
  get hasRecord(): boolean {
    return this.#record !== undefined;
  }

  /** Sets a vring up, in place of the one that the queue had. */
  add(place: VringPlace, signals: VringSignals): void {
    const { index } = place;
    this.delete(index);
    const lines = this.#lines.get(index) ?? new VringLines();
    this.#lines.set(index, lines);
    this.#vrings.set(index, new Vring(place, this.#options.poller, lines, signals));
  }

  /** Removes the vring of a queue, which the back end does not have. */
  delete(index: number): void {
    this.#vrings.get(index)?.[Symbol.dispose]();
    this.#vrings.delete(index);
  }

  has(index: number): boolean {
    return this.#vrings.has(index);
  }

  /** Kicks one vring. */
  kick(index: number): void {
    this.#vrings.get(index)?.kick();
  }

  /** Kicks all vrings. */
  kickAll(): void {
    for (const vring of this.#vrings.values()) vring.kick();
  }

  /** What another thread needs to drive a queue; `undefined` if it is not set up. */
  lend(index: number): QueueSignals | undefined {
    return this.#vrings.get(index)?.lend();
  }

  /** Asks a back end for memory in which it records requests in flight. */
  askRecord(session: Session): Pending<InflightRecord | undefined> {
    const { queues, queueSize } = this.#extent;
    return session.askInflight(queues, queueSize);
  }

  /** Keeps the record that {@link VringSet.askRecord} returned. */
  keepRecord(record: InflightRecord | undefined): void {
    this.#record = record;
  }

  /**
   * Sends all vrings to a back end, with the memory and the record of requests in flight.
   *
   * @param resumed whether another back end has served the vrings before
   */
  tell(session: Session, packed: boolean, resumed: boolean): void {
    const { memory } = this.#options;
    if (this.#record !== undefined) {
      const { mmapSize, mmapOffset, fd } = this.#record;
      session.tell('SET_INFLIGHT_FD', encode(Inflight, { mmapSize, mmapOffset, ...this.#extent }), [fd]);
    }
    session.tellMemory(memory.regions);
    session.live = true;
    const vrings = [...this.#vrings.values()];
    for (const vring of vrings) vring.tell(session, this.#base(vring, packed, resumed));
    if ((session.features & PROTOCOL_FEATURES_BIT) !== 0n) {
      for (const vring of vrings) vring.enable(session);
    }
  }

  /**
   * Takes the vrings back from a back end, synchronously, when it has finished the requests that it took.
   *
   * @throws {@link VirtioError} `NOT_READY` if it does not finish in time, or the reason why the connection was lost
   */
  stop(session: Session, { packed, finish }: StopOptions): void {
    const vrings = [...this.#vrings.values()];
    if (finish) {
      const first = REQUEST_QUEUES[this.#options.deviceType] ?? Infinity;
      const requests = vrings.filter(({ place }) => place.index >= first);
      for (const vring of requests) vring.kick();
      for (const vring of requests) {
        this.#drain(session, vring, () => {
          const left = this.#unused(vring, packed);
          // A thread that has just published, and hears of the reset before it has notified, no longer does.
          if (left > 0) vring.kick();
          return left;
        });
      }
    }
    const bases = session.stopVrings(vrings.map(({ place }) => place.index));
    session.live = false;
    if (packed) return;
    // The base is where it would go on: chains before it were taken, and may still be written to.
    vrings.forEach((vring, i) => this.#drain(session, vring, () => this.#unusedTo(vring, bases[i])));
  }

  /** Removes all vrings and the record. */
  clear(): void {
    for (const vring of this.#vrings.values()) vring[Symbol.dispose]();
    this.#vrings.clear();
    if (this.#record !== undefined) closeDescriptor(this.#record.fd);
    this.#record = undefined;
  }

  [Symbol.dispose](): void {
    this.clear();
    for (const lines of this.#lines.values()) lines[Symbol.dispose]();
    this.#lines.clear();
  }

  /** The number of queues, and the size of the largest. */
  get #extent(): { readonly queues: number; readonly queueSize: number } {
    let [queues, queueSize] = [0, 0];
    for (const { place } of this.#vrings.values()) {
      queues = Math.max(queues, place.index + 1);
      queueSize = Math.max(queueSize, place.size);
    }
    return { queues, queueSize };
  }

  /** Where a back end begins with a vring. */
  #base({ place }: Vring, packed: boolean, resumed: boolean): number {
    if (!resumed) return packed ? PACKED_START : 0;
    if (packed) return this.#packedBase(place.index);
    // It takes requests in flight from its record, and goes on after them.
    return this.#ringIndex(place.deviceArea) ?? 0;
  }

  /** A packed ring does not show how far the device has used it; the record of requests in flight does. */
  #packedBase(index: number): number {
    const record = this.#record;
    if (record === undefined) return PACKED_START;
    const at = Number(record.mmapOffset) + index * Math.floor(Number(record.mmapSize) / this.#extent.queues);
    const bytes = new Uint8Array(InflightPacked.size);
    // Read, not mapped: the file is the back end's, and may be cut short at any time.
    readSync(record.fd, bytes, 0, bytes.length, at);
    const { version, oldUsedIndex, oldUsedWrapCounter } = InflightPacked.read(new DataView(bytes.buffer));
    // No back end has used it yet.
    if (version === 0) return PACKED_START;
    const half = (oldUsedIndex & 0x7fff) | (oldUsedWrapCounter === 0 ? 0 : 0x8000);
    return half * 65536 + half;
  }

  /** The index of a split ring, available or used. */
  #ringIndex(area: number): number | undefined {
    const ring = this.#options.memory.at(area, 4);
    return ring && Atomics.load(new Uint16Array(ring.buffer, ring.byteOffset, 2), 1);
  }

  /** How many chains the back end has not used. A packed vring that another thread drives does not show it here. */
  #unused(vring: Vring, packed: boolean): number {
    if (!packed) return this.#unusedTo(vring, this.#ringIndex(vring.place.driverArea));
    return vring.lent ? 0 : vring.place.unused();
  }

  /** How many chains of a split vring are not used, up to an index of its available ring. */
  #unusedTo({ place: { deviceArea, size } }: Vring, index: number | undefined): number {
    const used = this.#ringIndex(deviceArea);
    if (used === undefined || index === undefined) return 0;
    const left = (index - used) & 0xffff;
    // An impossible base gives nothing to wait for.
    return left > size ? 0 : left;
  }

  /** Waits synchronously until nothing of a vring is in flight. */
  #drain(session: Session, { place: { index } }: Vring, unused: () => number): void {
    const { who, timeoutMs } = this.#options;
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const left = unused();
      if (left === 0) return;
      session.pump();
      if (session.lost !== undefined) throw session.lost;
      if (performance.now() >= deadline) {
        throw new VirtioError(
          'NOT_READY',
          `${who} did not finish ${left} requests of queue ${index} within ${timeoutMs} ms before a reset; it hangs, and ` +
            'its connection is closed',
        );
      }
      Atomics.wait(sleeper, 0, 0, 1);
    }
  }
}
