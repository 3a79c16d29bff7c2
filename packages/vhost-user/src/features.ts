/** Which features are accepted: of the protocol, and of what a back end offers for its device. */
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

/** Added when a connection is to survive its back end. */
export const INFLIGHT_FEATURE = protocolMask('INFLIGHT_SHMFD');

const bits = (...numbers: readonly number[]): bigint =>
  numbers.reduce((mask, number) => mask | (1n << BigInt(number)), 0n);

/**
 * Bits that mean something else here, or need what the protocol does not have: 26 is the log of migration, 30 the features of the
 * protocol, 33 would translate every address (IOTLB); 38 and 39 are data of a notification, which an eventfd cannot carry, and 40
 * the reset of one queue, for which there is no request.
 */
const NEVER = bits(26, 33, 38, 39, 40) | PROTOCOL_FEATURES_BIT;

/**
 * A network back end moves frames only. The control queue is the front end's to serve (QEMU does), and so is what needs it: some
 * back ends offer these bits nevertheless and then never look at the queue. MQ is of no use without it.
 */
const NET_CONTROL = bits(2, 17, 18, 19, 20, 21, 22, 23, 52, 53, 57, 60);
/** MTU, MAC, STATUS and SPEED_DUPLEX are fields of the configuration space. */
const NET_CONFIG = bits(3, 5, 16, 63);

/** What of a back end's features a driver may see. */
export function visibleFeatures(deviceType: DeviceType, offered: bigint, hasConfig: boolean): bigint {
  let hidden = NEVER;
  if (deviceType === DeviceType.Network) hidden |= NET_CONTROL | (hasConfig ? 0n : NET_CONFIG);
  return offered & ~hidden;
}
