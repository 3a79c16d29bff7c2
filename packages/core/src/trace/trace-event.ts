/** What a tracer is asked for and tells: options, events, and a line of text for each event. */
import type { FeatureTable } from '../device/features.ts';

/** Options of {@link traceTransport}. */
export interface TraceOptions {
  /** Names the features in events (default: the device-independent ones only). */
  readonly features?: FeatureTable<string>;
  /** How many bytes of each buffer events carry (default 0). */
  readonly bytes?: number;
  /**
   * The names of registers: `pci` has those of `virtio_pci_common_cfg` [4.1.4.3], `mmio` those of MMIO [4.2.2], or [4.2.4] of a legacy device. Default: those of MMIO for
   * transports whose name begins with `MMIO`, of PCI for all others.
   */
  readonly names?: 'pci' | 'mmio';
}

/** A buffer of a chain. */
export interface TracedBuffer {
  /** Where the device finds it. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Whether the device writes it; otherwise it reads it. */
  readonly writable: boolean;
  /**
   * Its first bytes, if `bytes` was asked for: of one that the device reads when the chain is published, of the others when it is used, if
   * they lie in DMA memory of the driver. What is copied comes later, as an event `data`.
   */
  readonly bytes: Uint8Array | undefined;
}

/** Something that happened between a driver and its device. */
export type TraceEvent =
  /** A register was read or written. */
  | {
      readonly kind: 'register';
      readonly access: 'read' | 'write';
      /** The specification's name: `device_status`; of the configuration space `device-specific configuration`. */
      readonly register: string;
      /** What was read or written: a number, or a `bigint` for features. */
      readonly value: number | bigint;
      /** The value in words, where it has some: `ACKNOWLEDGE | DRIVER`. */
      readonly text?: string;
      /** The queue that the register belongs to. */
      readonly queue?: number;
      /** Of the configuration space: where in it, in bytes. */
      readonly offset?: number;
      /** Of the configuration space: how many bytes. */
      readonly width?: 1 | 2 | 4;
    }
  /** The device was notified of new buffers. */
  | { readonly kind: 'notify'; readonly queue: number; readonly next: number }
  /** The device has interrupted: for a queue, or for its configuration (`undefined`). */
  | { readonly kind: 'interrupt'; readonly queue: number | undefined }
  /** A chain became visible to the device. */
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
  /** What the device wrote to a buffer of the driver's caller, when that had it back. Only if `bytes` was asked for. */
  | { readonly kind: 'data'; readonly address: number; readonly length: number; readonly bytes: Uint8Array }
  /** A queue was emptied, and given to the device anew. */
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
      return `queue ${event.queue}: empty, and with the device anew`;
  }
}

function formatBuffer({ length, writable, bytes }: TracedBuffer): string {
  const dump =
    bytes === undefined
      ? ''
      : ` ${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
  return `${length} bytes ${writable ? '<' : '>'}${dump}${bytes !== undefined && bytes.length < length ? ' …' : ''}`;
}
