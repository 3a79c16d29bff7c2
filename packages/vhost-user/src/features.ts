/** Which features are accepted: of the protocol, and of the device that a back end offers. */
import { DeviceType } from '@virtio/core';
import { PROTOCOL_FEATURES_BIT, protocolMask } from './protocol.ts';

/** The features of the protocol that are implemented here. The README says why the others are not. */
export const SUPPORTED_PROTOCOL_FEATURES = protocolMask(
  'MQ',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'BACKEND_SEND_FD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
);

/** Added if the transport is to reconnect. */
export const INFLIGHT_FEATURE = protocolMask('INFLIGHT_SHMFD');

const bits = (...numbers: readonly number[]): bigint =>
  numbers.reduce((mask, number) => mask | (1n << BigInt(number)), 0n);

/**
 * Bits that have another meaning in vhost-user, or need what the protocol does not have: 26 is the log of migration, 30 stands for
 * features of the protocol, 33 would translate every address (IOTLB); 38 and 39 are notification data, which an eventfd cannot
 * carry, and 40 is the reset of one queue, for which there is no request.
 */
const NEVER = bits(26, 33, 38, 39, 40) | PROTOCOL_FEATURES_BIT;

/**
 * A network back end only moves frames. The front end would have to serve the control queue (QEMU does), and so all that needs it:
 * some back ends offer these bits nevertheless and then never process the queue. MQ is useless without it.
 */
const NET_CONTROL = bits(2, 17, 18, 19, 20, 21, 22, 23, 52, 53, 57, 60);
/** MTU, MAC, STATUS and SPEED_DUPLEX are fields of the configuration space. */
const NET_CONFIG = bits(3, 5, 16, 63);

/** The features of a back end that a driver may see. */
export function visibleFeatures(deviceType: DeviceType, offered: bigint, hasConfig: boolean): bigint {
  let hidden = NEVER;
  if (deviceType === DeviceType.Network) hidden |= NET_CONTROL | (hasConfig ? 0n : NET_CONFIG);
  return offered & ~hidden;
}
