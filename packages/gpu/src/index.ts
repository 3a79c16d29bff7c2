/**
 * The driver of VirtIO GPU devices: displays, cursors, resources and rendering contexts.
 *
 * @packageDocumentation
 */
export { Cursor, type CursorOptions, type CursorPosition } from './cursor.ts';
export type {
  FenceOptions,
  RequestOptions,
  RequestSyncOptions,
  SubmitCommandOptions,
} from './command-queue.ts';
export * as Command from './commands.ts';
export type { CapsetInfo } from './context-commands.ts';
export type { Display } from './display-commands.ts';
export type { GpuCommand, MemoryEntry, Rect } from './command.ts';
export * from './edid.ts';
export { Framebuffer, type FramebufferOptions, type RgbaImage } from './framebuffer.ts';
export { GpuError, type GpuErrorName } from './gpu-error.ts';
export { packPixel, PixelFormat, type PixelFormatNumber } from './pixel-format.ts';
export {
  BlobFlag,
  BlobMemory,
  Capset,
  CURSOR_SIZE,
  type GpuCommandName,
  GpuCommandType,
  GpuErrorType,
  GpuFeature,
  type GpuFeatureName,
  GpuFeatures,
  type GpuFeatureSet,
  MapCache,
  MAX_SCANOUTS,
  RESOURCE_FLAG_Y_0_TOP,
} from './protocol.ts';
export * from './virtio-gpu.ts';
