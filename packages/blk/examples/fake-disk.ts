/**
 * A disk in memory, on the fakes of `@virtio/testing`: what the tests of the driver play against, and an example of how to
 * play a device. It knows nothing of the driver but the specification.
 */
import { DeviceType } from '@virtio/core';
import {
  type Chain,
  FakeDevice,
  type FakeHal,
  FakeTransport,
  type FakeTransportOptions,
} from '@virtio/testing';
import { BlkConfigLayout, BlkFeatures, type BlkFeatureName, type BlkOptions, VirtioBlk } from '@virtio/blk';

/** The values of the configuration space that a test sets; all others are 0. */
export type DiskConfig = Parameters<typeof BlkConfigLayout.write>[2];

/** What a {@link FakeDisk} is. */
export interface FakeDiskOptions {
  /** The size in sectors of 512 bytes (default 256). */
  readonly sectors?: number;
  /** The block device's features that it offers. */
  readonly features?: readonly BlkFeatureName[];
  /** The features of its rings. */
  readonly ring?: bigint;
  readonly config?: DiskConfig;
  /** The largest size of each queue (default one of 64). */
  readonly queues?: readonly number[];
  readonly legacy?: boolean;
  /** Whether it says how many segments a request can have (default true: 254, if `config` says nothing else). */
  readonly segMax?: false;
  /** The platform below the driver (default a new one). */
  readonly hal?: FakeHal;
}

/** A request as the disk sees it. */
export interface DiskRequest {
  readonly queue: number;
  readonly type: number;
  readonly reserved: number;
  readonly sector: number;
  /** What the driver sent behind the header. */
  readonly data: Uint8Array;
  readonly chain: Chain;
}

const T = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
};
const OK = 0;
const IOERR = 1;
const UNSUPP = 2;

/** What sectors read as after a discard and after a secure erase. */
export const DISCARDED = 0xdd;
export const ERASED = 0xee;

/** A disk in memory. */
export class FakeDisk {
  readonly device: FakeDevice;
  /** What is on it. */
  readonly bytes: Uint8Array;
  /** All requests so far. */
  readonly requests: DiskRequest[] = [];
  id = 'fake-disk';
  lifetime = [1, 3, 11];
  /** Answers a request instead of the disk: a status, or undefined to let the disk answer. */
  answer: ((request: DiskRequest) => number | undefined) | undefined;
  /** The requests that were deferred by `holdBack`. */
  readonly held: DiskRequest[] = [];
  /** Whether requests wait until {@link FakeDisk.release}. */
  holdBack = false;

  constructor(options: FakeDiskOptions = {}) {
    const { sectors = 256, features = [], ring = 0n, config = {}, queues = [64], legacy = false } = options;
    const view = new DataView(new ArrayBuffer(BlkConfigLayout.size));
    BlkConfigLayout.write(view, 0, {
      capacity: BigInt(sectors),
      blkSize: 512,
      numQueues: queues.length,
      segMax: 254,
      ...config,
    });
    this.bytes = new Uint8Array(Math.min(sectors, 1 << 16) * 512);
    this.device = new FakeDevice({
      type: DeviceType.Block,
      features:
        BlkFeatures.set(...features, ...(options.segMax === false ? [] : (['SEG_MAX'] as const))).bits | ring,
      config: new Uint8Array(view.buffer),
      queues,
      legacy,
      ...(options.hal && { hal: options.hal }),
    });
    queues.forEach((_, queue) => this.device.handle(queue, (chain) => this.#take(queue, chain)));
  }

  /** Completes requests that were held back, in this order (default: all, oldest first). */
  release(requests: readonly DiskRequest[] = [...this.held]): void {
    for (const request of requests) {
      this.held.splice(this.held.indexOf(request), 1);
      this.carryOut(request);
      request.chain.complete();
    }
  }

  /** Does what a request asks for and writes its status. */
  carryOut(request: DiskRequest): void {
    const { chain } = request;
    const status = this.answer?.(request) ?? this.#do(request);
    chain.writeAt(chain.writable - 1, [status]);
  }

  #take(queue: number, chain: Chain): void {
    const header = chain.read(16);
    const view = new DataView(header.buffer);
    const request = {
      queue,
      type: view.getUint32(0, true),
      reserved: view.getUint32(4, true),
      sector: Number(view.getBigUint64(8, true)),
      data: chain.read(),
      chain,
    };
    this.requests.push(request);
    if (this.holdBack) {
      this.held.push(request);
      chain.defer();
    } else {
      this.carryOut(request);
    }
  }

  #do({ type, sector, data, chain }: DiskRequest): number {
    const at = sector * 512;
    switch (type) {
      case T.IN:
        if (at + chain.writable - 1 > this.bytes.length) return IOERR;
        chain.write(this.bytes.subarray(at, at + chain.writable - 1));
        return OK;
      case T.OUT:
        if (at + data.length > this.bytes.length) return IOERR;
        this.bytes.set(data, at);
        return OK;
      case T.FLUSH:
        return OK;
      case T.GET_ID:
        chain.write(Uint8Array.from({ length: 20 }, (_, i) => this.id.charCodeAt(i) || 0));
        return OK;
      case T.GET_LIFETIME:
        chain.write(new Uint8Array(Uint16Array.from(this.lifetime).buffer));
        return OK;
      case T.DISCARD:
        return this.#fill(data, DISCARDED);
      case T.WRITE_ZEROES:
        return this.#fill(data, 0);
      case T.SECURE_ERASE:
        return this.#fill(data, ERASED);
      default:
        return UNSUPP;
    }
  }

  #fill(data: Uint8Array, value: number): number {
    for (const { sector, sectors } of segments(data)) {
      this.bytes.fill(value, sector * 512, (sector + sectors) * 512);
    }
    return OK;
  }
}

/** The segments of a discard, write-zeroes or secure-erase request. */
export function segments(data: Uint8Array): { sector: number; sectors: number; flags: number }[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  return Array.from({ length: data.length / 16 }, (_, i) => ({
    sector: Number(view.getBigUint64(i * 16, true)),
    sectors: view.getUint32(i * 16 + 8, true),
    flags: view.getUint32(i * 16 + 12, true),
  }));
}

/** A disk with a driver on it. */
export interface OpenDisk {
  readonly disk: FakeDisk;
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly blk: VirtioBlk;
}

/** Makes a disk and opens it. */
export function openFakeDisk(
  options: FakeDiskOptions &
    FakeTransportOptions & {
      readonly driver?: BlkOptions;
      /** Called before the driver is made. */
      readonly prepare?: (disk: FakeDisk) => void;
    } = {},
): OpenDisk {
  const disk = new FakeDisk(options);
  options.prepare?.(disk);
  const transport = new FakeTransport(disk.device, options);
  const blk = new VirtioBlk(transport, disk.device.hal, options.driver);
  return { disk, device: disk.device, transport, blk };
}

/** Bytes that differ from sector to sector. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 9) * 13 + seed * 31) & 0xff);
}
