/**
 * The channel on which the back end asks (BACKEND_REQ). A configuration that changed is taken; all else belongs to features that are not
 * accepted, and is refused.
 */
import type { EventPoller } from '@virtio/linux';
import { encodeMessage, MessageReader } from './message.ts';
import { BackendRequest, encode, HeaderFlag, U64 } from './protocol.ts';
import { SideChannel } from './side-channel.ts';

/**
 * Makes the channel.
 *
 * @param replies whether `REPLY_ACK` was negotiated
 * @param onConfigChange the configuration has changed
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
