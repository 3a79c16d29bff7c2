/**
 * The channel on which the back end sends requests (BACKEND_REQ). A change of the configuration is handled; all other requests
 * belong to features that are not accepted, and are refused.
 */
import type { EventPoller } from '@virtio/linux';
import { encodeMessage, MessageReader } from './message.ts';
import { BackendRequest, encode, HeaderFlag, U64 } from './protocol.ts';
import { SideChannel } from './side-channel.ts';

/**
 * Makes the channel.
 *
 * @param replies whether `REPLY_ACK` was negotiated
 * @param onConfigChange called when the configuration has changed
 */
export function backendChannel(
  poller: EventPoller,
  replies: boolean,
  onConfigChange: () => void,
): SideChannel {
  return new SideChannel(poller, new MessageReader(), ({ request, flags }, answer) => {
    const known = request === BackendRequest.CONFIG_CHANGE_MSG;
    if (replies && (flags & HeaderFlag.NEED_REPLY) !== 0) {
      answer(encodeMessage(request, encode(U64, { value: known ? 0n : 1n }), HeaderFlag.REPLY));
    }
    if (known) onConfigChange();
  });
}
