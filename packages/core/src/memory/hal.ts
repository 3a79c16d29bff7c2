/**
 * What a driver needs of the platform below it: memory that the device can reach, and windows of its registers. An engine, a
 * unikernel or an operating system implements {@link Hal} once; all drivers run on it.
 */
import type { RegisterWindow } from './registers.ts';

/** The size of a page of DMA memory in bytes, and the alignment of every {@link DmaRegion}. */
export const PAGE_SIZE = 4096;

/** Who reads and who writes a piece of memory. */
export type BufferDirection = 'driver-to-device' | 'device-to-driver' | 'both';

/** DMA memory, which driver and device both access: contiguous for the device, page-aligned. */
export interface DmaRegion {
  /** The memory as the driver sees it. `bytes.byteOffset` is a multiple of 8. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The address of the first byte as the device sees it: a multiple of {@link PAGE_SIZE}, below 2^53. */
  readonly address: number;
  /** The size in pages of {@link PAGE_SIZE}. */
  readonly pages: number;
}

/** The platform below a driver. */
export interface Hal {
  /**
   * Allocates zeroed DMA memory that is contiguous for the device.
   *
   * @param pages how many pages of {@link PAGE_SIZE}
   * @param direction who writes it
   * @param accessPlatform whether `VIRTIO_F_ACCESS_PLATFORM` was negotiated: if not, the device uses physical addresses
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  dmaAlloc(pages: number, direction: BufferDirection, accessPlatform: boolean): DmaRegion;

  /**
   * Frees a region. The device must no longer use it. Views of it become empty where the platform can do that.
   *
   * @param accessPlatform as it was when the region was allocated
   */
  dmaDealloc(region: DmaRegion, accessPlatform: boolean): void;

  /**
   * Maps registers.
   *
   * @param address the physical address of the first register
   * @param size how many bytes
   */
  mapRegisters(address: number, size: number): RegisterWindow;

  /**
   * Makes a buffer accessible to the device until {@link Hal.unshare}, and returns its address for the device. A buffer in memory
   * of {@link Hal.dmaAlloc} is used as it is; any other is copied to memory that the device can reach, unless the device only
   * writes it.
   *
   * @param buffer at least one byte
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  share(buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): number;

  /**
   * Ends {@link Hal.share}. What the device wrote is in `buffer` afterwards.
   *
   * @param direction `driver-to-device` for a buffer that the device did not write, or whose contents are not needed because its
   * request failed: then nothing is copied
   */
  unshare(address: number, buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): void;
}
