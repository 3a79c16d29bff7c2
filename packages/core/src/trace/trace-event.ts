/** Options and events of a tracer, and a line of text for each event. */
import type { FeatureTable } from '../device/features.ts';

/** Options of {@link traceTransport}. */
export interface TraceOptions {
  /** Names the features in events (default: the device-independent ones only). */
  readonly features?: FeatureTable<string>;
  /** How many bytes of each buffer events carry (default 0). */
  readonly bytes?: number;
  /**
   * The names of registers: `pci` has those of `virtio_pci_common_cfg` [4.1.4.3], `mmio` those of MMIO [4.2.2], for legacy
   * devices [4.2.4]. The default is `mmio` for transports whose name begins with `MMIO`, and `pci` for all others.
   */
  readonly names?: 'pci' | 'mmio';
}

/** A buffer of a chain. */
export interface TracedBuffer {
  /** Its address for the device. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Whether the device writes it; otherwise it reads it. */
  readonly writable: boolean;
  /**
   * Its first bytes, if the option `bytes` is set: for a buffer that the device reads, when the chain is published; for one that
   * it writes, when the chain is used, if the buffer is in DMA memory of the driver. A buffer that is copied is reported later,
   * by an event `data`.
   */
  readonly bytes: Uint8Array | undefined;
}

/** Something that happened between a driver and its device. */
export type TraceEvent =
  /** A register was read or written. */
  | {
      readonly kind: 'register';
      readonly access: 'read' | 'write';
      /** The specification's name: `device_status`; for the configuration space `device-specific configuration`. */
      readonly register: string;
      /** What was read or written: a number, or a `bigint` for features. */
      readonly value: number | bigint;
      /** The value in words, if there are any: `ACKNOWLEDGE | DRIVER`. */
      readonly text?: string;
      /** The queue that the register belongs to. */
      readonly queue?: number;
      /** For the configuration space: the offset in bytes. */
      readonly offset?: number;
      /** For the configuration space: how many bytes. */
      readonly width?: 1 | 2 | 4;
    }
  /** The driver notified the device of new buffers. */
  | { readonly kind: 'notify'; readonly queue: number; readonly next: number }
  /** The device has interrupted: for a queue, or for its configuration (`undefined`). */
  | { readonly kind: 'interrupt'; readonly queue: number | undefined }
  /** A chain was made available to the device. */
  | {
      readonly kind: 'published';
      readonly queue: number;
      readonly token: number;
      readonly buffers: readonly TracedBuffer[];
    }
  /** The driver took a chain that the device has used. */
  | {
      readonly kind: 'used';
      readonly queue: number;
      readonly token: number;
      /** How many bytes the device says that it wrote. */
      readonly length: number;
      readonly buffers: readonly TracedBuffer[];
    }
  /** What the device wrote to a buffer of the driver's caller, when it was copied back. Only if the option `bytes` is set. */
  | { readonly kind: 'data'; readonly address: number; readonly length: number; readonly bytes: Uint8Array }
  /** A queue was emptied and given to the device again. */
  | { readonly kind: 'queueReset'; readonly queue: number };

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/**
 * An event as a line for people: `write device_status = 0x3 (ACKNOWLEDGE | DRIVER)`, `queue 0: published 5: 16 bytes >, 513 bytes <`. `>` marks
 * what the device reads, `<` what it writes.
 */
export function formatTraceEvent(event: TraceEvent): string {
  switch (event.kind) {
    case 'register': {
      const { access, register, queue, offset, width, value, text } = event;
      const at = offset === undefined ? '' : `+${offset}:${width ?? 1}`;
      const of = queue === undefined ? '' : `[${queue}]`;
      return `${access.padEnd(5)} ${register}${of}${at} = ${hex(value)}${text === undefined ? '' : ` (${text})`}`;
    }
    case 'notify':
      return `notify queue ${event.queue}`;
    case 'interrupt':
      return event.queue === undefined
        ? 'interrupt: configuration changed'
        : `interrupt of queue ${event.queue}`;
    case 'published':
      return `queue ${event.queue}: published ${event.token}: ${event.buffers.map(formatBuffer).join(', ')}`;
    case 'used':
      return (
        `queue ${event.queue}: used ${event.token}, ${event.length} bytes written` +
        event.buffers
          .filter(({ bytes }) => bytes !== undefined)
          .map((buffer) => `, ${formatBuffer(buffer)}`)
          .join('')
      );
    case 'data':
      return `data at ${hex(event.address)}: ${formatBuffer({ ...event, writable: true })}`;
    case 'queueReset':
      return `queue ${event.queue}: emptied and given to the device again`;
  }
}

function formatBuffer({ length, writable, bytes }: TracedBuffer): string {
  const dump =
    bytes === undefined
      ? ''
      : ` ${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
  return `${length} bytes ${writable ? '<' : '>'}${dump}${bytes !== undefined && bytes.length < length ? ' …' : ''}`;
}
