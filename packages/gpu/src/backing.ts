/**
 * The guest's memory behind a resource: one piece if the platform has one of that size, several if not. Pieces are whole pages,
 * and the device sees their bytes one after the other.
 *
 * With several pieces, pixels are drawn in ordinary memory and copied to the pieces by a flush, so that a picture is one array in any
 * case.
 */
import { type DmaRegion, type Hal, PAGE_SIZE, VirtioError } from '@virtio/core';
import type { MemoryEntry } from './command.ts';

/** The backing memory of a resource. */
export class Backing {
  /** The memory to draw into. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The pieces, as entries of RESOURCE_ATTACH_BACKING. */
  readonly entries: readonly MemoryEntry[];

  readonly #hal: Hal;
  readonly #accessPlatform: boolean;
  readonly #regions: readonly DmaRegion[];
  /** The size of each piece but the last, in bytes. */
  readonly #pieceSize: number;
  #freed = false;

  private constructor(
    hal: Hal,
    accessPlatform: boolean,
    size: number,
    regions: readonly DmaRegion[],
    pieceSize: number,
  ) {
    this.#hal = hal;
    this.#accessPlatform = accessPlatform;
    this.#regions = regions;
    this.#pieceSize = pieceSize;
    const [first] = regions;
    this.bytes =
      regions.length === 1 && first !== undefined ? first.bytes.subarray(0, size) : new Uint8Array(size);
    this.entries = regions.map(({ address }, n) => ({
      address,
      length: Math.min(pieceSize, size - n * pieceSize),
    }));
  }

  /**
   * Allocates memory.
   *
   * @param size bytes
   * @param maxPiece the largest size of one piece in bytes: a multiple of {@link PAGE_SIZE}
   * @throws {@link VirtioError} `DMA_ERROR` if there is not enough, even page by page
   */
  static allocate(hal: Hal, size: number, accessPlatform: boolean, maxPiece: number): Backing {
    const pages = Math.ceil(size / PAGE_SIZE);
    let piece = Math.min(pages, maxPiece / PAGE_SIZE);
    for (;;) {
      try {
        const regions = allocatePieces(hal, pages, piece, accessPlatform);
        return new Backing(hal, accessPlatform, size, regions, piece * PAGE_SIZE);
      } catch (error) {
        if (!VirtioError.is(error, 'DMA_ERROR') || piece === 1) throw error;
        // Fragmented memory has smaller pieces, if it has any.
        piece = Math.ceil(piece / 2);
      }
    }
  }

  /** Whether {@link Backing.bytes} is the memory that the device sees, so that nothing has to be copied. */
  get direct(): boolean {
    return this.#regions.length === 1;
  }

  /** Whether the memory was given back: it may be another's by now. */
  get isFree(): boolean {
    return this.#freed;
  }

  /** Copies bytes to the memory that the device sees. */
  publish(from: number, length: number): void {
    const size = this.#pieceSize;
    const end = from + length;
    for (let at = from; at < end;) {
      const n = Math.floor(at / size);
      const to = Math.min(end, (n + 1) * size);
      (this.#regions[n] as DmaRegion).bytes.set(this.bytes.subarray(at, to), at - n * size);
      at = to;
    }
  }

  /** Gives the memory back. The device must no longer use it. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    for (const region of this.#regions) this.#hal.dmaDealloc(region, this.#accessPlatform);
  }
}

function allocatePieces(hal: Hal, pages: number, piece: number, accessPlatform: boolean): DmaRegion[] {
  const regions: DmaRegion[] = [];
  try {
    for (let done = 0; done < pages; done += piece) {
      regions.push(hal.dmaAlloc(Math.min(piece, pages - done), 'driver-to-device', accessPlatform));
    }
    return regions;
  } catch (error) {
    for (const region of regions) hal.dmaDealloc(region, accessPlatform);
    throw error;
  }
}
