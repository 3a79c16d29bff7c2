/** A platform that knows which memory is at an address of the device, so that the bytes of buffers can be reported. */
import type { BufferDirection, DmaRegion, Hal } from '../memory/hal.ts';
import type { RegisterWindow } from '../memory/registers.ts';
import type { PostingHal } from '../threads/queue-plan.ts';
import type { TraceEvent } from './trace-event.ts';

/** A Hal that remembers which memory is at which address. It can post memory if the one below can. */
export class TracedHal implements Hal {
  readonly #hal: Hal;
  /** By the address of the first byte. */
  readonly #regions = new Map<number, Uint8Array>();
  readonly #shared = new Map<number, Uint8Array>();
  readonly #tell: (event: TraceEvent) => void;
  readonly #most: number;
  readonly post: PostingHal['post'] | undefined;

  /** @param most how many bytes of a buffer are reported */
  constructor(hal: Hal, tell: (event: TraceEvent) => void, most: number) {
    this.#hal = hal;
    const { post } = hal as Partial<PostingHal>;
    this.post = post?.bind(hal);
    this.#tell = tell;
    this.#most = most;
  }

  dmaAlloc(pages: number, direction: BufferDirection, accessPlatform: boolean): DmaRegion {
    const region = this.#hal.dmaAlloc(pages, direction, accessPlatform);
    this.#regions.set(region.address, region.bytes);
    return region;
  }

  dmaDealloc(region: DmaRegion, accessPlatform: boolean): void {
    this.#regions.delete(region.address);
    this.#hal.dmaDealloc(region, accessPlatform);
  }

  mapRegisters(address: number, size: number): RegisterWindow {
    return this.#hal.mapRegisters(address, size);
  }

  share(buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): number {
    const address = this.#hal.share(buffer, direction, accessPlatform);
    this.#shared.set(address, buffer);
    return address;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): void {
    this.#shared.delete(address);
    this.#hal.unshare(address, buffer, direction, accessPlatform);
    const { length } = buffer;
    // Empty if its caller has transferred it meanwhile.
    if (direction !== 'driver-to-device' && this.#most > 0 && length > 0) {
      this.#tell({ kind: 'data', address, length, bytes: Uint8Array.from(buffer.subarray(0, this.#most)) });
    }
  }

  /** A copy of bytes that the device reads. */
  readable(address: number, length: number): Uint8Array | undefined {
    return this.#copy(this.#shared, address, length) ?? this.#copy(this.#regions, address, length);
  }

  /** A copy of bytes that the device wrote, unless they are in a buffer that is not copied back yet. */
  written(address: number, length: number): Uint8Array | undefined {
    return this.#copy(this.#regions, address, length);
  }

  #copy(memory: ReadonlyMap<number, Uint8Array>, address: number, length: number): Uint8Array | undefined {
    if (length === 0 || this.#most === 0) return undefined;
    for (const [start, bytes] of memory) {
      const at = address - start;
      if (at >= 0 && at < bytes.length) {
        return Uint8Array.from(bytes.subarray(at, at + Math.min(length, this.#most)));
      }
    }
    return undefined;
  }
}
