/** Output through the configuration space, when nothing else works: before initialization, or after a failure. */
import { encodeUtf8, requireBytes, type Transport, VirtioError } from '@virtio/core';
import { ConsoleConfig, ConsoleFeatures } from './protocol.ts';

/**
 * Writes to the console of a device in any state: this needs no queue, no interrupt and no negotiation.
 *
 * @param data text (as UTF-8) or bytes
 * @throws {@link VirtioError} `UNSUPPORTED` if the device does not offer `EMERG_WRITE`, `CONFIG_SPACE_TOO_SMALL`, `INVALID_PARAM`
 *
 * @example
 * ```ts
 * import type { Transport } from '@virtio/core';
 * import { emergencyWrite } from '@virtio/console';
 *
 * export const lastWords = (transport: Transport, error: Error): void => emergencyWrite(transport, `${error.message}\n`);
 * ```
 *
 * @see VIRTIO 1.4, 5.3.4
 */
export function emergencyWrite(transport: Transport, data: Uint8Array | string): void {
  if (!ConsoleFeatures.fromBits(transport.readDeviceFeatures()).has('EMERG_WRITE')) {
    throw noEmergencyWrite(transport);
  }
  writeEmergency(transport, data);
}

/** @internal the device is known to have it */
export function writeEmergency(transport: Transport, data: Uint8Array | string): void {
  const bytes = typeof data === 'string' ? encodeUtf8(data) : data;
  requireBytes(transport, bytes);
  for (const byte of bytes) transport.writeConfigSpace(ConsoleConfig.fields.emergWr, byte);
}

/** @internal */
export function noEmergencyWrite(transport: Transport): VirtioError {
  return new VirtioError(
    'UNSUPPORTED',
    `${transport.who()} does not offer EMERG_WRITE, so nothing can be written without queues`,
  );
}
