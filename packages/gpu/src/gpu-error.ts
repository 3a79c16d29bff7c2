/** The error of a command that the device refused. */
import { VirtioError } from '@virtio/core';
import { type GpuCommandName, GpuErrorType } from './protocol.ts';

/** The name of an answer that is an error; `UNKNOWN` for one that the specification does not have. */
export type GpuErrorName = keyof typeof GpuErrorType | 'UNKNOWN';

const MEANINGS: Readonly<Record<GpuErrorName, string>> = {
  ERR_UNSPEC: 'the device does not know the command, or failed for an unspecified reason',
  ERR_OUT_OF_MEMORY: 'the host is out of memory: destroy resources first, or ask for a smaller one',
  ERR_INVALID_SCANOUT_ID: 'there is no such scanout',
  ERR_INVALID_RESOURCE_ID: 'there is no such resource, or its id is in use',
  ERR_INVALID_CONTEXT_ID: 'there is no such context, or its id is in use',
  ERR_INVALID_PARAMETER: 'a number is out of range, such as a rectangle outside its resource',
  UNKNOWN: 'the error is not one of the specification',
};

const NAMES: ReadonlyMap<number, GpuErrorName> = new Map(
  Object.entries(GpuErrorType).map(([name, type]) => [type, name as GpuErrorName]),
);

/** The device refused a command: `IO_ERROR`, with its answer. */
export class GpuError extends VirtioError {
  /** The name of the command. */
  readonly command: GpuCommandName;
  /** The name of the answer. */
  readonly response: GpuErrorName;
  /** The type of the answer as a number. */
  readonly responseType: number;

  /**
   * @param who the device's name in the message
   * @param command the command that was refused
   * @param responseType the type of the answer
   */
  constructor(who: string, command: GpuCommandName, responseType: number) {
    const response = NAMES.get(responseType) ?? 'UNKNOWN';
    const shown = response === 'UNKNOWN' ? `0x${responseType.toString(16)}` : response;
    super('IO_ERROR', `${who} answered ${command} with ${shown}: ${MEANINGS[response]}`);
    this.command = command;
    this.response = response;
    this.responseType = responseType;
  }

  /** Whether `value` is a {@link GpuError}, by default with any answer. */
  static isGpuError(value: unknown, response?: GpuErrorName): value is GpuError {
    return isGpuError(value) && (response === undefined || value.response === response);
  }
}

/** A class that mentions itself is renamed by bundlers (esbuild), and its errors would be printed as `_GpuError`. */
function isGpuError(value: unknown): value is GpuError {
  return value instanceof GpuError;
}
