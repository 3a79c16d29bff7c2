/** Events of the device: jacks, xruns, control elements. */
import { bitNames, ControlEventMask, SoundEvent } from './protocol.ts';

/**
 * An event of the device.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export type SoundNotification =
  /** Something was plugged into a jack, or pulled out. */
  | { readonly type: 'jack'; readonly jack: number; readonly connected: boolean }
  /** A period of a stream with shared memory has elapsed. */
  | { readonly type: 'period'; readonly stream: number }
  /** A stream ran out of periods: an underrun of an output, an overrun of an input. */
  | { readonly type: 'xrun'; readonly stream: number }
  /** A control element has changed. */
  | {
      readonly type: 'control';
      readonly control: number;
      readonly changed: readonly (keyof typeof ControlEventMask)[];
    };

/** The numbers of items, to check the numbers in events. */
export interface ItemCounts {
  readonly jacks: number;
  readonly streams: number;
  readonly controls: number;
}

/**
 * Parses an event.
 *
 * @returns the notification, or `undefined` if its type is unknown, or its item does not exist
 */
export function parseNotification(
  code: number,
  data: number,
  counts: ItemCounts,
): SoundNotification | undefined {
  switch (code) {
    case SoundEvent.JACK_CONNECTED:
    case SoundEvent.JACK_DISCONNECTED:
      if (data >= counts.jacks) return undefined;
      return { type: 'jack', jack: data, connected: code === SoundEvent.JACK_CONNECTED };
    case SoundEvent.PCM_PERIOD_ELAPSED:
    case SoundEvent.PCM_XRUN:
      if (data >= counts.streams) return undefined;
      return { type: code === SoundEvent.PCM_XRUN ? 'xrun' : 'period', stream: data };
    case SoundEvent.CTL_NOTIFY: {
      const control = data & 0xffff;
      if (control >= counts.controls) return undefined;
      return { type: 'control', control, changed: bitNames(ControlEventMask, data >>> 16) };
    }
    default:
      return undefined;
  }
}
