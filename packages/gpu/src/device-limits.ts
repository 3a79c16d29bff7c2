/** What the configuration space of a device says, as far as it makes sense. A reset may change it. */
import type { SharedMemory, Transport } from '@virtio/core';
import { Blobs } from './blobs.ts';
import type { CommandLimits } from './command.ts';
import { GpuConfig, type GpuFeatureName, HOST_VISIBLE_REGION, MAX_SCANOUTS } from './protocol.ts';

/** What {@link DeviceLimits} need from the driver. */
export interface DeviceLimitsParts {
  readonly transport: Transport;
  /** Whether a feature was negotiated. */
  readonly has: (feature: GpuFeatureName) => boolean;
  /** Reports a value that makes no sense. */
  readonly quirk: (message: string) => void;
}

/** The limits of a device. */
export class DeviceLimits implements CommandLimits {
  scanouts = 0;
  capsets = 0;
  blobAlignment = 1;
  hostVisible: SharedMemory | undefined;
  readonly blobs: Blobs = new Blobs();
  readonly has: (feature: GpuFeatureName) => boolean;

  readonly #transport: Transport;
  readonly #quirk: (message: string) => void;

  constructor({ transport, has, quirk }: DeviceLimitsParts) {
    this.#transport = transport;
    this.has = has;
    this.#quirk = quirk;
  }

  get hostVisibleLength(): number {
    return this.hostVisible?.length ?? 0;
  }

  who(): string {
    return this.#transport.who();
  }

  /** Reads the configuration. */
  read(): void {
    const transport = this.#transport;
    const { fields } = GpuConfig;
    const scanouts = transport.readConfigSpace(fields.numScanouts);
    this.scanouts = Math.min(scanouts, MAX_SCANOUTS);
    if (scanouts > MAX_SCANOUTS) {
      this.#quirk(`reports ${scanouts} scanouts; ${MAX_SCANOUTS} is the maximum, and is used`);
    }
    this.capsets = this.has('VIRGL') ? transport.readConfigSpace(fields.numCapsets) : 0;
    this.blobAlignment = 1;
    if (this.has('BLOB_ALIGNMENT')) {
      const alignment = transport.readConfigSpace(fields.blobAlignment);
      if (Number.isInteger(Math.log2(alignment))) this.blobAlignment = alignment;
      else {
        this.#quirk(`reports a blob alignment of ${alignment} bytes, which is not a power of two; 1 is used`);
      }
    }
    this.hostVisible = transport.sharedMemory(HOST_VISIBLE_REGION);
  }
}
