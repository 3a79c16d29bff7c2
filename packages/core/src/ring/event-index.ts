/** The arithmetic of the event index, which both ring formats share [2.7.10, 2.8.10]. */

/**
 * Whether the step of an index from `old` to `now` passes `event`, all modulo 2^16: the other side then wants a notification.
 *
 * @see VIRTIO 1.4, 2.7.10.1 (the entry written at `event` must be announced)
 */
export function needEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
